"""How much of the host a thread takes: what nobody waits for keeps out of everybody's way.

Decided here: how Linux is asked. Not decided here: which threads are in no hurry.
"""

import contextlib
import ctypes
import os
import platform
import threading

__all__ = ["let_others_go_first", "read_when_idle"]

_NICE = 5
"""With 5 a busy thread of the daemon gets three times as much of a processor (nice(2))."""

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}
_WHO_PROCESS = 1
_CLASS_IDLE = 3 << 13


def let_others_go_first() -> None:
    """Lower the priority of this thread, not of its process, for processors.

    Who looks a name up meanwhile is then answered in half the time; an idle host works as fast.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def read_when_idle() -> None:
    """Have this thread wait for the disk until nobody else does (ioprio_set(2)), and go second.

    Which only I/O schedulers that know priorities do (bfq, mq-deadline).
    """
    let_others_go_first()
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _WHO_PROCESS, 0, _CLASS_IDLE)
