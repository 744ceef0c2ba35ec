"""What the run ran on: without it the figures say little."""

import os
import platform
import subprocess
from pathlib import Path

__all__ = ["Load", "describe_machine"]


def describe_machine(directory: Path) -> dict[str, str]:
    """Return what a reader wants to know of this machine, in words."""
    return {
        "kernel": f"Linux {platform.release()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{_memory() / 2**30:.0f} GiB",
        "disk": _disk(directory),
        "python": platform.python_version(),
        "revision": _revision(),
    }


class Load:
    """What else the machine did while the run went on: much of it makes the figures doubtful."""

    def __init__(self) -> None:
        self._before = os.getloadavg()[0]
        self._busy, self._idle, self._stolen = _jiffies()
        self._own = _own_seconds()

    def describe(self) -> str:
        """Say how busy the processors were with other things than this run."""
        busy, idle, stolen = _jiffies()
        total = busy - self._busy + idle - self._idle + stolen - self._stolen or 1
        own = (_own_seconds() - self._own) * os.sysconf("SC_CLK_TCK")
        others = max(0.0, busy - self._busy - own) / total
        return (
            f"{self._before:.1f} in the minute before; during the run other processes and the "
            f"kernel's own threads took {others:.0%} of the processors, other machines on the same "
            f"host {(stolen - self._stolen) / total:.0%}"
        )


def _jiffies() -> tuple[int, int, int]:
    """Return the ticks so far: busy, idle, stolen by the host."""
    with open("/proc/stat") as file:
        user, nice, system, idle, waiting, irq, softirq, stolen = map(
            int, file.readline().split()[1:9]
        )
    return user + nice + system + irq + softirq, idle + waiting, stolen


def _own_seconds() -> float:
    """Return the processor seconds of this process and of all its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _disk(directory: Path) -> str:
    command: list[str | Path] = ["findmnt", "--noheadings", "--output", "SOURCE,FSTYPE"]
    command += ["--target", directory]
    return " ".join(_said(command).split())


def _revision() -> str:
    here = Path(__file__).parent
    return _said(["git", "-C", here, "log", "-1", "--format=%h %cs"]).strip()


def _said(command: list[str | Path]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
