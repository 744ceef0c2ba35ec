"""The state while log entries are applied to it: the writing counterpart of `State`.

Decided here: which keys each noun occupies, how inode numbers are allotted, how `latest` and the
history of aliases are kept. Not decided here: which facts lead to what (`apply`).
"""

from collections.abc import Iterable, Mapping

import msgspec

from mregfs.errors import CorruptError
from mregfs.model.names import LATEST
from mregfs.model.records import (
    AliasRecord,
    ArtifactRecord,
    CollectionRecord,
    InodeRecord,
    OwnerRecord,
    PackRecord,
    ReflogRecord,
)
from mregfs.model.rules.overlay import Overlay
from mregfs.model.state import Put, State, View, encode_record, number_key, pack_number

__all__ = ["GONE", "Stamp", "WritableState"]

GONE = "gone"
"""Kind of the inode record of what was deleted: its numbers stay its own, for ever."""

_replace = msgspec.structs.replace


class Stamp(msgspec.Struct, frozen=True):
    """What every change of one request has in common: where in the log, when, by whom, why."""

    sequence: int
    at_ns: int
    author: str
    reason: str = ""


class WritableState(State):
    """The state of a view with changes; reading sees what was written before.

    Args:
        view: what the changes start from; it is only read.
        stamp: of the request whose changes are being applied; set a new one for the next request.
    """

    def __init__(self, view: View, stamp: Stamp) -> None:
        self._overlay = Overlay(view)
        super().__init__(self._overlay)
        self.stamp = stamp

    def puts(self) -> list[Put]:
        """Return all changes made so far."""
        return self._overlay.puts()

    def put(self, table: str, key: bytes | str, value: msgspec.Struct | bytes | None) -> None:
        """Store a record or bytes under a key; None takes the key out."""
        data = encode_record(value) if isinstance(value, msgspec.Struct) else value
        self._overlay.apply(((table, key.encode() if isinstance(key, str) else key, data),))

    def damaged(self, what: str) -> CorruptError:
        """Return the error for a fact that cannot follow from the facts before it."""
        return CorruptError(
            f"log entry {self.stamp.sequence} cannot be applied: {what}",
            "the log was changed by other means; run mregfs fsck",
        )

    # ---- inodes

    def allot(self, record: InodeRecord, count: int = 1) -> int:
        """Give `count` consecutive inode numbers to a new thing, and return the first."""
        inode = self.next_inode()
        self.put("meta", b"next_inode", pack_number(inode + count))
        self.put("inode", pack_number(inode), record)
        return inode

    def end_inode(self, inode: int) -> None:
        """Mark the numbers of a thing as those of something deleted."""
        record = self.inode(inode)
        if record is None:
            raise self.damaged(f"inode {inode} was never allotted")
        self.put("inode", pack_number(inode), _replace(record, kind=GONE))

    # ---- packs

    def add_packs(self, version: int, packs: Mapping[str, int], shared: Iterable[str]) -> None:
        """Let a version use new packs, and some of others."""
        for pack, size in packs.items():
            if self.pack(pack) is not None:
                raise self.damaged(f"pack {pack} was named before")
            self.put("pack", bytes.fromhex(pack), PackRecord(size, self.stamp.sequence))
        for pack in shared:
            known = self.pack(pack)
            if known is None or known.retired_at_ns:
                raise self.damaged(f"pack {pack} is {'retired' if known else 'unknown'}")
        for pack in (*packs, *shared):
            self.put("pack_user", bytes.fromhex(pack) + pack_number(version), b"")
            self.put("version_pack", pack_number(version) + bytes.fromhex(pack), b"")

    def give_up_packs(self, version: int) -> None:
        """Let a version use no packs any more."""
        for pack in self.packs_of(version):
            self.put("pack_user", bytes.fromhex(pack) + pack_number(version), None)
            self.put("version_pack", pack_number(version) + bytes.fromhex(pack), None)

    def retire_pack(self, pack: str) -> None:
        """Remember that no version will use a pack any more."""
        known = self.pack(pack) or PackRecord(0, 0)
        if known.retired_at_ns:
            raise self.damaged(f"pack {pack} is retired already")
        if next(self.users_of(pack), None) is not None:
            raise self.damaged(f"pack {pack} is in use")
        self.put("pack", bytes.fromhex(pack), _replace(known, retired_at_ns=self.stamp.at_ns))

    # ---- owners

    def existing_artifact(self, project: str, name: str) -> ArtifactRecord:
        """Return the artifact of that name; the log says that it exists."""
        found = self.artifact(project, name)
        if found is None:
            raise self.damaged(f"there is no artifact {project}/{name}")
        return found

    def existing_collection(self, project: str, name: str) -> CollectionRecord:
        """Return the collection of that name; the log says that it exists."""
        found = self.collection(project, name)
        if found is None:
            raise self.damaged(f"there is no collection {project}/{name}")
        return found

    def existing_owner(self, project: str, name: str) -> OwnerRecord:
        """Return the artifact or collection of that name; the log says that it exists."""
        found = self.owner(project, name)
        if found is None:
            raise self.damaged(f"there is no artifact or collection {project}/{name}")
        return found

    def save_owner(self, owner: OwnerRecord) -> None:
        """Store an artifact's or collection's record."""
        self.put(owner.kind, f"{owner.project}/{owner.name}", owner)

    def touch(self, owner: OwnerRecord) -> None:
        """Remember that something in the owner's directory changed now."""
        self.save_owner(_replace(owner, changed_at_ns=self.stamp.at_ns))

    def take_number(self, owner: OwnerRecord, number: int) -> None:
        """Count a new version or link; its number was never used before."""
        if number < owner.next_number:
            raise self.damaged(f"v{number} of {owner.project}/{owner.name} was used before")
        self.save_owner(
            _replace(
                owner,
                next_number=number + 1,
                count=owner.count + 1,
                changed_at_ns=self.stamp.at_ns,
            )
        )

    def give_up_number(self, owner: OwnerRecord, number: int) -> None:
        """Count a deleted version or link; its aliases are gone already."""
        if set(self.aliases_of(owner.inode, number)) - {LATEST}:
            raise self.damaged(f"v{number} of {owner.project}/{owner.name} has aliases")
        self.save_owner(_replace(owner, count=owner.count - 1, changed_at_ns=self.stamp.at_ns))

    def give_up_name(self, owner: OwnerRecord) -> None:
        """Take the record from under its name, and remember which numbers the name has used."""
        self.put(owner.kind, f"{owner.project}/{owner.name}", None)
        if owner.next_number > self.first_number(owner.project, owner.name):
            self.put(
                "tombstone",
                f"{owner.project}/{owner.name}",
                number_key(owner.next_number, owner.inode),
            )

    # ---- aliases

    def set_alias(self, owner: OwnerRecord, alias: str, number: int) -> None:
        """Point an alias (`latest` too) at a number, and write the move into its history."""
        known = self.alias(owner.inode, alias)
        if known is None:
            inode = self.allot(InodeRecord("alias", owner.inode, name=alias))
        else:
            inode = known.inode
            self.put("alias_of", number_key(owner.inode, known.number) + alias.encode(), None)
        record = AliasRecord(inode, owner.inode, alias, number, self.stamp.at_ns, self.stamp.author)
        self.put("alias", pack_number(owner.inode) + alias.encode(), record)
        self.put("alias_of", number_key(owner.inode, number) + alias.encode(), b"")
        self._remember(owner, alias, number, known.number if known else None)

    def drop_alias(self, owner: OwnerRecord, alias: str) -> None:
        """Take an alias (`latest` too) away, and write that into its history."""
        known = self.alias(owner.inode, alias)
        if known is None:
            raise self.damaged(f"{owner.project}/{owner.name} has no alias {alias!r}")
        self.put("alias", pack_number(owner.inode) + alias.encode(), None)
        self.put("alias_of", number_key(owner.inode, known.number) + alias.encode(), None)
        self.end_inode(known.inode)
        self._remember(owner, alias, None, known.number)

    def keep_latest(self, owner: OwnerRecord) -> None:
        """Point `latest` at the newest remaining number; without any there is none."""
        newest = self._newest(owner)
        known = self.alias(owner.inode, LATEST)
        if newest is None and known is not None:
            self.drop_alias(owner, LATEST)
        elif newest is not None and (known is None or known.number != newest):
            self.set_alias(owner, LATEST, newest)

    def _newest(self, owner: OwnerRecord) -> int | None:
        if isinstance(owner, ArtifactRecord):
            return next((v.number for v in self.versions(owner.inode, reverse=True)), None)
        return next((link.number for link in self.links(owner.inode, reverse=True)), None)

    def _remember(
        self, owner: OwnerRecord, alias: str, number: int | None, previous: int | None
    ) -> None:
        stamp = self.stamp
        # Several moves in one log entry stand in the order in which they were made.
        prefix = pack_number(owner.inode) + alias.encode() + b"\0" + pack_number(stamp.sequence)
        last = next(self._overlay.scan("reflog", prefix, reverse=True), None)
        turn = int.from_bytes(last[0][-8:], "big") + 1 if last else 0
        record = ReflogRecord(
            stamp.sequence, stamp.at_ns, stamp.author, stamp.reason, number, previous
        )
        self.put("reflog", prefix + pack_number(turn), record)

    def end_history(self, owner: OwnerRecord) -> None:
        """Take away what is remembered of a deleted owner's aliases; the log still tells it."""
        for table in ("reflog", "protection", "owner_entry"):
            for key, _ in self._overlay.scan(table, pack_number(owner.inode)):
                self.put(table, key, None)
