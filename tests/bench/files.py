"""The files that are measured: a checkpoint with named layers, what becomes of it, small files.

Decided here: what realistic means (shapes of a small Llama, float16 weights of a normal
distribution). The formats are written by hand, byte for byte
as safetensors and torch lay them out, because order and alignment are what is varied. Nothing here
knows of mregfs.
"""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

__all__ = [
    "CHANGES",
    "Tensors",
    "checkpoint",
    "write_pt",
    "write_safetensors",
    "write_small_files",
    "write_unique_copy",
]

Tensors = dict[str, np.ndarray]
"""Name to weights (float16: numpy has no bfloat16), in file order."""

SMALL_FILES = 2000
_VOCABULARY = 32_000


def checkpoint(size: int, seed: int = 1) -> Tensors:
    """Return the tensors of a transformer of about `size` bytes (at least that, when it can)."""
    hidden = 1024 if size >= 256 << 20 else 256
    tensors: Tensors = {"model.embed_tokens.weight": _weights(seed, (_VOCABULARY, hidden))}
    total = 2 * tensors["model.embed_tokens.weight"].nbytes
    number = 0
    while total < size or number < 4:
        layer = _layer(number, hidden, seed)
        tensors |= layer
        total += sum(array.nbytes for array in layer.values())
        number += 1
    tensors["model.norm.weight"] = _weights(seed + 1, (hidden,))
    tensors["lm_head.weight"] = _weights(seed + 2, (_VOCABULARY, hidden))
    return tensors


def _layer(number: int, hidden: int, seed: int) -> Tensors:
    inner = hidden * 11 // 4
    shapes = {
        "input_layernorm": (hidden,),
        "mlp.down_proj": (hidden, inner),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "post_attention_layernorm": (hidden,),
        "self_attn.k_proj": (hidden, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.v_proj": (hidden, hidden),
    }
    return {
        f"model.layers.{number}.{name}.weight": _weights(
            hash((seed, number, place)) & 0xFFFFFFFF, shape
        )
        for place, (name, shape) in enumerate(shapes.items())
    }


def _weights(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    values *= 0.02
    return values.astype(np.float16)


# ---- what becomes of a checkpoint


def head_tuned(tensors: Tensors) -> Tensors:
    """Return the checkpoint with the output layer trained anew."""
    return tensors | {"lm_head.weight": _weights(77, tensors["lm_head.weight"].shape)}


def layer_inserted(tensors: Tensors) -> Tensors:
    """Return the checkpoint one layer deeper: a new one in the middle, those behind renumbered."""
    hidden = tensors["model.norm.weight"].shape[0]
    middle = sum(name.endswith("input_layernorm.weight") for name in tensors) // 2
    grown: Tensors = {}
    for name, array in tensors.items():
        if name.startswith("model.layers."):
            number, rest = name.removeprefix("model.layers.").split(".", 1)
            if int(number) == middle and rest.startswith("input_layernorm"):
                grown |= _layer(middle, hidden, seed=78)
            moved = int(number) + (int(number) >= middle)
            grown[f"model.layers.{moved}.{rest}"] = array
        else:
            grown[name] = array
    return grown


def reordered(tensors: Tensors) -> Tensors:
    """Return the checkpoint with its tensors in another order."""
    return dict(sorted(tensors.items(), key=lambda item: item[0][::-1]))


def vocabulary_grown(tensors: Tensors) -> Tensors:
    """Return the checkpoint with 64 more words."""
    grown = dict(tensors)
    for seed, name in enumerate(("model.embed_tokens.weight", "lm_head.weight")):
        array = tensors[name]
        grown[name] = np.vstack([array, _weights(79 + seed, (64, array.shape[1]))])
    return grown


def layers_tuned(tensors: Tensors) -> Tensors:
    """Return the checkpoint with one tensor of every third layer trained anew."""
    tuned = dict(tensors)
    for number in range(0, len(tensors), 3):
        name = f"model.layers.{number}.self_attn.q_proj.weight"
        if name in tuned:
            tuned[name] = _weights(80 + number, tuned[name].shape)
    return tuned


def _longer_header(tensors: Tensors, path: Path) -> None:
    note = {f"training.argument.{number}": f"value {number}" for number in range(200)}
    write_safetensors(path, tensors, note)


def _saving(change: Callable[[Tensors], Tensors]) -> Callable[[Tensors, Path], None]:
    return lambda tensors, path: write_safetensors(path, change(tensors))


def write_pt(tensors: Tensors, path: Path) -> None:
    """Write the file that `torch.save(state_dict)` makes: a stored zip, data at 64-byte borders."""
    names = {
        name: ("HalfStorage", str(number), array.shape)
        for number, (name, array) in enumerate(tensors.items())
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "archive/data.pkl", pickle.dumps(names, protocol=2))
        _add(archive, "archive/byteorder", b"little")
        for number, array in enumerate(tensors.values()):
            _add(archive, f"archive/data/{number}", array.tobytes())
        _add(archive, "archive/version", b"3\n")


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    assert archive.fp is not None
    start = archive.fp.tell() + 30 + len(name) + 4
    padding = -start % 64
    info = zipfile.ZipInfo(name)
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(info, data)


CHANGES: Mapping[str, Callable[[Tensors, Path], None]] = {
    "head tuned": _saving(head_tuned),
    "JSON header longer": _longer_header,
    "layer inserted": _saving(layer_inserted),
    "tensors re-ordered": _saving(reordered),
    "vocabulary grown": _saving(vocabulary_grown),
    "re-saved as .pt": write_pt,
}
"""What happens to a checkpoint between two versions; each writes the second one."""


# ---- writing


def write_safetensors(
    path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors in their order, and `metadata` into the header."""
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {
            "dtype": "F16",
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for array in tensors.values():
            file.write(array.data)


def write_small_files(directory: Path) -> list[str]:
    """Write 2000 files of 0.2 to 8 KiB in 20 directories, and return their paths."""
    random = np.random.default_rng(5)
    paths = []
    for number in range(SMALL_FILES):
        path = f"evaluation/task-{number % 20:02}/sample-{number // 20:04}.json"
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        scores = random.integers(0, 1000, size=int(random.integers(20, 1600)))
        (directory / path).write_text(json.dumps({"id": number, "scores": scores.tolist()}))
        paths.append(path)
    return paths


def write_unique_copy(source: Path, target: Path, seed: int) -> None:
    """Copy a checkpoint so that it shares no chunk with any other: 16 bytes in each 16 KiB differ.

    The header is kept as it is, so the copy is as valid as the source. The data is on disk when
    this returns, and in the page cache.
    """
    stamp = np.random.default_rng(seed).integers(0, 256, 16, dtype=np.uint8).tobytes()
    with source.open("rb") as old, target.open("xb", buffering=0) as new:
        head = old.read(8)
        head += old.read(struct.unpack("<Q", head)[0])
        new.write(head)
        while block := bytearray(old.read(4 << 20)):
            rows = np.frombuffer(block, np.uint8)
            whole = rows[: len(rows) // 16384 * 16384].reshape(-1, 16384)
            whole[:, 5000:5016] ^= np.frombuffer(stamp, np.uint8)
            if len(rows) > len(whole) * 16384:
                rows[-min(16, len(rows)) :] ^= np.frombuffer(stamp, np.uint8)[: min(16, len(rows))]
            new.write(block)
        os.fsync(new.fileno())
