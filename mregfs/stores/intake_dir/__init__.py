"""A directory of the host on its way to become a version: `IntakeDirectory`.

    intake.py    the port: take, scan, seal, adopt, release or restore
    taking.py    a draft out of the staging area, and back
    rights.py    what whoever asks for a commit may do himself, asked of the kernel
    tree.py      looking at the directory without following a symlink out of it
    lease.py     who may write a file, asked of the kernel
    work.py      what is written down before anything is changed
    recovery.py  what a crashed commit leaves to be undone

`../../registry/write/commit.md` says how these serve a commit.
"""

from mregfs.stores.intake_dir.intake import IntakeDirectory
from mregfs.stores.intake_dir.taking import DraftPlace

__all__ = ["DraftPlace", "IntakeDirectory"]
