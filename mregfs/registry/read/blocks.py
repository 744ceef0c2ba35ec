"""The blocks of a file of a version: their digests, and which of them have been verified.

Decided here: that a block is verified once in a process, unless each read is to be. Not decided
here: what a digest is (`model.digest`), who reads the bytes (`open_content`, `verifier`).
"""

import logging

from mregfs.errors import CorruptError
from mregfs.model.digest import BLOCK, DIGEST_SIZE, block_digest

__all__ = ["Blocks"]

log = logging.getLogger(__name__)


class Blocks:
    """The digests of a file's blocks, and which of them this process has verified.

    Args:
        digests: joined.
        forget: True when a block is verified at each read.
        trust: True when none ever is; then this only remembers what was read.
    """

    __slots__ = ("_digests", "_forget", "_trust", "_verified", "complete", "name")

    def __init__(
        self, name: str, digests: bytes, *, forget: bool = False, trust: bool = False
    ) -> None:
        self.name = name
        self._digests = digests
        self._verified = bytearray(len(digests) // DIGEST_SIZE)
        self._forget = forget
        self._trust = trust
        self.complete = False

    def __len__(self) -> int:
        return len(self._verified)

    def digest(self, number: int) -> bytes:
        """Return the digest that a block was committed with."""
        return self._digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE]

    def verified(self, first: int, last: int) -> bool:
        """Tell whether all blocks from `first` to `last` have been verified."""
        return self.complete or 0 not in self._verified[first : last + 1]

    def verify(self, first: int, data: bytes) -> None:
        """Verify the blocks from `first` on whose bytes `data` is.

        Raises:
            CorruptError: a block has another digest than when it was committed.
        """
        with memoryview(data) as view:
            for start in range(0, max(len(data), 1), BLOCK):
                number = first + start // BLOCK
                if self._verified[number]:
                    continue
                if self._trust:
                    self._verified[number] = 1
                    continue
                expected = self.digest(number)
                found = block_digest(view[start : start + BLOCK])
                if found != expected:
                    log.error(
                        "%s is damaged: block %d has digest %s, not %s",
                        self.name,
                        number,
                        found.hex(),
                        expected.hex(),
                    )
                    raise CorruptError(
                        f"{self.name} is damaged at byte {number * BLOCK}",
                        "see what else is: mregfs fsck --data",
                    )
                if not self._forget:
                    self._verified[number] = 1
        self.complete = 0 not in self._verified
