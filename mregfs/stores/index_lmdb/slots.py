"""The reader slots of an index, while LMDB itself cannot be asked for them.

Decided here: which slots nobody needs any more, and who holds the others. Not decided here: when to
look (`open_environment`, when there is no slot left).

Each read transaction has a slot in `lock.mdb` with the id of its process. LMDB takes the slots of
dead processes back when it is asked to, but to be asked it must be open, and to open it needs a
slot. So this does what `mdb_reader_check` does, under the mutex that it does it under.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import struct
import time

__all__ = ["free_slots", "holders"]

PATIENCE = 2.0
"""Seconds that a slot table is waited for. Who has it needs it for some microseconds."""

_MUTEX_SIZES = {"x86_64": 40, "aarch64": 48}

_HEAD = struct.Struct("=II")  # magic, format (lmdb mdb.c, struct MDB_txbody)
_MAGIC = 0xBEEFC0DE
_FORMAT = 0x10001
"""Version 1, and processes hold a lock on the byte of their number (MDB_PIDLOCK)."""

_MUTEX = _HEAD.size
_LINE = 64
"""The parts of the file begin at cache lines."""

_READER = struct.Struct("=QiI")  # transaction, process (struct MDB_rxbody)
_PROCESS = struct.Struct("=i")
_COUNT = struct.Struct("=I")
_FLOCK = struct.Struct("hhqqi4x")


class _Table:
    """Where the slots stand in a mapped lock file.

    Raises:
        ValueError: it is not as this module knows them.
    """

    def __init__(self, memory: mmap.mmap | bytes) -> None:
        mutex = _MUTEX_SIZES.get(platform.machine(), 0)
        if not mutex or _HEAD.unpack_from(memory) != (_MAGIC, _FORMAT):
            raise ValueError("an unknown form of lock file")
        transaction = _aligned(_MUTEX + mutex, 8)
        self._count = transaction + 8
        body = _aligned(self._count + _COUNT.size, _LINE)
        self._first = body + _aligned(mutex, _LINE)
        self._memory = memory

    def slots(self) -> list[tuple[int, int]]:
        """Return (where the process id of a slot stands, process id) of all that are taken."""
        room = (len(self._memory) - self._first) // _LINE
        (count,) = _COUNT.unpack_from(self._memory, self._count)
        found = []
        for number in range(min(count, room)):
            place = self._first + number * _LINE
            _, process, _ = _READER.unpack_from(self._memory, place)
            if process:
                found.append((place + 8, process))
        return found


def free_slots(descriptor: int) -> int:
    """Free the slots of processes that are dead, and return how many there were.

    Args:
        descriptor: of the lock file, open for reading and writing. The caller must not have the
            index open: closing the map here takes its locks away.
    """
    try:
        with mmap.mmap(descriptor, 0) as memory:
            table = _Table(memory)
            return _free(descriptor, memory, table)
    except (OSError, ValueError, struct.error):
        return 0


def holders(descriptor: int) -> list[int]:
    """Return the ids of the processes that have slots, who has most first; none if unknown.

    Args:
        descriptor: of the lock file.
    """
    try:
        # Not mapped: a map has a descriptor of its own, and closing that one would do it, too.
        memory = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        processes = [process for _, process in _Table(memory).slots()]
    except (OSError, ValueError, struct.error):
        return []
    return sorted(set(processes), key=processes.count, reverse=True)


def _free(descriptor: int, memory: mmap.mmap, table: _Table) -> int:
    mutex = (ctypes.c_char * 1).from_buffer(memory, _MUTEX)
    address = ctypes.byref(mutex)
    libc = ctypes.CDLL(None)
    until = struct.pack("qq", *divmod(time.time_ns() + int(PATIENCE * 1e9), 10**9))
    code = libc.pthread_mutex_timedlock(address, until)
    if code == errno.EOWNERDEAD:  # it died between two stores, of which either makes a valid table
        libc.pthread_mutex_consistent(address)
    elif code:
        del mutex, address
        return 0
    freed = 0
    alive: dict[int, bool] = {}
    try:
        for place, process in table.slots():
            if process not in alive:
                alive[process] = _has_it_open(descriptor, process)
            if not alive[process]:
                _PROCESS.pack_into(memory, place, 0)
                freed += 1
    finally:
        libc.pthread_mutex_unlock(address)
        del mutex, address  # or the memory could not be unmapped
    return freed


def _has_it_open(descriptor: int, process: int) -> bool:
    """Tell whether a process has the index open: it locks the byte of its own number."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, process, 1, 0)
    found = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def _aligned(size: int, grain: int) -> int:
    return -(-size // grain) * grain
