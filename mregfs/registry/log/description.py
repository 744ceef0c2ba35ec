"""What a store says about itself, in `store.json`: that it is one, its format and its id.

Decided here: which formats this program reads, and what is said of others (`format.md` §1). Not
decided here: where a store is.
"""

import msgspec

from mregfs.errors import ExistsError, InvalidError, NotFoundError, UnsupportedError
from mregfs.model.features import require
from mregfs.ports.objects import ObjectStore

__all__ = ["FORMAT", "KEY", "StoreDescription", "describe_new_store", "read_description"]

FORMAT = 1
KEY = "store.json"


class StoreDescription(msgspec.Struct, frozen=True):
    """The contents of `store.json`. Unknown fields are for newer programs of the same format."""

    format: int
    id: str
    """32 hexadecimal digits; what tells two stores apart wherever they are mounted."""
    created_at: str
    """RFC 3339; for people."""
    created_by: str = ""
    """The program and its version."""
    features: dict[str, tuple[str, ...]] = {}
    """What a program must know for what (`model.features`)."""


class _Format(msgspec.Struct):
    format: int
    features: dict[str, tuple[str, ...]] | None = None


def describe_new_store(objects: ObjectStore, description: StoreDescription, where: str) -> None:
    """Make the empty directory or prefix `where` a store.

    Raises:
        ExistsError: it is one already.
    """
    try:
        objects.create(KEY, msgspec.json.encode(description) + b"\n")
    except ExistsError:
        raise ExistsError(f"{where} is a store already", "open it as it is") from None


def read_description(objects: ObjectStore, where: str) -> StoreDescription:
    """Return what the store at `where` says about itself.

    Raises:
        InvalidError: it is no store, or `store.json` is damaged.
        UnsupportedError: a newer program made it, or one from before the format was settled.
    """
    try:
        data = objects.get(KEY)
    except NotFoundError:
        raise InvalidError(
            f"{where} is not a store", f"make one with: mregfs init {where}"
        ) from None
    try:
        found = msgspec.json.decode(data, type=_Format)
        if found.format > FORMAT:
            raise UnsupportedError(
                f"the store {where} was made by a newer mregfs (format {found.format})",
                f"upgrade: this program reads format {FORMAT}",
            )
        require(found.features or {}, "read", f"the store {where}")
        description = msgspec.json.decode(data, type=StoreDescription)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidError(
            f"{where} is not a store: {KEY} is damaged ({exc})",
            "restore that file from a backup; the log itself does not depend on it",
        ) from exc
    if description.format < 1 or len(description.id) != 32 or not description.id.isalnum():
        raise InvalidError(
            f"{where} is not a store: {KEY} is damaged", "restore that file from a backup"
        )
    if found.features is None:
        raise UnsupportedError(
            f"the store {where} was made by an mregfs from before its format was settled",
            "export what you need with that program, and commit it to a store of this one",
        )
    return description
