"""The verbs about a store on this host: `init`, `status`, `reindex`.

Decided here: what status tells of store and mounts. Not decided here: how a store is made or
replayed (`mregfs.api`).
"""

import os
from collections.abc import Mapping

import click

from mregfs.cli.arguments import declared
from mregfs.cli.output import as_builtins, count, human_size, print_json, print_pairs, who
from mregfs.cli.progress import progress
from mregfs.cli.session import Session, verb
from mregfs.cli.sources import store_path
from mregfs.errors import InvalidError, UnavailableError
from mregfs.host.mounts import Mount, read_status
from mregfs.model.forms import QUESTIONS
from mregfs.model.paths import STATUS, special

__all__ = ["init", "reindex", "status"]

_SIZES = frozenset({"free", "limit", "pinned", "used"})
"""What status has in bytes: of the disk, and of the whole-file copies."""


@click.command()
@click.argument("path", required=False)
@click.option("--group", help="For a team: this group reads and writes, by way of a mount alone.")
@verb
def init(session: Session, path: str | None, group: str | None) -> None:
    """Make a new store.

    PATH is a directory that does not exist yet, or is empty. Without it: --store, $MREGFS_STORE, or
    the default store of this user.

    The store is yours alone, whoever works with it: others do so by way of your mount. Everybody
    may read in it, and with --group only that group, which may also change it; drafts are private
    then. `mregfs access` changes this later.
    """
    from mregfs.api import Registry, init_store
    from mregfs.config import default_store

    if path and session.named_store:
        raise click.UsageError("name the store once: as PATH or with --store")
    named = path or session.named_store or os.environ.get("MREGFS_STORE")
    store = store_path(named) if named else str(default_store())
    if group is None:
        init_store(store)
    else:
        from mregfs.host.principals import group_number

        if group_number(group) is None:
            raise InvalidError(f"there is no group {group!r} on this host", "see: getent group")
        init_store(store, private=True)
        with Registry(store) as registry:
            registry.set_access(readers=group, writers=group, private_drafts=True)
    session.done = True
    if session.as_json:
        print_json({"store": store, "group": group} if group else {"store": store})
    else:
        click.echo(f"made the store {store}")
        where = f"{store} " if named else ""
        click.echo(f"mount it with: mregfs mount {where}MOUNTPOINT")


@declared(QUESTIONS["status"])
def status(session: Session) -> None:
    """Show the store and its mounts."""
    store = session.registry.status()
    mounts = [_mount_status(mount) for mount in session.place.mounts]
    if session.as_json:
        print_json({"store": as_builtins(store), "mounts": mounts})
        return
    print_pairs(_pairs(store))
    for mount in mounts:
        click.echo()
        print_pairs(_pairs(mount))


def _mount_status(mount: Mount) -> dict[str, object]:
    try:
        answer = read_status(mount)
    except UnavailableError:
        return {"mount": mount.point, "state": "hung"}
    if not answer:
        if mount.is_whole and _is_closed(mount):
            return {"mount": mount.point, "state": "closed to this user"}
        return {"mount": mount.point, "state": "dead" if mount.is_whole else "part"}
    for known in ("store", "store_id", "mountpoint"):
        answer.pop(known, None)
    return {"mount": mount.point, "state": "alive", **answer}


def _is_closed(mount: Mount) -> bool:
    """Tell whether a mount, which has just answered, lets this user not in."""
    try:
        os.stat(special(mount.point, STATUS))
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _pairs(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), _text(name, value)) for name, value in facts.items()]


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in ("readers", "writers"):
        return who(str(value))
    if name in _SIZES and isinstance(value, int):
        return human_size(value)
    if isinstance(value, dict):
        parts = [(key, _text(key, item)) for key, item in value.items()]
        return "\n".join(f"{key}: {text}" for key, text in parts if text)
    return "" if value is None else str(value)


@click.command()
@click.option(
    "--accept-log",
    is_flag=True,
    help="Also when the index knows more than the log: give that up.",
)
@verb
def reindex(session: Session, *, accept_log: bool) -> None:
    """Rebuild the index of this host from the log.

    The index may be rebuilt at any time: of a sound log it holds nothing that the store has not.
    When the log has lost its end (a backup was restored, a disk failed), the index may be all that
    is left of it, and nothing can be changed until fsck --repair has written the end again, or
    --accept-log takes the log as it is.
    """
    from mregfs.api import Registry

    place = session.place
    with (
        Registry(place.own_store, str(place.project_said)) as registry,
        progress(sizes=False) as report,
    ):
        applied = registry.reindex(
            None if report is None else lambda done, total: report("log entries", done, total),
            accept_log=accept_log,
        )
    session.done = True
    if session.as_json:
        print_json({"entries": applied})
    else:
        click.echo(f"replayed {count(applied, 'log entry', 'log entries')}")
