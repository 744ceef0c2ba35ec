"""One client of the soak: makes operations through a mount until it is killed.

    python -m tests.soak.client MOUNT NAME SEED BOOK USER GROUP

Decided here: which operations, in which proportion. Everything that is asked and answered is in the
book. An error is no end: the mount may be dead, and come back. All has been imported before the
client becomes its user, who need not be able to read where it is installed.
"""

import json
import mmap
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.soak.book import Book, Version
from tests.soak.content import TOKEN, files_of, new_token

ARTIFACTS = 3
"""Of each client."""

PAUSE = 0.05
"""Seconds after an error."""

MOST_DRAFTS = 6

MOVED = Path("notes/history.txt")
ASIDE = Path("aside/history.txt")
"""Where a file of a draft is moved, and where it is while a draft is revised."""


class RefusedError(Exception):
    """The registry said no: nothing happened."""


class Client:
    """The operations of one client."""

    def __init__(self, mount: Path, name: str, seed: int, book: Book) -> None:
        self._mount = mount
        self._name = name
        self._random = Random(seed)
        self._book = book
        self._next = len(book.versions)
        self._doing = ""

    def run(self) -> None:
        operations: dict[Callable[[], None], int] = {
            self.draft: 6,
            self.commit: 6,
            self.revise: 3,
            self.move: 4,
            self.delete: 3,
            self.read: 6,
            self.discard: 1,
            self.settle: 3,
        }
        while True:
            (operation,) = self._random.choices(list(operations), weights=list(operations.values()))
            self._doing = operation.__name__
            try:
                operation()
            except RefusedError as exc:
                self._book.note(event="failed", doing=self._doing, error=str(exc))
            except OSError as exc:
                error = exc.strerror or str(exc)
                self._book.note(event="failed", doing=self._doing, error=error)
                time.sleep(PAUSE)

    # ---- operations

    def draft(self) -> None:
        """Write a draft, and leave it for later."""
        if len(self._book.in_state("ready", "asked")) >= MOST_DRAFTS:
            return
        token = new_token(self._name, self._next, self._random)
        self._next += 1
        artifact = f"{self._name}-{self._random.randrange(ARTIFACTS)}"
        self._book.note(event="drafting", token=token, artifact=artifact)
        top = self._draft_of(token)
        top.mkdir()
        for path, data in files_of(token).items():
            (top / path).parent.mkdir(exist_ok=True)
            if self._random.random() < 0.5:
                (top / path).write_bytes(data)
            else:
                # As most libraries save.
                (top / f"{path}.tmp").write_bytes(data)
                (top / f"{path}.tmp").replace(top / path)
        self._book.note(event="ready", token=token)

    def commit(self) -> None:
        """Make a draft a version: by a command, or by a rename."""
        version = self._any("ready")
        if version is None:
            return
        self._book.note(event="committing", token=version.token)
        if self._random.random() < 0.5:
            try:
                (result,) = self._control(f"commit {version.token} {version.artifact}")
            except RefusedError:
                if self._draft_of(version.token).exists():
                    self._book.note(event="ready", token=version.token)
                raise
            number = int(result["version"].removeprefix("v"))
            self._book.note(event="committed", token=version.token, number=number)
            return
        top = self._mount / "artifacts" / version.artifact
        if not top.exists():
            # The first version of an artifact is made by a command.
            self._book.note(event="ready", token=version.token)
            return
        os.rename(self._draft_of(version.token), top / "next")
        self._book.note(event="committed", token=version.token, number=None)
        self._look_for(version)

    def revise(self) -> None:
        """Move a file of a draft to another directory, write more, and take it all back."""
        version = self._any("ready")
        if version is None:
            return
        self._book.note(event="revising", token=version.token)
        top = self._draft_of(version.token)
        (top / ASIDE.parent).mkdir()
        (top / MOVED).rename(top / ASIDE)
        (top / ASIDE.parent / "more").write_bytes(b"not to stay")
        self._take_back(version)

    def _take_back(self, version: Version) -> None:
        take_back(self._draft_of(version.token))
        self._book.note(event="revised", token=version.token)

    def move(self) -> None:
        """Move the alias of an artifact: by a command, or as `ln -sfn` does."""
        version = self._any("made")
        if version is None or version.number is None or version.deletion:
            return
        artifact, number = version.artifact, version.number
        self._book.note(event="moving", artifact=artifact, number=number)
        if self._random.random() < 0.5:
            self._control(f"ln -sf {artifact}:v{number} {artifact}:chosen")
        else:
            top = self._mount / "artifacts" / artifact
            os.symlink(f"v{number}", top / f".{self._name}")
            os.rename(top / f".{self._name}", top / "chosen")
        self._book.note(event="moved", artifact=artifact, number=number)

    def delete(self) -> None:
        """Delete a version to which the alias does not point."""
        version = self._any("made")
        if version is None or version.number is None or version.deletion:
            return
        if version.number in self._book.aliases.get(version.artifact, ()):
            return
        self._book.note(event="deleting", token=version.token)
        self._control(f"rm {version.artifact}:v{version.number}")
        self._book.note(event="deleted", token=version.token)

    def read(self) -> None:
        """Read all of some version of some client, and compare it with what its token says."""
        top = self._mount / "artifacts"
        artifact = self._random.choice(os.listdir(top) or [""])
        names = [name for name in os.listdir(top / artifact) if name[0] == "v"]
        if not artifact or not names:
            return
        try:
            wrong = compare(top / artifact / self._random.choice(names), self._read_file)
        except FileNotFoundError:  # deleted meanwhile
            return
        if wrong:
            self._book.note(event="found_wrong", what=wrong)
        self._book.note(event="read")

    def discard(self) -> None:
        """Throw a draft away."""
        version = self._any("ready")
        if version is not None:
            self._book.note(event="discarded", token=version.token)
            shutil.rmtree(self._draft_of(version.token))

    def settle(self) -> None:
        """See what became of a commit that was not answered; finish what was interrupted."""
        interrupted = self._any("revising")
        if interrupted is not None:
            self._take_back(interrupted)
            return
        version = self._any("asked")
        if version is None or self._look_for(version):
            return
        if not compare(self._draft_of(version.token), Path.read_bytes):
            self._book.note(event="ready", token=version.token)

    # ---- how

    def _draft_of(self, token: str) -> Path:
        return self._mount / "staging" / token

    def _any(self, state: str) -> Version | None:
        found = self._book.in_state(state)
        return self._random.choice(found) if found else None

    def _look_for(self, version: Version) -> bool:
        """Look for the version among those of its artifact whose tokens are not known."""
        top = self._mount / "artifacts" / version.artifact
        known = self._book.numbers(version.artifact)
        if not top.exists():
            return False
        for name in os.listdir(top):
            if name[0] != "v" or int(name[1:]) in known:
                continue
            if (top / name / TOKEN).read_text() == version.token:
                self._book.note(event="committed", token=version.token, number=int(name[1:]))
                return True
        return False

    def _control(self, line: str) -> list[dict[str, str]]:
        descriptor = os.open(self._mount / ".mregfs/control", os.O_RDWR)
        try:
            os.write(descriptor, line.encode() + b"\n")
            said = b""
            while piece := os.read(descriptor, 1 << 16):
                said += piece
        finally:
            os.close(descriptor)
        reply = json.loads(said)
        if not reply["ok"]:
            raise RefusedError(f"{reply['error']} {reply['errno']}: {reply['message']}")
        return list(reply["results"])

    def _read_file(self, path: Path) -> bytes:
        if self._random.random() < 0.5:
            return path.read_bytes()
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return b""
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
                return bytes(memory)


def compare(top: Path, read: Callable[[Path], bytes]) -> str:
    """Compare a directory with what its token says; return what is wrong with it, or nothing."""
    token = read(top / TOKEN).decode(errors="replace")
    try:
        expected = files_of(token)
    except ValueError:
        return f"{top}: the token is {token[:80]!r}"
    found = {
        os.path.relpath(os.path.join(directory, name), top)
        for directory, _, names in os.walk(top, onerror=_raise)
        for name in names
    }
    if found != expected.keys():
        return f"{top}: has {sorted(found)}, not {sorted(expected)}"
    wrong = [path for path, data in expected.items() if read(top / path) != data]
    return f"{top}: {wrong} are not as they were written" if wrong else ""


def take_back(top: Path) -> None:
    """Undo what a revision has done to a draft so far."""
    try:
        (top / ASIDE).rename(top / MOVED)
    except FileNotFoundError:
        os.stat(top / MOVED)  # Or nothing is mounted now.
    (top / ASIDE.parent / "more").unlink(missing_ok=True)
    if ASIDE.parent.name in os.listdir(top):
        (top / ASIDE).parent.rmdir()


def _raise(error: OSError) -> None:
    raise error


def main() -> None:
    """Become the user, and work until killed."""
    mount, name, seed, book, user, group = sys.argv[1:]
    opened = Book(Path(book))
    os.setgroups([int(group)])
    os.setresgid(int(user), int(user), int(user))
    os.setresuid(int(user), int(user), int(user))
    os.umask(0o022)
    Client(Path(mount), name, int(seed), opened).run()


if __name__ == "__main__":
    main()
