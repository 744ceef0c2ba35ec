"""Headers made to cost as much as they can: seconds of one core, some hundred MB, then an answer.

Decided here: the worst that is known, by file format. Each runs in a process of its own whose
processor time and memory the kernel limits.
"""

import multiprocessing
import resource
import struct
from collections.abc import Callable

import pytest

from mregfs.model.tensors import MAX_HEADER, MAX_TENSORS
from tests.fuzz.targets import check_tensors

SECONDS = 20
"""Of processor time. The slowest takes 5, for three answers."""

MEMORY = 1 << 30
"""Bytes beyond what the process has at its start."""


def safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def most_tensors() -> bytes:
    """As many tensors as are looked at, all at one place."""
    one = b'"%07d":{"dtype":"F32","shape":[1,1,1,1],"data_offsets":[0,4]}'
    number = MAX_TENSORS - 2
    return safetensors(b"{" + b",".join(one % n for n in range(number)) + b"}") + bytes(4)


def deep() -> bytes:
    """Lists in lists, as deep as a header is long."""
    return safetensors(b'{"a":' + b"[" * (MAX_HEADER - 10))


def wide() -> bytes:
    """One tensor with as many dimensions as there is room for."""
    number = 4_000_000
    return safetensors(
        b'{"a":{"dtype":"","shape":[' + b"1," * number + b'1],"data_offsets":[0,0]}}'
    )


def escapes() -> bytes:
    """A name of nothing but escapes."""
    return safetensors(b'{"' + b"\\u20ac" * ((MAX_HEADER - 100) // 6) + b'":1}')


def gguf(tensors: int, pairs: int, body: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + body


def empty_strings() -> bytes:
    """A vocabulary of empty words."""
    number = 1 << 22
    return gguf(0, 1, struct.pack("<QIIQ", 0, 9, 8, number) + bytes(8 * number))


def many_dimensions() -> bytes:
    """Tensors of 64 dimensions, each of 2^64 - 1."""
    number = 150_000
    one = struct.pack("<QI", 0, 64) + b"\xff" * 512 + struct.pack("<IQ", 0, 0)
    return gguf(number, 0, one * number)


def long_array() -> bytes:
    """An array that is longer than anything."""
    return gguf(0, 1, struct.pack("<QIIQ", 0, 9, 12, 2**64 - 1) + bytes(64))


def archive(entries: int, promised: int, name: bytes = b"m/data/0") -> bytes:
    """Entries that are all at one place."""
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    fields = (b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0)
    directory = (struct.pack("<4s6H3I5H2I", *fields) + name) * entries
    at = len(local) + len(directory)
    record = (b"PK\6\6", 44, 45, 45, 0, 0, promised, promised, len(directory), len(local))
    return b"".join(
        [
            local,
            directory,
            struct.pack("<4sQ2H2I4Q", *record),
            struct.pack("<4sIQI", b"PK\6\7", 0, at, 1),
            struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0),
        ]
    )


WORST: dict[str, Callable[[], bytes]] = {
    "safetensors, most tensors": most_tensors,
    "safetensors, deep": deep,
    "safetensors, wide": wide,
    "safetensors, escapes": escapes,
    "gguf, empty strings": empty_strings,
    "gguf, many dimensions": many_dimensions,
    "gguf, long array": long_array,
    "zip, most entries": lambda: archive(MAX_TENSORS, MAX_TENSORS),
    "zip, a million entries": lambda: archive(1 << 20, 1 << 20),
    "zip, long names": lambda: archive(1500, 1500, b"m/" + b"x/" * 32_000),
    "zip, more promised": lambda: archive(10, 2**64 - 1),
}


def look(make: Callable[[], bytes]) -> None:
    data = make()
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + SECONDS,) * 2)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[5])  # data and stack
    resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + MEMORY,) * 2)
    check_tensors(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORST)
def test_the_worst_header_costs_seconds_and_no_more_memory_than_there_is(name: str) -> None:
    """Nothing is raised, whatever the answer is."""
    process = multiprocessing.get_context("fork").Process(target=look, args=(WORST[name],))
    process.start()
    process.join(250)

    assert 0 == process.exitcode
