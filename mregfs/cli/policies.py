"""The policies of a mount: how reads are verified, which files get a whole-file copy.

Decided here: the values that `-o` and the environment may give them. Not decided here: what they do
(`registry/read/content.md`, `registry/keep/coalesce.md`).
"""

import re
from typing import Literal, get_args

import msgspec

from mregfs.config import mount_policies
from mregfs.errors import InvalidError

__all__ = ["NAMES", "Policies"]

Verify = Literal["first-read", "commit", "always"]
Coalesce = Literal["off", "aliased", "pinned"]

NAMES = ("verify", "coalesce", "cache_size")

_SIZE = re.compile(r"([0-9]{1,15})(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


class Policies(msgspec.Struct):
    """What a mount was asked for; what was not said is as the environment says."""

    verify: Verify = "first-read"
    coalesce: Coalesce = "pinned"
    cache_size: int | None = None
    """Bytes; None: what this store was last mounted with, else a tenth of the file system."""

    @classmethod
    def of_environment(cls) -> "Policies":
        """Return what `MREGFS_VERIFY`, `MREGFS_COALESCE` and `MREGFS_CACHE_SIZE` say.

        Raises:
            InvalidError: a value that nobody knows.
        """
        policies = cls()
        for name, value in mount_policies().items():
            policies.set(name, value)
        return policies

    def set(self, name: str, value: str) -> None:
        """Set one of `NAMES`.

        Raises:
            InvalidError: a value that nobody knows.
        """
        if name == "cache_size":
            self.cache_size = _parse_size(value)
            return
        known = get_args(Verify if name == "verify" else Coalesce)
        if value not in known:
            raise InvalidError(
                f"{name}={value!r} is not a known value", f"write one of {', '.join(known)}"
            )
        setattr(self, name, value)

    def options(self) -> str:
        """Return them as a value of `-o`."""
        options = f"verify={self.verify},coalesce={self.coalesce}"
        return options if self.cache_size is None else f"{options},cache_size={self.cache_size}"


def _parse_size(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidError(f"{text!r} is not a size", "write bytes, or as in 500M, 32GiB")
    return int(found[1]) << _UNITS[(found[2] or "").lower()]
