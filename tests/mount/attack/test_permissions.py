"""The permission matrix of the manual: each operation, by each user, as it turns out.

`mregfs/manual/permissions.md` holds the tables that these tests make, by real users on real mounts
of root's for all. A table that is not what happens fails; `--write-permissions` writes it anew.
"""

import difflib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.attack.people import Person, RefusedError
from tests.attack.permissions import OPERATIONS, TEAM, Operation, Spot, make_draft
from tests.mount.conftest import MakeMount, Mount

PAGE = Path(__file__).parents[3] / "mregfs/manual/permissions.md"

READERS = 64211

PEOPLE = {
    "root": (0, ()),
    "alice": (64201, (TEAM, READERS)),
    "ally": (64202, (TEAM, READERS)),
    "walt": (64205, (TEAM,)),
    "rita": (64203, (READERS,)),
    "eve": (64204, ()),
}


class Scene(NamedTuple):
    """A registry, and who uses it."""

    name: str
    columns: dict[str, tuple[str, ...]]
    """The heading of each column, and of whom it tells: all of them get the same answers."""
    maker: str = "alice"
    """Whose the drafts are."""
    init: tuple[str, ...] = ()
    access: tuple[str, ...] = ()
    project: str = ""
    drafts: str = "open"


_ROOT = {"root": ("root",)}
_WRITERS = {"the writer whose draft it is": ("alice",), "another writer": ("ally",)}

SCENES = [
    Scene(
        "plain",
        {"root, whose draft it is": ("root",), "everybody else": ("rita", "eve")},
        maker="root",
    ),
    Scene(
        "writers",
        {**_ROOT, **_WRITERS, "everybody else": ("rita", "eve")},
        access=("--writers", str(TEAM)),
    ),
    Scene(
        "group",
        {**_ROOT, **_WRITERS, "everybody else": ("rita", "eve")},
        init=("--group", str(TEAM)),
        drafts="private",
    ),
    Scene(
        "project",
        {
            **_ROOT,
            **_WRITERS,
            "a reader": ("rita",),
            "a writer who is not in the readers' group": ("walt",),
            "everybody else": ("eve",),
        },
        access=("team/p", "--readers", str(READERS), "--writers", str(TEAM)),
        project="team/p",
    ),
]


@pytest.fixture
def people() -> Iterator[dict[str, Person]]:
    made = {name: Person(name, uid, groups) for name, (uid, groups) in PEOPLE.items()}
    try:
        yield made
    finally:
        for person in made.values():
            person.end()


def perform(index: int, spot: Spot) -> str:
    """Make an operation, in the process of whoever makes it."""
    return OPERATIONS[index].make(spot) or "yes"


class Registry:
    """A mounted registry with something in it, in which operations are made."""

    def __init__(self, mount: Mount, scene: Scene, people: dict[str, Person]) -> None:
        self._mount = mount
        self._scene = scene
        self._people = people
        self._numbers = itertools.count(1)
        self._prefix = f"projects/{scene.project}/" if scene.project else ""
        mount.path.mkdir()
        mount.cli("init", mount.store, *scene.init)
        mount.start()
        # Before anybody is refused anything: it is how things are that counts.
        for number in (0, 1):
            made = self._spot(f"v{number}")
            if scene.project:
                mount.control(f"mkdir {self._prefix}collections/x{number}")
            os.listdir(f"{made.top}/staging")
            make_draft(f"{made.top}/staging/first{number}", 0o755)
            Path(f"{made.top}/staging/first{number}/number").write_text(str(number))
            self.say(f"commit Pstaging/first{number} Partifacts/m", made)
        self.say("mkdir Pcollections/c", made)
        if scene.access:
            mount.cli("access", *scene.access)

    def _spot(self, _what: str = "") -> Spot:
        scene = self._scene
        return Spot(
            str(self._mount.path),
            str(self._mount.store),
            self._prefix,
            scene.project,
            scene.drafts,
            next(self._numbers),
        )

    def say(self, line: str, spot: Spot) -> None:
        """Have root say something to `control`."""
        words = line.split(" ")
        said = " ".join(
            (spot.prefix + word[1:] if word.startswith("P") else word).replace(
                "N", str(spot.number)
            )
            for word in words
        )
        reply = self._mount.control(f"{said}\n")
        assert reply["ok"], (said, reply)

    def answer(self, index: int, who: str) -> str:
        """Return what comes of an operation by somebody."""
        operation, spot = OPERATIONS[index], self._spot()
        if operation.draft is not None:
            self._people[self._scene.maker].do(make_draft, spot.draft, operation.draft)
        if operation.before:
            self.say(operation.before, spot)
        try:
            return self._people[who].do(perform, index, spot)
        except RefusedError as refused:
            return errno.errorcode[refused.errno or 0]

    def table(self) -> str:
        """Make all operations, and return what came of them."""
        columns = self._scene.columns
        lines = ["", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        section = ""
        for index, operation in enumerate(OPERATIONS):
            if operation.section != section:
                section = operation.section
                lines.append(f"| **{section}** |" + " |" * len(columns))
            cells = [self._cell(index, operation, people) for people in columns.values()]
            lines.append(f"| {operation.name} | " + " | ".join(cells) + " |")
        return "\n".join([*lines, ""])

    def _cell(self, index: int, operation: Operation, people: tuple[str, ...]) -> str:
        answers = {who: self.answer(index, who) for who in people}
        assert 1 == len(set(answers.values())), (operation.name, answers)
        return answers[people[0]]


def _between(page: str, name: str) -> tuple[str, str, str]:
    """Split the page at a table."""
    before, begin, rest = page.partition(f"<!-- table: {name} -->\n")
    table, end, after = rest.partition(f"<!-- end: {name} -->")
    assert begin, f"{PAGE} has no table {name!r}"
    assert end, f"{PAGE} has no table {name!r}"
    return before + begin, table, end + after


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_the_matrix_is_what_happens(
    scene: Scene,
    make_mount: MakeMount,
    people: dict[str, Person],
    request: pytest.FixtureRequest,
) -> None:
    mount = make_mount(options=("--allow-other",))
    mount.path.parent.chmod(0o755)
    table = Registry(mount, scene, people).table()
    page = PAGE.read_text()
    before, written, after = _between(page, scene.name)
    if request.config.getoption("--write-permissions"):
        PAGE.write_text(before + table + after)
        return
    assert [] == list(difflib.unified_diff(written.splitlines(), table.splitlines(), lineterm=""))
