"""Writes the golden files of the newest format; run once per format, never for an older one.

    python -m tests.golden.make_golden

What it wrote is in the repository; `test_golden` holds all later programs to it.
"""

from pathlib import Path

import msgspec
import zstandard

from mregfs.model import changes as facts
from mregfs.model.changes import Entry, Request, encode_entry, entry_key
from mregfs.model.checkpoint import checkpoint_key, encode_checkpoint
from mregfs.model.digest import BLOCK, block_digests, file_digest
from mregfs.model.layout import (
    Chunk,
    Extent,
    FileLayout,
    PackInfo,
    Repeat,
    encode_layout,
    make_layout,
)
from mregfs.model.manifest import (
    ManifestEntry,
    encode_manifest,
    make_manifest,
    manifest_digest,
)
from mregfs.model.records import Parent
from mregfs.model.state import STATE_TABLES
from mregfs.registry.log.description import StoreDescription
from mregfs.registry.log.log import Log
from mregfs.registry.log.replay import NO_DIGEST, entry_digest
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory

HERE = Path(__file__).parent / "format-1"
DAMAGED = Path(__file__).parent / "damaged"

LARGE = bytes(range(256)) * (BLOCK // 256) + b"and more"
P = "default/default"


def manifest() -> bytes:
    large = file_digest(block_digests(LARGE), len(LARGE)).hex()
    return encode_manifest(
        make_manifest(
            [
                ManifestEntry("a", "directory"),
                ManifestEntry("a/empty", "directory"),
                ManifestEntry("a.b", "file", digest=block_digests(b"").hex()),
                ManifestEntry("a/model.bin", "file", len(LARGE), digest=large),
                ManifestEntry("a/run.sh", "file", 10, True, block_digests(b"#!/bin/sh\n").hex()),
                ManifestEntry("é link", "symlink", target="a/model.bin"),
            ]
        )
    )


def layout() -> bytes:
    packs = ("0123456789abcdef" * 2, "fedcba9876543210" * 2)
    return encode_layout(
        make_layout(
            {
                3: FileLayout(
                    len(LARGE),
                    extents=(Extent(packs[0], 0, 1000), Extent(packs[1], 64, len(LARGE) - 1000)),
                    blocks=block_digests(LARGE),
                    chunks=(Chunk(1000, b"a" * 16), Chunk(len(LARGE) - 1000, b"b" * 16)),
                ),
                4: FileLayout(10, inline=b"#!/bin/sh\n"),
                5: FileLayout(0, inline=b""),
            },
            {
                packs[0]: PackInfo(1000, (Repeat(0, packs[1], 64, 10),)),
                packs[1]: PackInfo(1 << 22),
            },
        )
    )


def entries() -> list[bytes]:
    """Return a log in which every kind of change occurs."""
    digest = manifest_digest(manifest())
    packs = ("0123456789abcdef" * 2, "fedcba9876543210" * 2)
    logged = facts.VersionLogged(
        P,
        "mnist",
        0,
        digest,
        "5" * 32,
        len(LARGE) + 10,
        3,
        6,
        dict(zip(packs, (1000, 1 << 22), strict=True)),
    )
    rich = facts.VersionLogged(
        P,
        "mnist",
        1,
        "c" * 64,
        "6" * 32,
        1,
        1,
        1,
        packs={"7" * 32: 1},
        shared=(packs[1],),
        description="é \n",
        metadata={"z": 1.5, "a": [None, True, {"b": -1}], "big": 2**60},
        tags=("x", "y z"),
        run="runs/17",
        parents=(Parent(P, "mnist", 0, digest),),
    )
    requests = [
        [
            facts.ProjectCreated(P),
            facts.ArtifactCreated(P, "mnist", "model"),
            logged,
            facts.AliasSet(P, "mnist", "best", 0),
        ],
        [rich, facts.AliasSet(P, "mnist", "best", 1, 0)],
        [
            facts.CollectionCreated(P, "MNIST Grayscale 28x28", "model"),
            facts.Linked(P, "MNIST Grayscale 28x28", 0, P, "mnist", 1),
            facts.AliasSet(P, "MNIST Grayscale 28x28", "production", 0),
            facts.AliasProtected(P, "MNIST Grayscale 28x28", "production", "ml"),
        ],
        [
            facts.Tagged(P, "mnist", 1, ("good",)),
            facts.DamageMarked(P, "mnist", 1, "2 of 7 blocks of weights"),
            facts.Described(P, "mnist", None, "digits"),
            facts.MetadataSet(P, "mnist", 1, {"acc": 0.99}),
            facts.AccessSet("", readers="*", writers="ml"),
            facts.AccessSet(P, readers="", private_drafts=True),
        ],
        [
            facts.AliasUnprotected(P, "MNIST Grayscale 28x28", "production"),
            facts.AliasDropped(P, "MNIST Grayscale 28x28", "production", 0),
            facts.CollectionRenamed(P, "MNIST Grayscale 28x28", "digits"),
            facts.Unlinked(P, "digits", 0),
            facts.OwnerDeleted(P, "digits"),
            facts.AliasDropped(P, "mnist", "best", 1),
            facts.VersionDeleted(P, "mnist", 1),
            facts.LayoutReplaced(P, "mnist", 0, "8" * 32, "5" * 32, {"9" * 32: 9}, (packs[1],)),
            facts.PacksRetired("", ("7" * 32, packs[0])),
        ],
    ]
    found: list[bytes] = []
    for number, changes in enumerate(requests, 1):
        entry = Entry(
            sequence=number,
            previous=entry_digest(found[-1]) if found else NO_DIGEST,
            transaction=f"{number:032x}",
            at_ns=1_790_000_000_000_000_000 + number,
            host="golden",
            requests=(Request("ann", tuple(changes), "why" if number == 2 else "", "root"),),
        )
        found.append(encode_entry(entry))
    return found


def store() -> tuple[ObjectsMemory, IndexMemory]:
    """Return a store with that log, replayed."""
    objects, index = ObjectsMemory(), IndexMemory()
    for number, data in enumerate(entries(), 1):
        objects.create(entry_key(number), data)
    Log(objects, index, clock=lambda: 0, new_id=lambda: "", host="").catch_up()
    return objects, index


def checkpoint(index: IndexMemory) -> bytes:
    with index.read() as view:
        rows = [(t, key, value) for t in STATE_TABLES for key, value in view.scan(t)]
    return encode_checkpoint(index.applied(), rows)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    DAMAGED.mkdir(exist_ok=True)
    description = StoreDescription(1, "0" * 32, "2026-11-24T00:00:00.000000Z", "mregfs 0.1.0")
    objects, index = store()
    whole = {
        "store.json": msgspec.json.encode(description) + b"\n",
        "manifest.json": manifest(),
        "layout.bin": layout(),
        Path(checkpoint_key(5)).name: checkpoint(index),
        **{f"log-{n}.json": objects.get(entry_key(n)) for n in range(1, 6)},
    }
    for name, data in whole.items():
        (HERE / name).write_bytes(data)
    for name, data in damaged(whole).items():
        (DAMAGED / name).write_bytes(data)


def damaged(whole: dict[str, bytes]) -> dict[str, bytes]:
    """Return files with one flaw each; the name says of what kind the file is, and the flaw."""
    log, json, packed = whole["log-2.json"], whole["manifest.json"], whole["layout.bin"]
    frame = whole["00000000000000000005.zst"]
    rows = zstandard.ZstdDecompressor().decompress(frame)
    compress = zstandard.ZstdCompressor().compress
    return {
        "log-cut-off.json": log[:-20],
        "log-empty.json": b"",
        "log-not-utf8.json": log.replace(b"runs/17", b"runs/\xff7"),
        "log-unknown-change.json": log.replace(b"alias-set", b"alias-sat"),
        "log-unknown-feature.json": log.replace(
            b'"host"', b'"features":{"shards":["read"]},"host"'
        ),
        "log-text-for-number.json": log.replace(b'"sequence":2', b'"sequence":"2"'),
        "manifest-flipped-bit.json": json.replace(b"run.sh", b"run.sx"),
        "manifest-cut-off.json": json[:-30],
        "layout-cut-off.bin": packed[:-5],
        "layout-more-behind.bin": packed + b"\0",
        "layout-format-2.bin": packed[:1] + b"\2" + packed[2:],
        "layout-extent-too-long.bin": packed.replace(b"\xcd\x03\xe8", b"\xcd\x03\xe9"),
        "layout-sketch-of-15-bytes.bin": packed.replace(
            b"\xc4\x10" + b"a" * 16, b"\xc4\x0f" + b"a" * 15
        ),
        "checkpoint-cut-off.zst": frame[: len(frame) // 2],
        "checkpoint-not-zstd.zst": b"not zstd at all",
        "checkpoint-flipped-bit.zst": compress(rows.replace(b"digits", b"digitz")),
        "checkpoint-no-header.zst": compress(rows[rows.index(b"\n") + 1 :]),
        "checkpoint-other-place.zst": compress(rows.replace(b'"sequence":5', b'"sequence":6')),
        "store-newer-format.json": whole["store.json"].replace(b'"format":1', b'"format":2'),
        "store-no-id.json": b'{"format":1,"features":{}}',
        "store-no-features.json": whole["store.json"].replace(b',"features":{}', b""),
        "store-unknown-feature.json": whole["store.json"].replace(
            b'"features":{}', b'"features":{"shards":["read"]}'
        ),
        "store-cut-off.json": whole["store.json"][:-10],
    }


if __name__ == "__main__":
    main()
