"""The daemon of one mount.

options.py     what `mregfs mount` was asked for
lifecycle.py   start, readiness, signals, the order of the end
mounted.py     the parts of the file system, put together over an open store
status.py      what `.mregfs/status` says
callers.py     the processes that ask for something
process.py     the log, the limit of descriptors, systemd
waiter.py      the process that waits until the mount is ready
"""

from mregfs.daemon.lifecycle import run_mount
from mregfs.daemon.mounted import Mounted
from mregfs.daemon.options import MountOptions

__all__ = ["MountOptions", "Mounted", "run_mount"]
