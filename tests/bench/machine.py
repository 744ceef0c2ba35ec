"""What the run ran on: without it the figures say little."""

import os
import platform
import subprocess
from pathlib import Path

__all__ = ["describe_machine"]


def describe_machine(directory: Path) -> dict[str, str]:
    """Return what a reader wants to know of this machine, in words."""
    return {
        "kernel": f"Linux {platform.release()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{_memory() / 2**30:.0f} GiB",
        "disk": _disk(directory),
        "python": platform.python_version(),
        "revision": _revision(),
        "load": f"{os.getloadavg()[0]:.1f} in the minute before the run",
    }


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
