"""A registry as plain dicts and lists: what the rules must come to, without any of their machinery.

Written from rules.md, not from the code. Keys are (project, name). Refusals raise the error's class
with no message; a transaction works on a copy, so nothing needs to be undone.
"""

from dataclasses import dataclass, field
from typing import Any

from mregfs.errors import (
    ConflictError,
    ExistsError,
    ForbiddenError,
    InvalidError,
    NotEmptyError,
    NotFoundError,
)
from mregfs.model.commands import Principal

Key = tuple[str, str]


@dataclass
class Owner:
    """An artifact (numbers: content) or a collection (numbers: (uid of the artifact, number))."""

    uid: int
    kind: str
    type: str
    next: int
    numbers: dict[int, Any] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    moves: dict[str, list[int | None]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    tags: dict[int | None, set[str]] = field(default_factory=dict)

    def set(self, alias: str, number: int | None) -> None:
        if number is None:
            del self.aliases[alias]
        else:
            self.aliases[alias] = number
        self.moves.setdefault(alias, []).append(number)

    def keep_latest(self) -> None:
        newest = max(self.numbers, default=None)
        if newest != self.aliases.get("latest"):
            self.set("latest", newest)

    def at(self, number: int) -> list[str]:
        return [name for name, at in self.aliases.items() if at == number and name != "latest"]


class PlainRegistry:
    """All owners, and the numbers that given-up names have used."""

    def __init__(self) -> None:
        self.owners: dict[Key, Owner] = {}
        self.used: dict[Key, tuple[int, int]] = {}
        self.uids = 0
        self.readers = {"": "*"}
        self.writers = {"": ""}

    # ---- asking

    def writer(self, project: str, principal: Principal) -> None:
        self._among(self.writers.get(project, self.writers[""]), principal)

    def reader(self, project: str, principal: Principal) -> None:
        try:
            self.writer(project, principal)
        except ForbiddenError:
            self._among(self.readers.get(project, self.readers[""]), principal)

    @staticmethod
    def _among(who: str, principal: Principal) -> None:
        if not principal.privileged and who != "*" and who not in principal.groups:
            raise ForbiddenError("")

    def owner(self, key: Key) -> Owner:
        if key not in self.owners:
            raise NotFoundError("")
        return self.owners[key]

    def number(self, key: Key, number: int) -> Owner:
        owner = self.owner(key)
        if number not in owner.numbers:
            raise NotFoundError("")
        return owner

    def version(self, key: Key, number: int) -> tuple[Owner, int]:
        owner = self.number(key, number)
        if owner.kind == "artifact":
            return owner, number
        uid, number = owner.numbers[number]
        return next(found for found in self.owners.values() if found.uid == uid), number

    def links(self, artifact: Owner, number: int) -> list[tuple[Key, int]]:
        return [
            (key, link)
            for key, owner in self.owners.items()
            for link, value in owner.numbers.items()
            if owner.kind == "collection" and value == (artifact.uid, number)
        ]

    @staticmethod
    def may(owner: Owner, alias: str, principal: Principal) -> None:
        if alias in owner.groups and owner.groups[alias] not in principal.groups:
            raise ForbiddenError("")

    # ---- doing

    def create(self, key: Key, kind: str, of_type: str) -> Owner:
        if key in self.owners:
            raise ExistsError("")
        self.uids += 1
        first = self.used.get(key, (0, 0))[0]
        self.owners[key] = Owner(self.uids, kind, of_type, first)
        return self.owners[key]

    def log(
        self, key: Key, content: str, alias: str | None, of_type: str | None, principal: Principal
    ) -> None:
        artifact = self.owners.get(key)
        if artifact is None or artifact.kind == "collection":
            artifact = self.create(key, "artifact", of_type or "model")
        if of_type not in (None, artifact.type):
            raise InvalidError("")
        same = [number for number, known in artifact.numbers.items() if known == content]
        number = same[0] if same else artifact.next
        if not same:
            artifact.numbers[number] = content
            artifact.next += 1
            artifact.keep_latest()
        if alias is not None:
            self.move_to(artifact, alias, number, None, principal)

    def move_to(
        self, owner: Owner, alias: str, number: int, expect: str | None, principal: Principal
    ) -> None:
        now = owner.aliases.get(alias)
        if expect is not None and expect != ("none" if now is None else f"v{now}"):
            raise ConflictError("")
        if now != number:
            self.may(owner, alias, principal)
            owner.set(alias, number)

    def link(
        self,
        source: tuple[Key, int],
        key: Key,
        alias: str | None,
        expect: str | None,
        principal: Principal,
    ) -> None:
        target = self.owners.get(key)
        if target is not None and target.kind == "artifact":
            if alias is None:
                raise InvalidError("")
            self.move(key, alias, source, expect, principal)
            return
        artifact, number = self.version(*source)
        if target is None:
            target = self.create(key, "collection", artifact.type)
        known = [at for to, at in self.links(artifact, number) if to == key]
        if target.type not in ("", artifact.type):
            raise InvalidError("")
        if not known:
            target.type = artifact.type
            known = [target.next]
            target.numbers[target.next] = (artifact.uid, number)
            target.next += 1
            target.keep_latest()
        if alias is not None:
            self.move_to(target, alias, known[0], expect, principal)

    def move(
        self,
        key: Key,
        alias: str,
        source: tuple[Key, int],
        expect: str | None,
        principal: Principal,
    ) -> None:
        owner = self.owner(key)
        artifact, number = self.version(*source)
        if owner is not artifact:
            known = [at for to, at in self.links(artifact, number) if to == key]
            if not known:
                raise InvalidError("")
            number = known[0]
        self.move_to(owner, alias, number, expect, principal)

    def drop(self, key: Key, alias: str, expect: str | None, principal: Principal) -> None:
        owner = self.owner(key)
        if alias not in owner.aliases:
            raise NotFoundError("")
        if expect not in (None, f"v{owner.aliases[alias]}"):
            raise ConflictError("")
        self.may(owner, alias, principal)
        owner.set(alias, None)

    def rollback(self, key: Key, alias: str, steps: int | None, principal: Principal) -> None:
        owner = self.owner(key)
        moves = owner.moves.get(alias, [])
        if steps is None:
            past = enumerate(reversed(moves))
            steps = next((n for n, at in past if at not in (None, moves[-1])), 1)
        if steps >= len(moves) or moves[-1 - steps] not in owner.numbers:
            raise NotFoundError("")
        self.move_to(owner, alias, moves[-1 - steps], None, principal)

    def access(
        self, project: str, readers: str | None, writers: str | None, principal: Principal
    ) -> None:
        if readers is None and writers is None:
            self.reader(project, principal)
        elif not principal.privileged:
            raise ForbiddenError("")
        for who, said in ((self.readers, readers), (self.writers, writers)):
            if said is not None:
                who[project] = said

    def delete(self, key: Key, number: int, *, force: bool, principal: Principal) -> None:
        self.writer(key[0], principal)
        owner = self.number(key, number)
        links = self.links(owner, number) if owner.kind == "artifact" else []
        if not force and (links or owner.at(number)):
            raise ConflictError("")
        for to, link in links:
            self.delete(to, link, force=True, principal=principal)
        for alias in owner.at(number):
            self.may(owner, alias, principal)
            owner.set(alias, None)
        del owner.numbers[number]
        owner.tags.pop(number, None)
        owner.keep_latest()

    def delete_owner(self, key: Key, *, force: bool, principal: Principal) -> None:
        owner = self.owner(key)
        if owner.numbers and not force:
            raise NotEmptyError("")
        for alias in owner.groups:
            self.may(owner, alias, principal)
        for number in sorted(owner.numbers):
            self.delete(key, number, force=True, principal=principal)
        self.give_up(key)

    def give_up(self, key: Key) -> None:
        owner = self.owners.pop(key)
        if owner.next > self.used.get(key, (0, 0))[0]:
            self.used[key] = (owner.next, owner.uid)

    def rename(self, key: Key, new: Key, principal: Principal) -> None:
        owner = self.owner(key)
        if owner.kind == "artifact":
            raise InvalidError("")
        if key == new:
            return
        if new in self.owners or self.used.get(new, (0, owner.uid))[1] != owner.uid:
            raise ExistsError("")
        for alias in owner.groups:
            self.may(owner, alias, principal)
        self.give_up(key)
        self.owners[new] = owner

    def protect(self, key: Key, alias: str, group: str, principal: Principal) -> None:
        owner = self.owner(key)
        self.may(owner, alias, principal)
        owner.groups[alias] = group

    def unprotect(self, key: Key, alias: str, principal: Principal) -> None:
        owner = self.owner(key)
        if alias not in owner.groups:
            raise NotFoundError("")
        if not principal.privileged:
            self.may(owner, alias, principal)
        del owner.groups[alias]

    def tag(self, key: Key, number: int | None, tag: str) -> None:
        if number is None:
            self.owner(key).tags.setdefault(None, set()).add(tag)
        else:
            artifact, number = self.version(key, number)
            artifact.tags.setdefault(number, set()).add(tag)
