"""What `mregfs mount` was asked for, as the daemon takes it.

Decided here: which options a mount has, and what holds where one is not given. Not decided here:
how they are written on a command line (`cli.mounting`).
"""

import msgspec

from mregfs.registry.read.content import Verification

__all__ = ["MountOptions"]


class MountOptions(msgspec.Struct, frozen=True):
    """What `mregfs mount` was asked for."""

    store: str
    mountpoint: str
    project: str
    allow_other: bool = False
    read_only: bool = False
    private_drafts: bool | None = None
    """Whether a draft can be read by its user alone; None: as the store says (`mregfs access`)."""
    passthrough: bool = True
    fast_path: bool = True
    """Whether requests may be answered before pyfuse3 sees them (`fuse/protocol.md`)."""
    verify: Verification = "first-read"
    coalesce: str = "pinned"
    """`off`, `pinned` or `aliased`: which files are read from a whole-file copy."""
    cache_size: int | None = None
    """Bytes of all such copies; None: as at the last mount, or the default."""
    host_directory: str | None = None
    """Where the index is kept, if not where `MREGFS_HOST_DIRECTORY` says, or in the store."""
    ready_fd: int | None = None
    """Descriptor that gets `ready` and a newline once the mount answers, and is closed then."""
    log_level: str = "INFO"
    """As `logging` names them."""
