"""What `.mregfs/status` of a mount says.

Decided here: the facts, their names and their order. Not decided here: which of them a person is
shown (`cli.store`).
"""

import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata

import msgspec

import mregfs
from mregfs.daemon.options import MountOptions
from mregfs.fuse.passthrough import passthrough_state
from mregfs.model.names import ProjectName
from mregfs.registry.log.tail import LogTail
from mregfs.registry.read.verifier import Verifier
from mregfs.vfs.interface import DraftTree
from mregfs.vfs.modes import Modes
from mregfs.wiring.store import Store

__all__ = ["Status"]


class Status:
    """What there is to tell of one mount.

    Args:
        store: the one that is mounted.
        project: the one whose artifacts and collections are at the top.
        options: of the mount.
        modes: who may read and write.
        tail: how far the log has been followed.
        drafts: the staging area.
        verifier: what checks files that the kernel reads by itself; None: nothing does.
        refused: why passthrough was refused for files, and how often.
    """

    def __init__(
        self,
        store: Store,
        project: ProjectName,
        options: MountOptions,
        *,
        modes: Modes,
        tail: LogTail,
        drafts: DraftTree,
        verifier: Verifier | None,
        refused: Mapping[str, int],
    ) -> None:
        self._store = store
        self._project = project
        self._options = options
        self._modes = modes
        self._tail = tail
        self._drafts = drafts
        self._verifier = verifier
        self._refused = refused

    def report(self) -> bytes:
        """Return the JSON of `.mregfs/status`."""
        store = self._store
        head = store.index.applied()
        passthrough = passthrough_state()
        access = self._modes.access(str(self._project))
        status = {
            "store": str(store.address),
            "store_id": store.id,
            "project": str(self._project),
            "mountpoint": self._options.mountpoint,
            "read_only": self._options.read_only,
            "readers": access.readers,
            "writers": access.writers,
            "trouble": store.log.trouble and str(store.log.trouble),
            "sequence": head,
            "lag": max(0, head - self._tail.taken),
            "checked_seconds_ago": round(self._tail.checked_ago(), 3),
            "pid": os.getpid(),
            "passthrough": {
                "available": passthrough.available,
                "reason": passthrough.reason,
                "handles": passthrough.handles,
                "refused": {**self._refused, **passthrough.refused},
            },
            "requests": {
                "on_fast_path": passthrough.on_fast_path,
                "by_opcode": passthrough.requests,
            },
            "verify": self._options.verify,
            "verified": self._verifier and self._verifier.figures(),
            "fs_verity": store.verity.why_not or "on",
            "coalesce": self._options.coalesce,
            "cache": store.whole_files.figures(),
            "drafts": dict(self._drafts.drafts(str(self._project))),
            "versions": _versions(),
        }
        return msgspec.json.format(msgspec.json.encode(status), indent=2) + b"\n"


@cache
def _versions() -> dict[str, str]:
    """Return the versions of everything that a bug report needs; looking them up takes 4 ms."""
    kernel = os.uname()
    found = {
        "mregfs": mregfs.__version__,
        "python": sys.version.split()[0],
        "kernel": f"{kernel.sysname} {kernel.release}",
        "store_format": "1",
    }
    for name in ("pyfuse3", "trio", "lmdb", "blake3", "msgspec"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
