"""Where the tensors of a file are, read from its header alone.

Decided here: which container formats we know (safetensors, GGUF, zip: torch `.pt`, `.npz`,
`.keras`), what makes a header acceptable, and the limits on the work that a header may cause. Not
decided here: where a file is cut (`chunking`), nor where its bytes come from: `read(offset,
length)` is given.

Detection is by content alone. A header is untrusted: whatever is wrong with it, the answer is None
and nothing is raised; what `read` raises passes through. Tensor data is never read.

Sources: the safetensors format (huggingface/safetensors, README "Format"), the GGUF specification
(ggml-org/ggml, docs/gguf.md), PKWARE's APPNOTE.TXT 6.3 (§4.3 records, §4.5.3 Zip64), PyTorch's
`caffe2/serialize/inline_container.h` (the archive that `torch.save` writes), and NEP 1 (`.npy`).
"""

import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

__all__ = ["MAX_HEADER", "MAX_TENSORS", "Read", "Region", "Tensor", "TensorTable", "read_tensors"]

Read = Callable[[int, int], bytes]
"""`read(offset, length)` returns these bytes; fewer only where the file ends."""

MAX_HEADER = 100_000_000
"""Bytes of header; the limit that safetensors' own reader has. Larger ones are not looked at."""

MAX_TENSORS = 1 << 18
"""Tensors, or entries of an archive. The largest checkpoints have some 10^5 in all shards."""

_MAX_COMMAS = 1 << 22  # bounds what a JSON header can make us build; real ones have 8 a tensor
_MAX_STRINGS = 1 << 22  # in GGUF arrays: vocabulary and merges of the largest tokenizers, 5 times
_MAX_DIMENSIONS = 64  # numpy's and torch's own limit
_MAX_NPY_HEADER = 1 << 12  # plain arrays need 128 bytes
_WINDOW = 1 << 16  # bytes per read of a GGUF header


class Tensor(msgspec.Struct, frozen=True):
    """One tensor and the range of its bytes in the file."""

    name: str
    """As written in the file; in an archive the entry without the archive's root or `.npy`."""
    dtype: str
    """As the format spells it (`BF16`, `Q4_K`, `<f4`); empty where the header does not tell."""
    shape: tuple[int, ...]
    """Slowest dimension first; empty where the header does not tell (torch: it is in a pickle)."""
    start: int
    end: int


class Region(msgspec.Struct, frozen=True):
    """A run of bytes of one kind; what lies between regions is of no known kind."""

    start: int
    end: int
    kind: Literal["header", "tensor", "compressed", "opaque"]


class TensorTable(msgspec.Struct, frozen=True):
    """What the header of a file says."""

    format: Literal["safetensors", "gguf", "zip"]
    tensors: tuple[Tensor, ...]
    """In the order of their bytes; none in an archive without tensors."""
    regions: tuple[Region, ...]
    """Ascending, not empty, not overlapping: the tensors and whatever else has a place."""


def read_tensors(read: Read, size: int) -> TensorTable | None:
    """Return where the tensors of a file of `size` bytes are; None when it is no known container.

    Work is bounded by `MAX_HEADER` and `MAX_TENSORS`, whatever the file holds.
    """
    if size < 16:
        return None
    magic = read(0, 9)
    try:
        if magic.startswith(b"PK\x03\x04"):
            return _read_zip(read, size)
        if magic.startswith(b"GGUF"):
            return _read_gguf(read, size)
        if magic.endswith(b"{"):
            return _read_safetensors(read, size)
    except (ValueError, struct.error, msgspec.MsgspecError, RecursionError):
        return None
    return None


def _table(
    form: Literal["safetensors", "gguf", "zip"], tensors: Iterable[Tensor], others: Iterable[Region]
) -> TensorTable:
    """Order everything; of regions that overlap, the first one counts."""
    ordered = sorted(tensors, key=lambda tensor: (tensor.start, tensor.end, tensor.name))
    regions = [Region(tensor.start, tensor.end, "tensor") for tensor in ordered]
    regions += others
    regions.sort(key=lambda region: (region.start, region.end))
    kept = []
    end = 0
    for region in regions:
        if end <= region.start < region.end:
            kept.append(region)
            end = region.end
    return TensorTable(form, tuple(ordered), tuple(kept))


# ---- safetensors: u64 header size, JSON header, data ------------------------------------------


class _Entry(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _read_safetensors(read: Read, size: int) -> TensorTable:
    (length,) = struct.unpack("<Q", read(0, 8))
    data_start = 8 + length
    if length > MAX_HEADER or data_start > size:
        raise ValueError("header size")
    header = read(8, length)
    # Counted before decoding, so that a hostile header cannot make us build millions of objects.
    if header.count(b"{") > MAX_TENSORS or header.count(b",") > _MAX_COMMAS:
        raise ValueError("header too rich")
    raw_entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
    raw_entries.pop("__metadata__", None)
    decoder = msgspec.json.Decoder(_Entry)
    tensors = []
    for name, raw in raw_entries.items():
        entry = decoder.decode(raw)
        start, end = entry.data_offsets
        if not 0 <= start <= end <= size - data_start or len(entry.shape) > _MAX_DIMENSIONS:
            raise ValueError("tensor out of range")
        tensors.append(Tensor(name, entry.dtype, entry.shape, data_start + start, data_start + end))
    return _table("safetensors", tensors, [Region(0, data_start, "header")])


# ---- GGUF: counts, key-value pairs, tensor infos, padding, data -------------------------------

_GGUF_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_UINT32, _GGUF_STRING, _GGUF_ARRAY = 4, 8, 9

# From ggml.c (`type_traits`): the type's name, elements per block, bytes per block.
_GGML_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}


class _Cursor:
    """Reads a header from front to back, a window at a time, never past `limit`."""

    def __init__(self, read: Read, position: int, limit: int, order: str) -> None:
        self.position = position
        self._read = read
        self._limit = limit
        self._base = position
        self._window = b""
        self._u32 = struct.Struct(order + "I")
        self._u64 = struct.Struct(order + "Q")
        self._order = order

    def _at(self, length: int) -> int:
        """Have `length` bytes in the window; return where they begin there, and step over them."""
        offset = self.position - self._base
        if not 0 <= offset <= len(self._window) - length:
            if length > _WINDOW or self.position + length > self._limit:
                raise ValueError("header ends early")
            self._base = self.position
            self._window = self._read(self._base, min(_WINDOW, self._limit - self._base))
            offset = 0
        self.position += length
        return offset

    def u32(self) -> int:
        offset = self._at(4)
        return int(self._u32.unpack_from(self._window, offset)[0])

    def u64(self) -> int:
        offset = self._at(8)
        return int(self._u64.unpack_from(self._window, offset)[0])

    def u64s(self, count: int) -> tuple[int, ...]:
        offset = self._at(8 * count)
        return struct.unpack_from(f"{self._order}{count}Q", self._window, offset)

    def string(self) -> bytes:
        length = self.u64()
        offset = self._at(length)
        return self._window[offset : offset + length]

    def skip(self, length: int) -> None:
        self.position += length
        if self.position > self._limit:
            raise ValueError("header ends early")

    def skip_strings(self, count: int) -> None:
        """Step over strings; a tokenizer has 10^5, so this is `skip(u64())` without the calls."""
        unpack, end = self._u64.unpack_from, len(self._window) - 8
        while count:
            offset = self.position - self._base
            while count and 0 <= offset <= end:
                offset += 8 + unpack(self._window, offset)[0]
                count -= 1
            self.position = self._base
            self.skip(offset)
            if count:
                self.skip(self.u64())
                count -= 1
                end = len(self._window) - 8


def _read_gguf(read: Read, size: int) -> TensorTable:
    (version,) = struct.unpack("<I", read(4, 4))
    order = "<" if version & 0xFFFF else ">"  # a big-endian file's version has its low half empty
    cursor = _Cursor(read, 4, min(size, MAX_HEADER), order)
    if cursor.u32() not in (2, 3):  # version 1 had 32-bit counts and died within weeks
        raise ValueError("version")
    tensor_count, pair_count = cursor.u64(), cursor.u64()
    if tensor_count > MAX_TENSORS or pair_count > MAX_TENSORS:
        raise ValueError("counts")
    alignment = _skip_pairs(cursor, pair_count)
    infos = [_gguf_info(cursor) for _ in range(tensor_count)]
    data_start = -(-cursor.position // alignment) * alignment
    tensors = _gguf_tensors(infos, data_start, size)
    header = Region(0, min(data_start, size), "header")  # a vocabulary alone has no padding
    return _table("gguf", tensors, [header])


def _skip_pairs(cursor: _Cursor, count: int) -> int:
    """Step over the key-value pairs, and return the alignment of tensor data that they set."""
    alignment = 32
    strings = 0
    for _ in range(count):
        key = cursor.string()
        kind = cursor.u32()
        if key == b"general.alignment" and kind == _GGUF_UINT32:
            alignment = cursor.u32()
            if not 1 <= alignment <= 1 << 20:
                raise ValueError("alignment")
            continue
        length = 1
        if kind == _GGUF_ARRAY:
            kind, length = cursor.u32(), cursor.u64()
        if kind == _GGUF_STRING:
            strings += length
            if strings > _MAX_STRINGS:
                raise ValueError("too many strings")
            cursor.skip_strings(length)
        elif kind in _GGUF_SCALARS:
            cursor.skip(length * _GGUF_SCALARS[kind])
        else:  # an array of arrays, which ggml itself does not read either
            raise ValueError("value type")
    return alignment


_Info = tuple[int, str, tuple[int, ...], int]  # offset, name, shape, type


def _gguf_info(cursor: _Cursor) -> _Info:
    name = cursor.string().decode("utf-8", "replace")
    dimensions = cursor.u32()
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError("dimensions")
    shape = cursor.u64s(dimensions)[::-1]
    kind = cursor.u32()
    return cursor.u64(), name, shape, kind


def _gguf_tensors(infos: list[_Info], data_start: int, size: int) -> Iterator[Tensor]:
    infos.sort()
    following = [info[0] for info in infos[1:]] + [size - data_start]
    for (offset, name, shape, kind), next_offset in zip(infos, following, strict=False):
        dtype, length = f"type {kind}", next_offset - offset  # ggml grows types: a fair guess
        if kind in _GGML_TYPES:
            dtype, elements, width = _GGML_TYPES[kind]
            length = -(-math.prod(shape) // elements) * width
        start = data_start + offset
        if length < 0 or start + length > size:
            raise ValueError("tensor out of range")
        yield Tensor(name, dtype, shape, start, start + length)


# ---- zip: entries, central directory, end record ----------------------------------------------

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "see the Zip64 record"

_TORCH_ROOT = re.compile(r"(.+/)(?:data\.pkl|archive_format)")  # torch.save and jit; torch.export
_TORCH_STORAGE = re.compile(r"(?:data|constants)/\d+|data/weights/weight_\d+")
_NPY_HEADER = re.compile(
    rb"\{'descr': '([^']*)', 'fortran_order': (?:True|False), 'shape': \(([\d, ]*)\), \}\s*"
)


class _Member(msgspec.Struct):
    """An entry of the archive: its name, and where its data is."""

    name: str
    start: int
    end: int
    plain: bool
    """Neither compressed nor encrypted."""


def _read_zip(read: Read, size: int) -> TensorTable:
    directory, directory_start, count = _central_directory(read, size)
    members = list(_members(read, directory, directory_start, count))
    roots = [found[1] for member in members if (found := _TORCH_ROOT.fullmatch(member.name))]
    tensors = []
    others = []
    for member in members:
        tensor = None
        if member.plain and member.name.endswith(".npy"):
            tensor = _npy_tensor(read, member)
        elif member.plain and roots and member.name.startswith(roots[0]):
            storage = member.name.removeprefix(roots[0])
            if _TORCH_STORAGE.fullmatch(storage):
                tensor = Tensor(storage, "", (), member.start, member.end)
        if tensor is not None:
            tensors.append(tensor)
        else:
            kind: Literal["opaque", "compressed"] = "opaque" if member.plain else "compressed"
            others.append(Region(member.start, member.end, kind))
    return _table("zip", tensors, others)


def _central_directory(read: Read, size: int) -> tuple[bytes, int, int]:
    """Return the central directory, its offset, and its number of entries."""
    tail_start = max(0, size - _END.size - _FULL16)
    tail = read(tail_start, size - tail_start)
    at = tail.rfind(b"PK\x05\x06")
    _, disk, first_disk, _, count, length, start, comment = _END.unpack_from(tail, max(at, 0))
    if at < 0 or disk != first_disk or at + _END.size + comment != len(tail):
        raise ValueError("no end record")
    if count == _FULL16 or length == _FULL32 or start == _FULL32:
        locator_start = tail_start + at - _LOCATOR.size
        magic, _, end64_start, _ = _LOCATOR.unpack(read(max(locator_start, 0), _LOCATOR.size))
        if magic != b"PK\x06\x07" or end64_start > locator_start - _END64.size:
            raise ValueError("no Zip64 locator")
        record = _END64.unpack(read(end64_start, _END64.size))
        if record[0] != b"PK\x06\x06":
            raise ValueError("no Zip64 end record")
        count, length, start = record[7:]
    if count > MAX_TENSORS or length > MAX_HEADER or start + length > tail_start + at:
        raise ValueError("central directory out of range")
    return read(start, length), start, count


def _members(read: Read, directory: bytes, limit: int, count: int) -> Iterator[_Member]:
    """Yield the entries of the central directory; the data of each ends at or before `limit`."""
    at = 0
    for _ in range(count):
        fields = _CENTRAL.unpack_from(directory, at)
        magic, _, _, flags, method, _, _, _, length, full_length = fields[:10]
        name_length, extra_length, comment_length, _, _, _, local_start = fields[10:]
        extra_start = at + _CENTRAL.size + name_length
        name = directory[at + _CENTRAL.size : extra_start]
        at = extra_start + extra_length + comment_length
        if magic != b"PK\x01\x02" or at > len(directory):
            raise ValueError("central directory entry")
        extra = directory[extra_start : extra_start + extra_length]
        full_length, length, local_start = _widened(extra, full_length, length, local_start)
        if local_start > limit - _LOCAL.size:
            raise ValueError("local header out of range")
        local = _LOCAL.unpack(read(local_start, _LOCAL.size))
        start = local_start + _LOCAL.size + local[9] + local[10]
        if local[0] != b"PK\x03\x04" or start + length > limit:
            raise ValueError("entry out of range")
        encoding = "utf-8" if flags & 0x800 else "cp437"
        plain = method == 0 and not flags & 1 and length == full_length
        yield _Member(name.decode(encoding, "replace"), start, start + length, plain)


def _widened(extra: bytes, *values: int) -> list[int]:
    """Take the values that do not fit 32 bits from the Zip64 extra field (APPNOTE §4.5.3)."""
    if _FULL32 not in values:
        return list(values)
    at = 0
    while at + 4 <= len(extra):
        identifier, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if identifier == 1:
            wide = iter(struct.unpack_from(f"<{values.count(_FULL32)}Q", extra[: at + length], at))
            return [next(wide) if value == _FULL32 else value for value in values]
        at += length
    raise ValueError("no Zip64 field")


def _npy_tensor(read: Read, member: _Member) -> Tensor | None:
    """Return the array of a stored `.npy` entry; None when it is none, or holds pickles."""
    prefix = read(member.start, min(12, member.end - member.start))
    if len(prefix) < 12 or not prefix.startswith(b"\x93NUMPY"):
        return None
    wide = prefix[6] > 1
    (length,) = struct.unpack_from("<I" if wide else "<H", prefix, 8)
    start = member.start + (12 if wide else 10)
    if length > _MAX_NPY_HEADER or start + length > member.end:
        return None
    found = _NPY_HEADER.fullmatch(read(start, length))
    if found is None or b"O" in found[1]:
        return None
    shape = tuple(int(n) for n in found[2].split(b",") if n.strip())
    name = member.name.removesuffix(".npy")
    return Tensor(name, found[1].decode("latin-1"), shape, start + length, member.end)
