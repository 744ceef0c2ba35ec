"""Metadata of versions, artifacts and collections: what may be in it.

Decided here: the bounds, the one form in which metadata is stored (NaN is null, tuples are lists),
and which words are numbers. Not decided here: what it means.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from mregfs.errors import InvalidError

__all__ = [
    "MAX_DEPTH",
    "MAX_KEYS",
    "MAX_SIZE",
    "encode_metadata",
    "normalise",
    "parse_metadata",
    "parse_value",
    "parse_word",
]

MAX_KEYS = 100
"""Top-level keys, as W&B has it."""

MAX_DEPTH = 32
"""Objects and lists within each other."""

MAX_SIZE = 1 << 20
"""Bytes of the whole as JSON."""

_LEAST, _MOST = -(1 << 63), (1 << 64) - 1  # what MessagePack and JSON decoders both can hold
_LONGEST_NUMBER = 32
"""Characters: no number that JSON prints here has more than 25."""
_encode = msgspec.json.Encoder(order="deterministic").encode


def encode_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Return metadata as JSON, always the same bytes for the same metadata."""
    return _encode(metadata)


def normalise(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as it is stored.

    Raises:
        InvalidError: an empty key at the top, too many of them, too deep, too large, an infinity,
            or what JSON cannot say.
    """
    if len(values) > MAX_KEYS:
        raise InvalidError(
            f"the metadata has {len(values)} keys", f"use at most {MAX_KEYS} at the top level"
        )
    if "" in values:
        raise InvalidError("the metadata has an empty key", "give every value a name")
    metadata: dict[str, Any] = _plain(values, "metadata", 0)
    try:
        size = len(encode_metadata(metadata))
    except UnicodeEncodeError:
        raise InvalidError("the metadata holds what is no Unicode text", "write UTF-8") from None
    if size > MAX_SIZE:
        raise InvalidError(
            f"the metadata takes {size} bytes", f"use at most {MAX_SIZE}; put more into a file"
        )
    return metadata


def _plain(value: Any, path: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        if not _LEAST <= value <= _MOST:
            raise InvalidError(f"{path} is an integer of over 64 bits", "write it as a string")
        return int(value)
    if isinstance(value, float):
        if math.isinf(value):
            raise InvalidError(f"{path} is infinite", "write null, or a string")
        return None if math.isnan(value) else float(value)
    if depth == MAX_DEPTH:
        raise InvalidError(f"the metadata is nested deeper than {MAX_DEPTH}", "flatten it")
    if isinstance(value, Mapping):
        plain = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidError(f"{path} has the key {key!r}", "keys of metadata are strings")
            plain[str.__str__(key)] = _plain(item, f"{path}.{key}", depth + 1)
        return plain
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    raise InvalidError(
        f"{path} is {type(value).__name__!r}, which JSON cannot say",
        "use strings, numbers, booleans, None, lists and dicts",
    )


def parse_metadata(text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        InvalidError: it is not one, or not good as metadata.
    """
    values = parse_value(text)
    if not isinstance(values, dict):
        raise InvalidError(
            "the metadata is not a JSON object", """write it like '{"accuracy": 0.97}'"""
        )
    return normalise(values)


def parse_value(text: str) -> Any:
    """Parse any JSON value. Python's `NaN` is null; its infinities are refused.

    Raises:
        InvalidError: it is not JSON.
    """
    if len(text) > MAX_SIZE:
        raise InvalidError(
            f"the metadata takes {len(text)} characters",
            f"use at most {MAX_SIZE}; put more into a file",
        )
    try:
        return json.loads(text, parse_constant=_constant)
    except (ValueError, RecursionError) as exc:
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise InvalidError(
            f"{shown!r} is not JSON ({exc})",
            """write strings in double quotes, and quote the whole for the shell: '"text"'""",
        ) from None


def parse_word(text: str) -> int | float | str:
    """Return a number where it prints back to the same text; any other text as it is.

    So `831877e8`, `1.10`, `007` and `1_000` stay what was written: a commit, a version, a name.
    """
    if len(text) > _LONGEST_NUMBER:
        return text
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        is_stored = math.isfinite(number) and (kind is float or _LEAST <= number <= _MOST)
        if is_stored and _encode(number) == text.encode(errors="replace"):
            return number
    return text


def _constant(text: str) -> None:
    if text != "NaN":
        raise InvalidError(f"{text} is infinite", "write null, or a string")
