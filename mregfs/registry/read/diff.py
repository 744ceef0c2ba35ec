"""What differs between two versions: files, and the tensors in them.

Decided here: what counts as changed, how much is read to find out. Not decided here: where tensors
are (`model.tensors`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from mregfs.model.records import VersionRecord
from mregfs.model.tensors import Tensor, read_tensors
from mregfs.registry.read.results import ChangedFile, Diff, DiffFile

if TYPE_CHECKING:
    from mregfs.registry.read.content import Content, FileEntry

__all__ = ["Bytes", "ChangedFile", "Diff", "DiffFile", "changed_tensors", "compare", "diff"]

_PIECE = 4 << 20


class _Entry(Protocol):
    """What is compared of a file, directory or symlink."""

    @property
    def kind(self) -> str: ...
    @property
    def executable(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def target(self) -> str: ...
    @property
    def digest(self) -> object: ...


_E = TypeVar("_E", bound=_Entry)


class Bytes(Protocol):
    """What is read of an open file."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes at `offset`."""
        ...


def diff(content: "Content", a: VersionRecord, b: VersionRecord) -> Diff:
    """Compare two versions, whose content must be loaded.

    Reads tensors of changed files, up to the first byte that differs.
    """

    def tensors(path: str, was: "FileEntry", entry: "FileEntry") -> tuple[str, ...]:
        with content.open(a, was.position) as old, content.open(b, entry.position) as new:
            return changed_tensors(old, new)

    return compare(content.walk(a), content.walk(b), tensors)


def compare(
    a: Iterable[tuple[str, _E]],
    b: Iterable[tuple[str, _E]],
    tensors: Callable[[str, _E, _E], tuple[str, ...]] = lambda path, was, entry: (),
) -> Diff:
    """Compare two versions by what is at each path of them.

    `tensors` tells of a path at which the bytes of a file differ which of its tensors do.
    """
    before, after = dict(a), dict(b)
    changed = []
    for path, entry in after.items():
        was = before.get(path)
        if was is not None and was.kind == entry.kind == "directory":
            continue
        what = _what_changed(was, entry) if was is not None else ""
        if was is not None and what:
            found = tensors(path, was, entry) if what == "content" else ()
            changed.append(ChangedFile(path, entry.size, was.size, what, found))
    return Diff(
        added=tuple(_only(after, before)),
        removed=tuple(_only(before, after)),
        changed=tuple(changed),
    )


def _only(these: Mapping[str, _Entry], others: Mapping[str, _Entry]) -> Iterator[DiffFile]:
    for path, entry in these.items():
        if path not in others:
            yield DiffFile(path, entry.kind, entry.size)


def _what_changed(was: _Entry, entry: _Entry) -> str:
    if was.kind != entry.kind:
        return "kind"
    if was.digest != entry.digest:
        return "content"
    if was.target != entry.target:
        return "target"
    return "executable" if was.executable != entry.executable else ""


def changed_tensors(old: Bytes, new: Bytes) -> tuple[str, ...]:
    """Return which tensors of two files differ, and how; for people."""
    return tuple(_tensors(old, new))


def _tensors(old: Bytes, new: Bytes) -> Iterator[str]:
    """Yield what differs between the tensors of two files, in the order of their names."""
    before, after = read_tensors(old.read, old.size), read_tensors(new.read, new.size)
    if before is None or after is None:
        return
    olds = {tensor.name: tensor for tensor in before.tensors}
    news = {tensor.name: tensor for tensor in after.tensors}
    for name in sorted(olds.keys() | news.keys()):
        was, tensor = olds.get(name), news.get(name)
        if was is None and tensor is not None:
            yield f"{name}: added, {_form(tensor)}"
        elif tensor is None and was is not None:
            yield f"{name}: removed, {_form(was)}"
        elif was is not None and tensor is not None:
            if _form(was) != _form(tensor):
                yield f"{name}: {_form(was)} -> {_form(tensor)}"
            elif not _same_bytes(old, was, new, tensor):
                yield f"{name}: values changed"


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}" if tensor.dtype else f"{_size(tensor)} bytes"


def _size(tensor: Tensor) -> int:
    return tensor.end - tensor.start


def _same_bytes(old: Bytes, was: Tensor, new: Bytes, tensor: Tensor) -> bool:
    size = _size(tensor)
    if _size(was) != size:
        return False
    for offset in range(0, size, _PIECE):
        length = min(_PIECE, size - offset)
        if old.read(was.start + offset, length) != new.read(tensor.start + offset, length):
            return False
    return True
