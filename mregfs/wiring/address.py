"""Where a store is: a directory of this host, or a prefix in a bucket.

Decided here: how an address is written, which spelling of it counts, and that this version opens
directories alone. Not decided here: where a host keeps its own things (`host_directories`), which
store a command line means (`cli.sources`).
"""

import os
import re
from typing import Self

import msgspec

from mregfs.errors import InvalidError, UnsupportedError

__all__ = ["StoreAddress"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PREFIX = re.compile(r"[A-Za-z0-9_.=+-]+")
_BUCKETS = ("s3", "gs", "az")
"""Amazon's protocol, Google's, Azure's."""

_DIGEST_SIZE = 8


class StoreAddress(msgspec.Struct, frozen=True):
    """Where one store is. Two spellings of one place are equal."""

    text: str
    """For people and tables of mounts: an absolute path, or SCHEME://BUCKET/PREFIX."""
    scheme: str = ""
    """Empty: a directory."""

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> Self:
        """Return the address that a person wrote.

        Raises:
            InvalidError: it is a URL that names no place.
            UnsupportedError: no store can be at a URL of that kind.
        """
        url = _URL.fullmatch(text) if isinstance(text, str) else None
        if url is None:
            return cls(os.path.abspath(text))
        scheme, (bucket, _, prefix) = url[1].lower(), url[2].partition("/")
        if scheme not in _BUCKETS:
            raise UnsupportedError(f"no store can be at {text!r}", "name a directory")
        parts = [part for part in prefix.split("/") if part]
        strange = [part for part in parts if not _PREFIX.fullmatch(part) or part in (".", "..")]
        if not _BUCKET.fullmatch(bucket) or strange:
            raise InvalidError(
                f"{text!r} is not the address of a bucket", f"write {scheme}://BUCKET/PREFIX"
            )
        return cls(f"{scheme}://{'/'.join([bucket, *parts])}", scheme)

    def __str__(self) -> str:
        return self.text

    @property
    def directory(self) -> str:
        """The absolute path of the store.

        Raises:
            UnsupportedError: it is in a bucket.
        """
        if not self.is_directory:
            raise UnsupportedError(
                f"{self.text!r} is an address of object storage, and stores on object storage are "
                "not supported by this version",
                "name a directory",
            )
        return self.text

    @property
    def is_directory(self) -> bool:
        """Whether the store is a directory of this host."""
        return not self.scheme

    def resolved(self) -> Self:
        """Return the same place without symlinks on the way."""
        return type(self)(os.path.realpath(self.text)) if self.is_directory else self

    @property
    def digest(self) -> str:
        """What tells this place from all others in a file name: 16 hexadecimal digits.

        Of a directory the real path counts, so that it is the same by way of a symlink.
        """
        from hashlib import blake2b

        return blake2b(os.fsencode(self.resolved().text), digest_size=_DIGEST_SIZE).hexdigest()
