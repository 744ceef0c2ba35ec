"""A file of a version as what Python reads files by.

Decided here: how `read` and `seek` become reads at an offset. Not decided here: where bytes come
from.
"""

import io
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Opened", "Stream"]


class Opened(Protocol):
    """An open file of a version."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes at `offset`."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Stream(io.RawIOBase):
    """A file of a version as a raw, seekable stream."""

    def __init__(self, opened: Opened, name: str) -> None:
        self._opened = opened
        self._position = 0
        self.name = name

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._opened.size}
        if base[whence] + offset < 0:
            raise ValueError(f"position {base[whence] + offset} is before the start")
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill a buffer as far as there are bytes; return how many."""
        view = memoryview(buffer).cast("B")
        data = self._opened.read(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file, once."""
        if not self.closed:
            self._opened.close()
        super().close()
