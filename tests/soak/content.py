"""The files of a version, by its token alone: who finds a version knows what must be in it.

Decided here: which shapes there are: tiny files, one that becomes a pack of its own (200 KB or some
MB), one that shares half of its bytes with its client's other ones, many small ones.
Clients call this, and the check at the end.
"""

from functools import lru_cache
from random import Random

__all__ = ["KINDS", "TOKEN", "files_of", "new_token"]

TOKEN = "token"
"""The name of the file that holds the token."""

KINDS = {"tiny": 12, "whole": 4, "shared": 3, "many": 1, "large": 1}
"""Kinds of versions, and how often each is made."""

_COMMON_SIZE = 600_000
_OWN_SIZES = (200_000, 500_000)
_LARGE_SIZES = (3_000_000, 9_000_000)
_MANY = 60
_MOST_SMALL = 3000


def new_token(client: str, number: int, random: Random) -> str:
    """Return the token of a client's next version."""
    (kind,) = random.choices(list(KINDS), weights=list(KINDS.values()))
    return f"{client}-{number}-{kind}"


def files_of(token: str) -> dict[str, bytes]:
    """Return the files of the version with this token, by path."""
    client, _, kind = token.split("-")
    random = Random(token)
    files = {
        TOKEN: token.encode(),
        "config.json": b'{"token": "%s"}' % token.encode(),
        "notes/history.txt": random.randbytes(random.randrange(_MOST_SMALL)),
    }
    if kind == "many":
        files |= {f"parts/{number}.bin": random.randbytes(number * 40) for number in range(_MANY)}
    elif kind != "tiny":
        sizes = _LARGE_SIZES if kind == "large" else _OWN_SIZES
        files["model.bin"] = random.randbytes(random.randrange(*sizes))
    if kind == "shared":
        files["model.bin"] = _common(client) + files["model.bin"]
    return files


@lru_cache(16)
def _common(client: str) -> bytes:
    return Random(client).randbytes(_COMMON_SIZE)
