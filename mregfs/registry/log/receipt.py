"""What whoever asked for a transaction is told. `append` makes these; whoever submits gets them."""

from typing import Any

import msgspec

from mregfs.model.changes import Entry

__all__ = ["Receipt"]


class Receipt(msgspec.Struct, frozen=True):
    """What became of a transaction."""

    sequence: int
    """The log entry that holds it; the head of the log when nothing had to change."""
    results: tuple[dict[str, Any], ...]
    """One for each command."""
    entry: Entry | None
    """None when nothing had to change."""
    size: int = 0
    """Bytes of the entry."""
