"""What one client asked for and was told: a file outside of the store, and what follows from it.

Decided here: what may be in the store after any sequence of operations, answers and kills. An
operation is written down before it is made, and its answer when it is there; one without an answer
may have happened or not. Not decided here: which operations are made (`client`), what is there
(`soak`).
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

__all__ = ["Book", "Version"]


class Version:
    """What is known of the version with one token, or of the draft that is to become it.

    `state` is `drafting`, `ready` (the draft is complete), `revising` (a file of it is being moved
    away and back), `asked` (to be committed), `made`, or `discarded`; `deletion` is empty, `asked`
    or `done`.
    """

    def __init__(self, token: str, artifact: str) -> None:
        self.token = token
        self.artifact = artifact
        self.state = "drafting"
        self.number: int | None = None
        self.deletion = ""


class Book:
    """The book of one client; opened again by the client that takes the place of a killed one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.versions: dict[str, Version] = {}
        self.aliases: dict[str, list[int | None]] = {}
        """Where the alias of an artifact may point; None: there may be none."""
        self.answers: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        if path.exists():
            # A client that was killed in a write(2) has left all of the line or nothing.
            for line in path.read_text().splitlines():
                self._apply(**json.loads(line))
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, **what: Any) -> None:
        """Write something down, then believe it."""
        line = json.dumps(what).encode() + b"\n"
        assert len(line) == os.write(self._file, line)
        self._apply(**what)

    def close(self) -> None:
        os.close(self._file)

    def numbers(self, artifact: str) -> dict[int, Version]:
        """Return the versions of an artifact whose numbers are known, deleted ones too."""
        return {
            version.number: version
            for version in self.versions.values()
            if version.artifact == artifact and version.number is not None
        }

    def in_state(self, *states: str) -> list[Version]:
        return [version for version in self.versions.values() if version.state in states]

    def _apply(self, event: str, **what: Any) -> None:
        getattr(self, f"_{event}")(**what)

    # ---- drafts and versions

    def _drafting(self, token: str, artifact: str) -> None:
        self.versions[token] = Version(token, artifact)

    def _ready(self, token: str) -> None:
        """Also: a commit was refused, or it is seen that it did not happen."""
        self.versions[token].state = "ready"

    def _revising(self, token: str) -> None:
        self.versions[token].state = "revising"

    def _revised(self, token: str) -> None:
        self.answers["revisions"] += 1
        self.versions[token].state = "ready"

    def _discarded(self, token: str) -> None:
        self.versions[token].state = "discarded"

    def _committing(self, token: str) -> None:
        self.versions[token].state = "asked"

    def _committed(self, token: str, number: int | None) -> None:
        version = self.versions[token]
        self.answers["commits"] += version.state == "asked"
        version.state = "made"
        version.number = number if number is not None else version.number

    # ---- aliases and deletions

    def _moving(self, artifact: str, number: int) -> None:
        self.aliases.setdefault(artifact, [None]).append(number)

    def _moved(self, artifact: str, number: int) -> None:
        self.answers["moves"] += 1
        self.aliases[artifact] = [number]

    def _deleting(self, token: str) -> None:
        self.versions[token].deletion = "asked"

    def _deleted(self, token: str) -> None:
        self.answers["deletions"] += 1
        self.versions[token].deletion = "done"

    # ---- what was seen

    def _read(self) -> None:
        self.answers["reads"] += 1

    def _failed(self, doing: str, error: str) -> None:
        self.errors[f"{doing}: {error}"] += 1

    def _found_wrong(self, what: str) -> None:
        self.wrong.append(what)
