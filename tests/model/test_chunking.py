"""The cuts: what they promise of any bytes, what they save, and that they never change."""

import json
import os
import struct
import sys
import zlib

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from pyfastcdc import FastCDC

from mregfs.model import chunking
from mregfs.model.chunking import MAX_CHUNK

KIB, MIB = 1 << 10, 1 << 20


def boundaries(data):
    return chunking.boundaries(lambda offset, length: data[offset : offset + length], len(data))


def noise(seed, size):
    """Incompressible bytes that are the same on every machine."""
    return blake3(seed.encode()).digest(length=size)


# ---- files, laid out by hand as the libraries lay them out -------------------------------------


def as_safetensors(weights, metadata=None):
    """`weights`: name → bytes, written in the order given."""
    header = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, data in weights.items():
        header[name] = {
            "dtype": "F16",
            "shape": [len(data) // 2],
            "data_offsets": [at, at + len(data)],
        }
        at += len(data)
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return b"".join([struct.pack("<Q", len(raw)), raw, *weights.values()])


def as_torch(weights, root="archive"):
    """What `torch.save` writes: stored entries, data aligned to 64 by an extra field, descriptors.

    The pickle that names the storages is a stand-in of its usual size.
    """
    entries = {"data.pkl": "".join(f"{name} storage\n" for name in weights).encode() * 2}
    entries |= {".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little"}
    entries |= {f"data/{number}": data for number, data in enumerate(weights.values())}
    entries |= {"version": b"3\n", ".data/serialization_id": b"0" * 40}
    parts, directory, at = [], [], 0
    for entry, data in entries.items():
        name = f"{root}/{entry}".encode()
        padding = -(at + 30 + len(name) + 4) % 64
        extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
        crc, size = zlib.crc32(data), len(data)
        sizes = (crc, size, size, len(name))
        parts += [
            struct.pack("<4s5H3I2H", b"PK\3\4", 0, 0x808, 0, 0, 0, 0, 0, 0, len(name), len(extra)),
            name,
            extra,
            data,
            struct.pack("<4s3I", b"PK\7\x08", crc, size, size),
        ]
        rest = (0, 0, 0, 0, 0, at)
        directory += [struct.pack("<4s6H3I5H2I", b"PK\1\2", 0, 0, 0x808, 0, 0, 0, *sizes, *rest)]
        directory += [name]
        at += 30 + len(name) + len(extra) + size + 16
    body = b"".join(directory)
    counts = (len(entries), len(entries))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *counts, len(body), at, 0)
    return b"".join([*parts, body, end])


def as_gguf(weights):
    tokens = [f"token-{n}".encode() for n in range(2000)]
    key = b"tokenizer.ggml.tokens"
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(weights), 1)
    head += struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 8, len(tokens))
    head += b"".join(struct.pack("<Q", len(token)) + token for token in tokens)
    parts, at = [], 0
    for name, data in weights.items():
        head += struct.pack("<Q", len(name)) + name.encode()
        head += struct.pack("<IQIQ", 1, len(data) // 2, 1, at)
        parts.append(data + bytes(-len(data) % 32))
        at += len(parts[-1])
    return b"".join([head, bytes(-len(head) % 32), *parts])


def language_model(layers, width, vocabulary):
    """The tensors of a Llama-like model in safetensors' order (16-bit, sorted by name)."""

    def tensor(name, *shape):
        size = 2
        for dimension in shape:
            size *= dimension
        return {name: noise(name, size)}

    weights = tensor("lm_head.weight", vocabulary, width)
    weights |= tensor("model.embed_tokens.weight", vocabulary, width)
    for layer in sorted(range(layers), key=str):
        prefix = f"model.layers.{layer}"
        inner = width * 8 // 3
        weights |= tensor(f"{prefix}.input_layernorm.weight", width)
        weights |= tensor(f"{prefix}.mlp.down_proj.weight", width, inner)
        weights |= tensor(f"{prefix}.mlp.gate_proj.weight", inner, width)
        weights |= tensor(f"{prefix}.mlp.up_proj.weight", inner, width)
        weights |= tensor(f"{prefix}.post_attention_layernorm.weight", width)
        weights |= tensor(f"{prefix}.self_attn.k_proj.weight", width // 4, width)
        weights |= tensor(f"{prefix}.self_attn.o_proj.weight", width, width)
        weights |= tensor(f"{prefix}.self_attn.q_proj.weight", width, width)
        weights |= tensor(f"{prefix}.self_attn.v_proj.weight", width // 4, width)
    return weights | tensor("model.norm.weight", width)


def changed(weights, change, width):
    """Return the file after `change`; `weights` as `language_model` made them."""
    if change == "head tuned":
        return as_safetensors(
            weights | {"lm_head.weight": noise("h", len(weights["lm_head.weight"]))}
        )
    if change == "header longer":
        return as_safetensors(weights, {f"key {n}": "value" * 20 for n in range(40)})
    if change == "layer inserted":
        copy = {}
        for name, data in weights.items():
            copy[name] = data
            if name.startswith("model.layers.1."):
                copy[name.replace(".1.", ".100.")] = noise("new" + name, len(data))
        return as_safetensors(copy)
    if change == "tensors re-ordered":
        return as_safetensors(dict(sorted(weights.items(), key=lambda kv: noise(kv[0], 8))))
    if change == "vocabulary grown":
        more = {
            n: d + noise("rows", 64 * 2 * width) for n, d in weights.items() if "layers" not in n
        }
        more.pop("model.norm.weight")
        return as_safetensors(weights | more)
    assert change == "saved as .pt"
    return as_torch(weights)


CHANGES = [
    "head tuned",
    "header longer",
    "layer inserted",
    "tensors re-ordered",
    "vocabulary grown",
    "saved as .pt",
]


# ---- what is stored anew -----------------------------------------------------------------------


def small_cdc(data):
    """The peer to beat: FastCDC at an average of 64 KiB."""
    return [chunk.offset + chunk.length for chunk in FastCDC(64 * KIB).cut_buf(data)]


def chunks_of(data, cut):
    """Return digest → length of the chunks."""
    ends = cut(data)
    view = memoryview(data)
    return {
        blake3(view[start:end]).digest(): end - start
        for start, end in zip([0, *ends], ends, strict=False)
    }


def new_bytes(known, data, cut):
    return sum(size for digest, size in chunks_of(data, cut).items() if digest not in known)


WIDTH = 512


@pytest.fixture(scope="module")
def model():
    return language_model(layers=3, width=WIDTH, vocabulary=4003)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_costs_little_more_than_with_small_content_defined_chunks(model, change):
    before = as_safetensors(model)
    after = changed(model, change, WIDTH)

    ours = new_bytes(chunks_of(before, boundaries), after, boundaries)
    theirs = new_bytes(chunks_of(before, small_cdc), after, small_cdc)

    assert ours <= theirs + 0.05 * len(after)
    assert len(boundaries(after)) <= len(small_cdc(after)) // 2


@pytest.mark.parametrize("form", [as_torch, as_gguf])
def test_large_tensors_are_the_same_chunks_in_every_format(model, form):
    known = chunks_of(as_safetensors(model), boundaries)
    found = chunks_of(form(model), boundaries)

    shared = sum(size for digest, size in found.items() if digest in known)
    assert shared >= sum(len(data) for data in model.values() if len(data) >= 64 * KIB)


def test_small_tensor_put_into_a_long_run_moves_only_the_cuts_near_it():
    names = [f"expert.{n}.bias" for n in range(1000)]
    weights = {name: noise(name, 4000) for name in names}
    more = {names[0]: weights[names[0]], "new": noise("new", 6000), **weights}

    known = chunks_of(as_safetensors(weights), boundaries)
    header = boundaries(as_safetensors(more))[0]
    assert new_bytes(known, as_safetensors(more), boundaries) < header + 600 * KIB


def test_opaque_bytes_within_an_archive_are_the_chunks_they_are_on_their_own():
    weights = b"\x89HDF\r\n\x1a\n" + noise("h5", 6 * MIB)
    archive = as_torch({}).replace(b"version", b"VERSION")
    assert len(boundaries(archive)) == 1  # small neighbours only

    known = chunks_of(weights, boundaries)
    within = as_torch({"model.weights.h5": weights}).replace(b"/data/0", b"/w.h5__")
    assert new_bytes(known, within, boundaries) < 4 * KIB


# ---- what holds for any bytes ------------------------------------------------------------------


def check_cuts(data):
    ends = boundaries(data)
    assert all(0 < end - start <= MAX_CHUNK for start, end in zip([0, *ends], ends, strict=False))
    assert ends[-1:] == ([len(data)] if data else [])


def test_no_bytes_are_no_chunks():
    assert boundaries(b"") == []
    assert boundaries(b"x") == [1]


@pytest.mark.parametrize("size", [16 * MIB - 1, 16 * MIB, 16 * MIB + 1, 40 * MIB + 12345])
@pytest.mark.parametrize("kind", ["noise", "zeros", "mixed"])
def test_cuts_do_not_depend_on_how_a_file_is_read(size, kind):
    """It is read in windows, and cut as if it were in memory as a whole."""
    data = {
        "noise": lambda: noise("windows", size),
        "zeros": lambda: bytes(size),
        "mixed": lambda: (noise("m", 15 * MIB) + bytes(5 * MIB) + noise("n", size))[:size],
    }[kind]()
    cutter = FastCDC(MIB, min_size=256 * KIB, max_size=4 * MIB, normalized_chunking=1, seed=0)
    assert boundaries(data) == [each.offset + each.length for each in cutter.cut_buf(data)]


def test_a_file_that_is_cut_short_meanwhile_is_cut_to_its_former_end():
    data = noise("short", 20 * MIB)
    ends = chunking.boundaries(lambda offset, length: data[offset : offset + length], 50 * MIB)
    assert ends == sorted(set(ends))
    assert 50 * MIB == ends[-1]


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=2000), st.integers(0, 3 * MIB))
def test_arbitrary_bytes_are_cut(data, more):
    check_cuts(data + bytes(more))


PIECES = {"norm": 300, "bias": 65 * KIB, "big": 5 * MIB + 123, "tiny": 2, "head": 700 * KIB}
FILES = [
    form({name: noise(name, size) for name, size in PIECES.items()})
    for form in (as_safetensors, as_torch, as_gguf)
]


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(-700, 700), st.binary(min_size=1, max_size=9)), max_size=4),
    st.integers(0, 3 * MIB),
)
def test_files_with_mutated_headers_are_cut(valid, patches, cut):
    data = bytearray(valid[: len(valid) - cut] if cut % 2 else valid)
    for at, patch in patches:
        data[at : at + len(patch)] = patch
    check_cuts(bytes(data))


def overlapping(shift):
    """A header whose tensors lie over one another."""
    entry = {"dtype": "U8", "shape": [], "data_offsets": [0, MIB]}
    header = {str(n): entry | {"data_offsets": [n * shift, MIB + n * shift]} for n in range(20)}
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + noise("overlap", 22 * MIB)


@pytest.mark.parametrize("shift", [0, 1, 100 * KIB, MIB, MIB + 7])
def test_tensors_that_overlap_or_leave_gaps_are_cut(shift):
    check_cuts(overlapping(shift))


def test_100_gigabytes_are_cut_by_their_header(tmp_path):
    size = 100 << 30
    half = size // 2 + 5
    header = {
        "a": {"dtype": "U8", "shape": [half], "data_offsets": [0, half]},
        "b": {"dtype": "U8", "shape": [size - half], "data_offsets": [half, size]},
    }
    raw = json.dumps(header).encode()
    with (tmp_path / "big.safetensors").open("w+b") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + size)  # a hole; reading it would take half a minute
        ends = chunking.boundaries(
            lambda offset, length: os.pread(file.fileno(), length, offset), 8 + len(raw) + size
        )

    assert size // MAX_CHUNK < len(ends) < size // MAX_CHUNK + 10
    assert 8 + len(raw) + half in ends


def test_without_fastcdc_opaque_files_are_cut_at_fixed_places(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyfastcdc.cy", None)

    data = noise("plain", 9 * MIB + 1)
    assert boundaries(data) == [4 * MIB, 8 * MIB, 9 * MIB, 9 * MIB + 1]


# ---- golden cuts: a change here makes new versions share nothing with stored ones --------------

GOLDEN_WEIGHTS = {
    "a": noise("a", 100),
    "b": noise("b", 64 * KIB - 2),
    "c": noise("c", 64 * KIB),
    "d": noise("d", 11 * MIB + 768 * KIB + 6),
    "e": noise("e", 300),
    "f": noise("f", 60 * KIB),
}
GOLDEN_RUN = {f"t{n:03}": noise(f"t{n}", 40 * KIB) for n in range(20)}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (noise("small", 200 * KIB), [204800]),
        (noise("plain", 6 * MIB), [1517417, 3115347, 3411045, 3700193, 4914339, 6291456]),
        (bytes(9 * MIB), [4194304, 8388608, 9437184]),
        (
            as_safetensors(GOLDEN_WEIGHTS),
            [
                408,
                66042,
                131578,
                4325882,
                8520186,
                10617338,
                11665914,
                12190202,
                12452346,
                12452352,
                12514092,
            ],
        ),
        (
            as_safetensors(GOLDEN_RUN),
            [1400, 152330, 267404, 362462, 472488, 575778, 606090, 688735, 796097, 820600],
        ),
        (
            as_gguf(GOLDEN_WEIGHTS),
            [
                35168,
                100832,
                166368,
                4360672,
                8554976,
                10652128,
                11700704,
                12224992,
                12487136,
                12487142,
                12548928,
            ],
        ),
        (
            as_torch(GOLDEN_WEIGHTS),
            [
                66496,
                132032,
                132096,
                4326400,
                8520704,
                10617856,
                11666432,
                12190720,
                12452864,
                12452870,
                12515913,
            ],
        ),
    ],
    ids=["small", "plain", "zeros", "safetensors", "small tensors", "gguf", "torch"],
)
def test_cuts_are_what_they_were(data, expected):
    assert boundaries(data) == expected
