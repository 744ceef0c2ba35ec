"""Good bytes are taken, changed ones are refused in words, none of them costs much.

Fewer bytes than `make fuzz` gives, always the same. What was found once is given again.
"""

import random
import time
from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import PLANTED, TARGETS, Target

FOUND = Path(__file__).with_name("found")

CHANGES = 600
"""Of each target."""

LIMIT = 5.0
"""Seconds for one answer. Most take less than a millisecond; the machine may be busy."""

_ODD = [b"\0", b"\xff" * 8, b"-1", b"1180591620717411303424", b"[" * 60, b"..", b"/", b"\n", b"%"]


def changed(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return these bytes with a few changes, of the kinds that decoders stumble over."""
    found = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(found) + 1)
        kind = chance.randrange(5)
        if kind == 0 and found:
            found[at % len(found)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            odd = chance.choice(_ODD)
            found[at : at + len(odd)] = odd
        elif kind == 2:
            found[at:at] = chance.choice(_ODD)
        elif kind == 3:
            del found[at : at + chance.randrange(1, 20)]
        else:
            begin = chance.randrange(len(other) + 1)
            found[at:at] = other[begin : begin + chance.randrange(40)]
    return bytes(found)


def run(target: Target, data: bytes) -> bool:
    begun = time.monotonic()
    taken = target.run(data)
    assert time.monotonic() - begun < LIMIT
    return taken


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_changed_bytes_are_refused_in_words_or_taken(target: Target) -> None:
    """Nothing but the errors that a person can act on."""
    chance = random.Random(target.name)
    seeds = target.seeds()
    taken = [run(target, seed) for seed in seeds]
    assert any(taken)
    for _ in range(CHANGES):
        run(target, changed(chance.choice(seeds), chance.choice(seeds), chance))


@pytest.mark.parametrize(
    "path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_what_was_found_once_is_answered_rightly(path: Path) -> None:
    run(TARGETS[path.parent.name], path.read_bytes())


@pytest.mark.slow
def test_a_fault_is_found(tmp_path: Path) -> None:
    """A decoder that stumbles over a few values of a few bytes does not get past the fuzzer."""
    pytest.importorskip("atheris")

    good, line = fuzz(PLANTED, 60, tmp_path)

    assert not good, line
    assert "IndexError" in line
    assert any((tmp_path / "found/planted").iterdir())
