"""Old bytes are read for ever, and today's are written the same, byte for byte."""

import hashlib
from pathlib import Path

import msgspec
import pytest
import zstandard

from mregfs.errors import CorruptError, InvalidError, UnsupportedError
from mregfs.model.changes import Change, decode_entry, encode_entry, entry_key
from mregfs.model.checkpoint import checkpoint_key, decode_checkpoint, encode_checkpoint
from mregfs.model.layout import decode_layout, encode_layout
from mregfs.model.manifest import decode_manifest, encode_manifest, manifest_digest
from mregfs.model.state import STATE_TABLES
from mregfs.registry.log.description import StoreDescription, read_description
from mregfs.registry.log.log import Log
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory

HERE = Path(__file__).parent
FORMAT_1 = HERE / "format-1"
SEAL = "e3b8ef488022da2ea69f67a901b7f82eb4668455b17c7df4f96fa5ccb3f6db78"
"""SHA-256 of all files of format 1."""

LOG = [FORMAT_1 / f"log-{number}.json" for number in range(1, 6)]


def replayed() -> IndexMemory:
    objects, index = ObjectsMemory(), IndexMemory()
    for number, path in enumerate(LOG, 1):
        objects.create(entry_key(number), path.read_bytes())
    Log(objects, index, clock=lambda: 0, new_id=lambda: "", host="").catch_up()
    return index


def test_the_files_are_those_that_were_written() -> None:
    """Nobody made them anew."""
    digest = hashlib.sha256()
    for path in sorted(FORMAT_1.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    assert SEAL == digest.hexdigest()


def test_store() -> None:
    """`store.json` says what it said."""
    objects = ObjectsMemory()
    data = (FORMAT_1 / "store.json").read_bytes()
    objects.create("store.json", data)
    description = read_description(objects, "here")
    expected = StoreDescription(1, "0" * 32, "2026-11-24T00:00:00.000000Z", "mregfs 0.1.0")
    assert expected == description
    assert data == msgspec.json.encode(description) + b"\n"


def test_log_entries() -> None:
    """Every kind of change."""
    kinds = set()
    for path in LOG:
        data = path.read_bytes()
        entry = decode_entry(data, path.name)
        assert data == encode_entry(entry)
        kinds |= {type(change) for request in entry.requests for change in request.changes}
    assert set(Change.__args__) == kinds


def test_manifest() -> None:
    """The identity of content never changes."""
    data = (FORMAT_1 / "manifest.json").read_bytes()
    entry = decode_entry(LOG[0].read_bytes(), "")
    digest = manifest_digest(data)
    assert digest == entry.requests[0].changes[2].digest  # type: ignore[union-attr]
    assert data == encode_manifest(decode_manifest(data, digest))


def test_layout() -> None:
    """Where bytes are is read and written the same."""
    data = (FORMAT_1 / "layout.bin").read_bytes()
    assert data == encode_layout(decode_layout(data, "x"))


def test_checkpoint() -> None:
    """It holds what replay of the log comes to, and is written so (but for the compression)."""
    data = (FORMAT_1 / "00000000000000000005.zst").read_bytes()
    checkpoint = decode_checkpoint(data, checkpoint_key(5))
    with replayed().read() as view:
        rows = [(table, key, value) for table in STATE_TABLES for key, value in view.scan(table)]
    assert rows == list(checkpoint.rows())
    decompress = zstandard.ZstdDecompressor().decompress
    assert decompress(data) == decompress(encode_checkpoint(5, rows))


DAMAGED = sorted((HERE / "damaged").iterdir())


@pytest.mark.parametrize("path", DAMAGED, ids=lambda path: path.name)
def test_damage_is_refused(path: Path) -> None:
    """One flaw each; never a traceback, never half an answer."""
    data = path.read_bytes()
    with pytest.raises((CorruptError, InvalidError, UnsupportedError)):
        match path.name.partition("-")[0]:
            case "log":
                decode_entry(data, path.name)
            case "manifest":
                whole = (FORMAT_1 / "manifest.json").read_bytes()
                decode_manifest(data, manifest_digest(whole))
            case "layout":
                decode_layout(data, "x")
            case "checkpoint":
                list(decode_checkpoint(data, checkpoint_key(5)).rows())
            case "store":
                objects = ObjectsMemory()
                objects.create("store.json", data)
                read_description(objects, "here")
