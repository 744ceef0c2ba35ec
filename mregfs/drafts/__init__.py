"""The staging area on a directory of the host.

Decided here: what the rest of the program sees of this adapter: `DraftDirectory`. Not decided here:
anything else.
"""

from mregfs.drafts.directory import DraftDirectory

__all__ = ["DraftDirectory"]
