"""What a commit stores: packs, layout, manifest, as its plan says.

Decided here: the order, and that each is durable before anything names it (`commit.md` §1). Not
decided here: what stands in the packs (`model.plan`), how a file becomes a pack without a copy (the
intake, the pack store), what is undone (`unsettled`).
"""

from collections.abc import Callable, Iterator, Mapping

from mregfs.errors import ConflictError, ExistsError
from mregfs.model.digest import block_digest
from mregfs.model.plan import ALIGNMENT, Hashed, Parts, Plan, SharedPack
from mregfs.ports.intake import Intake
from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackStore
from mregfs.registry.write.unsettled import Unsettled

__all__ = ["store_all"]

_PIECE = 8 << 20


def store_all(
    plan: Plan,
    layout: tuple[str, bytes],
    manifest: tuple[str, bytes],
    hashed: Mapping[str, Hashed],
    *,
    intake: Intake,
    packs: PackStore,
    objects: ObjectStore,
    unsettled: Unsettled,
    report: Callable[[int], None],
) -> None:
    """Store packs, layout and manifest, in this order; each is durable before the next one.

    Args:
        plan: what goes where.
        layout: its key in the store, and itself.
        manifest: likewise; its key is its digest.
        hashed: the digests of the files, by path: small ones are read again.
        intake: what they are read from.
        packs: where they go.
        objects: where layout and manifest go.
        unsettled: is told each thing before it is done.
        report: called with bytes of data that was written since it was last called.

    Raises:
        ConflictError: a file changed meanwhile.
        NoSpaceError: it does not fit.
    """
    report(0)  # cutting takes its time: whoever waited may be gone
    unsettled.adopted = frozenset(plan.adoptions.values())
    intake.announce(plan.adoptions)
    for path, pack in plan.adoptions.items():
        unsettled.written.append(pack)
        intake.adopt(path, pack)
    for shared in plan.shared:
        unsettled.written.append(shared.pack)
        pieces = _small_files(shared, hashed, intake, report)
        packs.create(shared.pack, pieces)
    for parts in plan.parts:
        unsettled.written.append(parts.pack)
        pieces = _parts(parts, intake, report)
        packs.create(parts.pack, pieces)
    packs.sync(unsettled.written)
    intake.verify()
    unsettled.layout_stored = True
    objects.create(*layout)
    try:
        objects.create(*manifest)
    except ExistsError:
        pass  # it is the same one


def _small_files(
    shared: SharedPack,
    hashed: Mapping[str, Hashed],
    intake: Intake,
    report: Callable[[int], None],
) -> Iterator[bytes]:
    for path in shared.paths:
        data = intake.read(path)
        if block_digest(data) != hashed[path].digest:
            raise _changed(path)
        yield data
        padding = -len(data) % ALIGNMENT
        if padding:
            yield bytes(padding)
        report(len(data))


def _parts(parts: Parts, intake: Intake, report: Callable[[int], None]) -> Iterator[bytes]:
    for start, length in parts.fresh:
        for offset in range(start, start + length, _PIECE):
            size = min(_PIECE, start + length - offset)
            piece = intake.read_at(parts.path, offset, size)
            if len(piece) < size:
                raise _changed(parts.path)
            yield piece
            report(size)


def _changed(path: str) -> ConflictError:
    return ConflictError(
        f"{path!r} changed while it was being committed",
        "commit again when it is finished",
    )
