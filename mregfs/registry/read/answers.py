"""Answers to questions about a registry, as JSON: bounded in time and size.

Decided here: what each question is answered with, how much one answer holds, where the next one
goes on. Not decided here: how a question is written (`model.queries`), what is known (`catalog`,
`history`, `usage`, `diff`, `files`). The vfs asks, in a thread.

An answer comes from the index, and history also from the log; no pack is read. A list that is too
long for one answer ends early, and says as `more` with which `--after` it goes on. What cannot be
cut in pieces is refused with E2BIG.
"""

import errno
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from mregfs.errors import ForbiddenError, HostError, InvalidError, MregfsError
from mregfs.model import paths
from mregfs.model.changes import Entry, event_of
from mregfs.model.forms import QUESTIONS
from mregfs.model.names import ProjectName, parse_number, parse_project
from mregfs.model.queries import Query, parse_query
from mregfs.model.records import VersionRecord
from mregfs.model.reference import Location, parse_location
from mregfs.model.rules.access import told_access
from mregfs.model.state import State
from mregfs.ports import Clock
from mregfs.ports.index import Index
from mregfs.registry.log.log import Log
from mregfs.registry.read.catalog import Catalog, OwnerInfo, VersionInfo
from mregfs.registry.read.content import Content
from mregfs.registry.read.files import files_of
from mregfs.registry.read.history import history_from

__all__ = ["MAX_BYTES", "MAX_ITEMS", "MAX_SECONDS", "Answers", "MayRead"]

MAX_ITEMS = 1000
"""Of a list, in one answer."""

MAX_BYTES = 1 << 20
"""Of a list, in one answer; its first item may be larger, by its metadata say."""

MAX_SECONDS = 2.0
"""That one answer takes: a list ends then, and anything else is refused."""

MayRead = Callable[[str], bool]
"""Tells whether who asks may read a project (`entity/project`)."""

_Found = Iterator[tuple[object, str]]
"""The items of a list, each with what `--after` says to go on behind it."""


class Answers:
    """Answers questions about one store, as a mount of one project of it shows it.

    Args:
        project: names that do not say are in it.
        index: of the store.
        log: of the store.
        content: of the store.
        facts: returns what `status` tells beside what the index knows.
        clock: nanoseconds; of any epoch.
    """

    def __init__(
        self,
        project: ProjectName,
        index: Index,
        log: Log,
        content: Content,
        facts: Callable[[], dict[str, Any]],
        clock: Clock,
    ) -> None:
        self._project = project
        self._index = index
        self._log = log
        self._content = content
        self._facts = facts
        self._clock = clock

    def answer(self, text: str, may_read: MayRead = lambda project: True) -> bytes:
        """Return the JSON that a question is answered with; a failure is JSON as well.

        Blocks, for `MAX_SECONDS` at most and the time that one look takes.
        """
        try:
            query = parse_query(text, self._project)
            try:
                self._log.catch_up()
            except MregfsError:
                pass  # the store does not answer: what the index knows is told; the mount logs it
            reply: dict[str, Any] = {"ok": True, "sequence": self._index.applied()}
            asked = _Asked(self, query, may_read)
            reply.update(asked.reply())
        except MregfsError as error:
            reply = error.reply()
        return msgspec.json.encode(reply) + b"\n"


class _Asked:
    """One question, and who asked it."""

    def __init__(self, answers: Answers, query: Query, may_read: MayRead) -> None:
        self._index = answers._index
        self._log = answers._log
        self._content = answers._content
        self._facts = answers._facts
        self._own = answers._project
        self._query = query
        self._may_read = may_read
        self._catalog = Catalog(self._index)
        self._clock = answers._clock
        self._end = self._clock() + int(MAX_SECONDS * 1e9)

    def reply(self) -> dict[str, Any]:
        match self._query.name:
            case "ls":
                return self._list(self._ls())
            case "history":
                location = self._locate(0)
                found = history_from(
                    self._log, self._index, location, self._query.after or "", self._may_read
                )
                return self._list(found)
            case "log":
                return self._list(self._entries())
            case "projects":
                return self._list((str(each), str(each)) for each in self._projects())
            case "show":
                return {"result": self._show()}
            case "path":
                return {"result": self._path()}
            case "diff":
                return {"result": self._diff()}
            case "du":
                return {"result": self._du()}
            case "access":
                return {"result": self._access()}
            case "status":
                return {"result": self._facts() | self._catalog.figures(self._may_read)}
        forms = [{"usage": form.usage, "help": form.summary} for form in QUESTIONS.values()]
        return {"result": forms}

    # ---- bounds

    def _list(self, found: _Found) -> dict[str, Any]:
        """Return as many items as an answer holds, and where the next answer begins."""
        items: list[msgspec.Raw] = []
        size = 0
        most = MAX_ITEMS if self._query.limit is None else min(MAX_ITEMS, self._query.limit)
        last = ""
        for item, mark in islice(found, most + 1):
            data = msgspec.json.encode(item)
            size += len(data)
            full = len(items) == most or size > MAX_BYTES or self._clock() > self._end
            if items and full:
                return {"result": items, "more": last}
            if len(items) < most:
                items.append(msgspec.Raw(data))
            last = mark
        return {"result": items}

    def _check_time(self) -> None:
        """Refuse what takes too long.

        Raises:
            HostError: E2BIG, it does.
        """
        if self._clock() > self._end:
            command = " ".join((self._query.name, *self._query.operands))
            raise HostError(
                errno.E2BIG,
                f"{command!r} ran longer than the {MAX_SECONDS:g} seconds that a mount allows",
                "ask for less, such as one artifact or one version; or ask the store itself, "
                "as a user who may open it",
            )

    # ---- rights and names

    def _check_readable(self, project: object) -> None:
        if not self._may_read(str(project)):
            raise ForbiddenError(
                f"you may not read the project {str(project)!r}", "ask its owner for it"
            )

    def _locate(self, position: int) -> Location:
        location = parse_location(self._query.operands[position], self._query.project)
        self._check_readable(location.project)
        return location

    def _version(self, position: int) -> VersionRecord:
        resolved = self._catalog.resolve(self._locate(position))
        self._check_readable(resolved.artifact.project)
        self._content.ensure(resolved.version)
        return resolved.version

    def _projects(self) -> Iterator[ProjectName]:
        after = self._query.after or ""
        for project in self._catalog.projects():
            if str(project) > after and self._may_read(str(project)):
                yield project

    # ---- answers

    def _ls(self) -> _Found:
        operands = self._query.operands
        if not operands:
            return self._owners()
        location = self._locate(0)
        if location.is_owner and len(operands) == 1:
            return self._versions(location)
        version = self._version(0)
        path = operands[1] if len(operands) > 1 else ""
        found = files_of(self._content, version, path, self._query.after or "")
        return ((each, each.path) for each in found)

    def _owners(self) -> _Found:
        """Yield artifacts, then collections, of one project after the other."""
        start = (self._query.after or "").rsplit("/", 2)
        if len(start) not in (1, 3):
            raise InvalidError("--after takes what an answer gave as `more`")
        begun = start[0]
        if self._query.everywhere:
            projects = [each for each in map(str, self._catalog.projects()) if each >= begun]
            projects = list(filter(self._may_read, projects))
        else:
            self._check_readable(self._query.project)
            projects = [str(self._query.project)]
        for project in projects:
            kinds = {"artifact": self._catalog.artifacts, "collection": self._catalog.collections}
            for kind, owners in kinds.items():
                after = ""
                if project == begun:
                    if kind < start[1]:
                        continue
                    after = start[2] if kind == start[1] else ""
                name = ProjectName(*project.split("/"))
                for owner in owners(name, after):
                    yield owner, f"{project}/{kind}/{owner.name}"

    def _versions(self, location: Location) -> _Found:
        before = None
        if self._query.after is not None:
            before = parse_number(self._query.after)
            if before is None:
                raise InvalidError("--after takes a version's number, such as v3")
        for info in self._catalog.versions(location, before):
            if self._may_read(info.project):
                yield self._shown(info), info.number

    def _shown(self, info: VersionInfo) -> VersionInfo:
        """Return what is told of a version: no names of projects that are closed to who asks."""
        links, parents = map(self._readable, (info.links, info.parents))
        if links == info.links and parents == info.parents:
            return info
        return msgspec.structs.replace(info, links=links, parents=parents)

    def _readable(self, references: Iterable[str]) -> tuple[str, ...]:
        return tuple(each for each in references if self._may_read(each.rpartition("/")[0]))

    def _show(self) -> OwnerInfo | VersionInfo:
        location = self._locate(0)
        if location.is_owner:
            return self._catalog.owner(location)
        return self._one(location)

    def _one(self, location: Location) -> VersionInfo:
        info = self._catalog.version(location)
        self._check_readable(info.project)
        return self._shown(info)

    def _path(self) -> dict[str, str]:
        info = self._one(self._locate(0))
        path = paths.join(
            paths.ARTIFACTS, info.artifact, info.version, project=info.project, own=self._own
        )
        return {"path": path}

    def _entries(self) -> _Found:
        head = self._index.applied()
        since = self._query.since
        if since is None:
            since = max(0, head - (MAX_ITEMS if self._query.limit is None else self._query.limit))
        elif since > head:
            raise InvalidError(f"the log ends at {head}, before {since}", "name an entry it has")
        for entry in self._log.entries(since):
            if entry.sequence > head:
                return
            yield self._event(entry), str(entry.sequence)

    def _event(self, entry: Entry) -> dict[str, Any]:
        return event_of(entry, self._may_read)

    def _diff(self) -> object:
        from mregfs.registry.read.diff import compare

        def walk(version: VersionRecord) -> Iterator[tuple[str, Any]]:
            for path, entry in self._content.walk(version):
                self._check_time()
                yield path, entry

        found = compare(walk(self._version(0)), walk(self._version(1)))
        size = len(msgspec.json.encode(found))
        if size > MAX_BYTES:
            raise HostError(
                errno.E2BIG,
                f"the answer has {size} bytes; a mount returns at most {MAX_BYTES}",
                "list the files of both with ls, which comes in pieces",
            )
        return found

    def _access(self) -> dict[str, Any]:
        project = ""
        if self._query.operands:
            project = str(parse_project(self._query.operands[0], self._query.project))
            self._check_readable(project)
        with self._index.read() as view:
            return told_access(State(view), project)

    def _du(self) -> object:
        from mregfs.registry.read.usage import select, usage, usage_of_all

        if not self._query.operands:
            if all(map(self._may_read, map(str, self._catalog.projects()))):
                return usage_of_all(self._index, self._content, self._check_time)
            readable = select(self._index, None, self._may_read)
            return usage(self._index, self._content, readable, self._check_time)
        versions = select(self._index, self._locate(0))
        return usage(self._index, self._content, versions, self._check_time)
