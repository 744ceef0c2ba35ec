"""What is given any bytes, and what must be true of its answer.

Decided here: the decoders, the errors that each may raise (a closed set, a person can act on all of
them), and what holds for every answer. Not decided here: which bytes (`one`, the tests), how long
and how much memory an answer may take (`one`).
"""

import contextlib
import os
from collections.abc import Callable
from functools import lru_cache

import attrs
import msgspec
import zstandard
from blake3 import blake3

from mregfs.errors import CorruptError, InvalidError, UnsupportedError
from mregfs.host.mounts import read_mounts
from mregfs.model.changes import decode_entry, encode_entry, entry_key, event_line
from mregfs.model.checkpoint import checkpoint_key, decode_checkpoint
from mregfs.model.chunking import boundaries
from mregfs.model.grammar import parse_script
from mregfs.model.layout import decode_layout, encode_layout
from mregfs.model.manifest import decode_manifest, encode_manifest, manifest_digest
from mregfs.model.metadata import parse_metadata
from mregfs.model.names import DEFAULT_PROJECT, parse_number, parse_project
from mregfs.model.queries import parse_query, spell, unspell
from mregfs.model.reference import parse_location, parse_when
from mregfs.model.tensors import read_tensors
from mregfs.registry.log.description import KEY, read_description
from mregfs.registry.log.log import Log
from mregfs.registry.log.replay import NO_DIGEST
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory
from tests.fuzz import seeds

__all__ = ["PLANTED", "TARGETS", "Target"]


@attrs.frozen
class Target:
    """Something that decodes bytes."""

    name: str
    check: Callable[[bytes], None]
    """Raises something else than `errors`, or does not hold its promises: a fault."""
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]

    def run(self, data: bytes) -> bool:
        """Check one answer; tell whether the bytes were taken."""
        try:
            self.check(data)
        except self.errors:
            return False
        return True


def check_entry(data: bytes) -> None:
    """A log entry is refused, or written and shown as it was read."""
    entry = decode_entry(data, entry_key(1))
    assert entry == decode_entry(encode_entry(entry), entry_key(1))
    msgspec.json.decode(event_line(entry))


def check_requests(data: bytes) -> None:
    """What a hostile writer appends is refused by name, or leaves a state that can be read."""
    objects, index = ObjectsMemory(), IndexMemory()
    head = (
        b'{"sequence":1,"previous":"%s","transaction":"%s","at_ns":1790000000000000000,'
        b'"host":"h","requests":%s}\n'
    )
    objects.create(entry_key(1), head % (NO_DIGEST.encode(), b"1" * 32, data))
    log = Log(objects, index, clock=lambda: 0, new_id=lambda: "", host="", pause=lambda _: None)
    log.catch_up(strict=True)


def check_manifest(data: bytes) -> None:
    """A manifest is refused, or its own bytes again."""
    manifest = decode_manifest(data, manifest_digest(data))
    again = encode_manifest(manifest)
    assert manifest == decode_manifest(again, manifest_digest(again))
    for entry in manifest.entries:
        assert ".." not in entry.path.split("/")
        assert entry.size >= 0


def check_layout(data: bytes) -> None:
    layout = decode_layout(data, "a" * 32)
    assert layout == decode_layout(encode_layout(layout), "a" * 32)
    for position, file in layout.files.items():
        assert position > 0
        stored = sum(extent.length for extent in file.extents) + len(file.inline or b"")
        assert file.size == stored


def check_checkpoint(data: bytes) -> None:
    list(decode_checkpoint(data, checkpoint_key(5)).rows())


def check_rows(data: bytes) -> None:
    """The rows of a checkpoint whose digest is right: somebody meant them."""
    text = _good_checkpoint()
    header = msgspec.json.decode(text[: text.index(b"\n")])
    header.update(size=len(data), digest=blake3(data).hexdigest())
    whole = msgspec.json.encode(header) + b"\n" + data
    check_checkpoint(zstandard.ZstdCompressor(level=1).compress(whole))


def check_description(data: bytes) -> None:
    objects = ObjectsMemory()
    objects.create(KEY, data)
    read_description(objects, "/store")


def check_tensors(data: bytes) -> None:
    """Nothing is raised, all is in range and in order, not much is read; so with zeros behind."""
    for size in (len(data), len(data) + (1 << 14)):
        reads = []

        def read(offset: int, length: int, size: int = size, reads: list[int] = reads) -> bytes:
            assert offset >= 0 <= length
            length = min(length, max(size - offset, 0))
            reads.append(length)
            found = data[offset : offset + length]
            return found + bytes(length - len(found))

        table = read_tensors(read, size)
        assert sum(reads) <= 8 * len(data) + (2 << 20)
        if table is None:
            continue
        msgspec.json.encode([tensor.name for tensor in table.tensors])
        for tensor in table.tensors:
            assert 0 <= tensor.start <= tensor.end <= size
        end = 0
        for region in table.regions:
            assert end <= region.start < region.end <= size
            end = region.end
    cuts = boundaries(lambda offset, length: data[offset : offset + length], len(data))
    assert cuts == sorted(set(cuts))
    assert (cuts[-1] if cuts else 0) == len(data)


def check_metadata(data: bytes) -> None:
    msgspec.json.encode(parse_metadata(data.decode(errors="surrogateescape")))


def check_lines(data: bytes) -> None:
    parse_script(data.decode(errors="surrogateescape"), DEFAULT_PROJECT)


def check_question(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    parse_query(text, DEFAULT_PROJECT)


def check_spelling(data: bytes) -> None:
    """A question's spelling is refused or read; a text that is spelled is read as it was."""
    text = data.decode(errors="replace")
    if text:
        assert text == unspell([os.fsencode(name) for name in spell(text)])
    unspell(data.split(b"/"))


def check_reference(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    for parse in (parse_when, parse_project, parse_number):
        with contextlib.suppress(InvalidError):
            parse(text)
    parse_location(text, DEFAULT_PROJECT)


def check_mounts(data: bytes) -> None:
    """Whatever somebody mounts, the table of mounts is read."""
    fd = os.memfd_create("mounts")
    try:
        os.write(fd, data)
        read_mounts(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def check_planted(data: bytes) -> None:
    """Stumble over one value of one field behind a magic number."""
    if len(data) > 6 and data[0] == 0x4D and data[1] == 0x52 and data[2] > 0xF0 and data[3] == 7:
        data[len(data)]


@lru_cache
def _good_checkpoint() -> bytes:
    (frame,) = seeds.golden("format-1/*.zst")
    return zstandard.ZstdDecompressor().decompress(frame)


def _bodies() -> list[bytes]:
    """Return the rows of the good checkpoint, without its header."""
    text = _good_checkpoint()
    return [text[text.index(b"\n") + 1 :]]


def _requests() -> list[bytes]:
    """Return the requests of each good entry, and of all in one."""

    class Part(msgspec.Struct):
        requests: msgspec.Raw

    entries = seeds.golden("format-1/log-*.json")
    found = [bytes(msgspec.json.decode(data, type=Part).requests) for data in entries]
    return [*found, b"[%s]" % b",".join(requests[1:-1] for requests in found)]


_CORRUPT = (CorruptError,)
_INVALID = (InvalidError,)

TARGETS = {
    target.name: target
    for target in (
        Target(
            "entry",
            check_entry,
            (CorruptError, UnsupportedError),
            lambda: seeds.golden("format-1/log-*", "damaged/log-*"),
        ),
        Target("requests", check_requests, (CorruptError, UnsupportedError), _requests),
        Target("manifest", check_manifest, _CORRUPT, lambda: seeds.golden("*/manifest*")),
        Target("layout", check_layout, _CORRUPT, lambda: seeds.golden("*/layout*")),
        Target("checkpoint", check_checkpoint, _CORRUPT, lambda: seeds.golden("*/*.zst")),
        Target("rows", check_rows, _CORRUPT, _bodies),
        Target(
            "description",
            check_description,
            (InvalidError, UnsupportedError),
            lambda: seeds.golden("*/store*"),
        ),
        Target("safetensors", check_tensors, (), seeds.safetensors_files),
        Target("gguf", check_tensors, (), seeds.gguf_files),
        Target("zip", check_tensors, (), seeds.zip_files),
        Target("metadata", check_metadata, _INVALID, seeds.metadata),
        Target("lines", check_lines, _INVALID, seeds.command_lines),
        Target("question", check_question, _INVALID, seeds.questions),
        Target("spelling", check_spelling, _INVALID, seeds.questions),
        Target("reference", check_reference, _INVALID, seeds.references),
        Target("mounts", check_mounts, (), seeds.mount_tables),
    )
}

PLANTED = Target("planted", check_planted, (), lambda: [b"good bytes"])
"""A fault that the fuzzer must find, or it would find no other."""
