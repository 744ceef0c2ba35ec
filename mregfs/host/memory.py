"""How much memory there is for what is read as a whole.

Decided here: what bounds this process: the host, its control group, its own limits. Not decided
here: what is read.
"""

import contextlib
import resource

__all__ = ["memory_for_checkpoint"]


def memory_for_checkpoint() -> int:
    """Return how many bytes a checkpoint may unpack to: an eighth of the memory that there is.

    Its rows are held several times while an index is filled from them.
    """
    bounds = [1 << 40]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        bounds.append(limit)
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max") as file:
        bounds.append(int(file.read()))  # `max` is no number
    with contextlib.suppress(OSError, ValueError), open("/proc/meminfo") as file:
        bounds += [int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:")]
    return min(bounds) // 8
