"""Numbers on the command line: how many, how long, how fast.

Decided here: which numbers are taken. Not decided here: what they are for. Verbs use these as types
of their options; what is not taken is a wrong command line, before anything is begun.
"""

import math
import sys
from typing import Any

import click

__all__ = ["LIMIT", "MEGABYTES_A_SECOND", "SECONDS"]


class _Finite(click.FloatRange):
    """A range that holds no NaN, which is neither below nor above anything, and no infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse a number.

        Raises:
            BadParameter: it is none, or not in the range.
        """
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


LIMIT = click.IntRange(min=1, max=sys.maxsize)
"""How many of something; `itertools.islice` takes no more."""

SECONDS = _Finite(min=0)

MEGABYTES_A_SECOND = _Finite(min=0.001, max=1e6)
"""No disk reads a terabyte a second."""
