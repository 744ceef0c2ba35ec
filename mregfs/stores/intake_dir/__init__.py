"""A directory of the host on its way to become a version: `IntakeDirectory`.

    intake.py    the port: scan, seal, adopt, release or restore
    tree.py      looking at the directory without following a symlink out of it
    lease.py     who may write a file, asked of the kernel
    copying.py   reflinks, else copies
    work.py      what a crashed commit leaves to be undone

`../../registry/commit.md` says how these serve a commit.
"""

from mregfs.stores.intake_dir.intake import IntakeDirectory

__all__ = ["IntakeDirectory"]
