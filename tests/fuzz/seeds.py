"""Bytes to begin with: good ones of each kind that is decoded, small, so that changes matter.

Decided here: what a fuzzer knows at its start. Not decided here: what is made of it (`targets`).
"""

import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import safetensors.numpy

__all__ = [
    "GOLDEN",
    "command_lines",
    "gguf_files",
    "golden",
    "metadata",
    "mount_tables",
    "questions",
    "references",
    "safetensors_files",
    "zip_files",
]

GOLDEN = Path(__file__).parents[1] / "golden"

_ARRAYS = {
    "embed": np.arange(64, dtype=np.float32).reshape(8, 8),
    "layers.0.norm": np.ones(8, dtype=np.float16),
}


def golden(*names: str) -> list[bytes]:
    """Return files that are in the repository, good ones and damaged ones."""
    return [path.read_bytes() for name in names for path in sorted(GOLDEN.glob(name))]


def safetensors_files() -> list[bytes]:
    """Return what the library writes, and headers that lie."""
    lies = [
        {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [2**62, -1], "data_offsets": [0, 2**62]}},
        {
            "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        },
    ]
    return [
        safetensors.numpy.save(_ARRAYS, metadata={"format": "pt"}),
        *(_safetensors(json.dumps(lie).encode(), bytes(24)) for lie in lies),
        _safetensors(b"{", b"")[:8] + b"{}",
        struct.pack("<Q", 2**63) + b"{}" + bytes(16),
    ]


def gguf_files() -> list[bytes]:
    """Return what the library writes, in both byte orders, and a file of pairs alone."""
    found = []
    for order in gguf.GGUFEndian:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, "model.gguf")
            writer = gguf.GGUFWriter(path, "llama", endianess=order)
            writer.add_token_list(["a", "bc", ""])
            writer.add_token_scores([0.5, 0.25, 0.0])
            writer.add_bool("a.flag", True)
            writer.add_custom_alignment(64)
            for name, array in _ARRAYS.items():
                writer.add_tensor(name, array)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            found.append(path.read_bytes())
    return [*found, b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(32)]


def zip_files() -> list[bytes]:
    """Return archives as numpy, torch and keras write them, with Zip64 and compressed ones too."""
    npz, small = io.BytesIO(), io.BytesIO()
    np.savez(npz, **_ARRAYS)
    np.savez_compressed(small, **_ARRAYS)
    torch = {
        "m/data.pkl": b"pickle",
        "m/data/0": bytes(64),
        "m/data/1": bytes(32),
        "m/version": b"3",
    }
    keras = {"config.json": b"{}", "model.weights.h5": bytes(64)}
    wide = io.BytesIO()
    with (
        zipfile.ZipFile(wide, "w") as archive,
        archive.open("m/data/0", "w", force_zip64=True) as out,
    ):
        out.write(bytes(64))
    return [npz.getvalue(), small.getvalue(), _zip(torch), _zip(keras), wide.getvalue(), _zip64()]


def metadata() -> list[bytes]:
    return [
        b'{"accuracy": 0.97, "layers": [1, 2, {"a": null}], "note": "\\u00e9"}',
        b'{"a": NaN, "b": 1e400, "c": 123456789012345678901234567890}',
        b"[" * 50 + b"]" * 50,
    ]


def command_lines() -> list[bytes]:
    return [
        b"commit run-17 mnist --alias best --reason 'it is better'\nln -sf mnist:v0 best\n",
        b"begin\nrm --force mnist:v0\nset mnist:v1 accuracy=0.97\nend\n",
        b"ln -sf artifacts/mnist/v3 'collections/a b/production' --expect v0\n",
        b"access --readers '*' --writers ml\nmv collections/a collections/b\n",
    ]


def questions() -> list[bytes]:
    return [b"ls mnist --limit 3 --project team/vision", b"show mnist:best", b"log --since 4"]


def references() -> list[bytes]:
    return [
        b"mnist:v3",
        b"team/vision/mnist:best@2026-11-24T10:00:00+01:00",
        b"collections/classifier/production",
        b"artifacts/mnist/next",
        b"../projects/team/vision/artifacts/m/v1",
        b"mnist:latest@{yesterday}",
        b"mnist@2h",
    ]


def mount_tables() -> list[bytes]:
    line = b"36 35 0:33 / /models rw,nodev shared:7 - fuse.mregfs /var/lib/mregfs rw,user_id=0\n"
    return [
        line,
        line.replace(b"/models", b"/mo\\040dels\\134") + line.replace(b"/var", b"%2Fv%20"),
        b"1 0 8:1 / / rw - ext4 /dev/root rw\n" + line,
    ]


def _safetensors(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def _zip(entries: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


def _zip64() -> bytes:
    """Return an archive whose end says: see the Zip64 record."""
    whole = _zip({"m/data.pkl": b"", "m/data/0": bytes(64)})
    at = whole.rindex(b"PK\5\6")
    count, length, start = struct.unpack_from("<H2I", whole, at + 10)
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    return whole[:at] + record + locator + end
