"""Three users, two mounts of one store, any order of operations: nobody gets what is not his.

Decided here: what the users try, and what must hold after each of it. Not decided here: where the
mounts are and how many steps are made (`tests/mount/attack/test_two_mounts.py`).

What is attacked is the registry, not its users: nobody here gives away what he means to keep, but
by the operations that are for it (`open_up`, a commit of his own).
"""

import hashlib
import os
import shutil
import stat
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.attack import operations
from tests.attack.canaries import Canaries
from tests.attack.people import HungError, Person, RefusedError

__all__ = ["STRANGER", "TEAM", "USERS", "World", "machine_in"]

USERS = {"alice": 64001, "bob": 64002, "carol": 64003}
TEAM = 64100
"""The group whose members may write; carol is no member."""
STRANGER = "carol"

DRAFTS = ("d0", "d1", "d2", "d3")
NAMES = ("f0", "f1", "f2", "l0", "s")
_PATHS = st.sampled_from(
    [f"{draft}/{name}" for draft in DRAFTS for name in NAMES]
    + [f"{draft}/s/{name}" for draft in DRAFTS for name in NAMES[:3]]
)
_TOPS = st.sampled_from(DRAFTS)
_WHO = st.sampled_from(list(USERS))
_MOUNTS = st.integers(0, 1)
_NUMBERS = st.integers(0, 9)

_AGAIN = 4
"""Known versions that are read again at each check."""
_LIST_EVERY = 50
"""Checks between two that list all versions: a number may be missing in a sequence."""


class World:
    """The mounts, the users, the canaries; and what is known of all tokens.

    Attributes:
        wanted: how many operations are to be made.
        steps: how many were made so far.
        violations: what went wrong, with the operations just before.
    """

    def __init__(self, mounts: list[Path], store: Path, canaries: Canaries, wanted: int) -> None:
        self.wanted = wanted
        self.run = 0
        self.mounts = mounts
        self.store = store
        self.canaries = canaries
        self.people = {
            name: Person(name, uid, () if name == STRANGER else (TEAM,))
            for name, uid in USERS.items()
        }
        self.steps = 0
        self.answers: Counter[str] = Counter()
        self.violations: list[str] = []
        self.published: dict[str, str] = {}
        """Digest of what is in each version, by its name."""
        self._secrets: dict[str, str] = {}
        """Token of a file that only its owner may read, and his name."""
        self._checks = 0
        self._met: Counter[str] = Counter()
        """The next number of each artifact."""
        self._turn: deque[str] = deque()
        """Versions in the order in which they are read again."""
        self._made = 0
        self._recent: list[str] = []

    # ---- what users do

    def token(self, who: str, *, secret: bool) -> str:
        """Return a new token."""
        self._made += 1
        token = f"{who}-{self._made}"
        if secret:
            self._secrets[token] = who
        return token

    def do(self, who: str, job: Callable[..., Any], *args: Any) -> Any:
        """Have somebody do something; None when it was refused."""
        self.steps += 1
        self._remember(who, job, args)
        try:
            value = self.people[who].do(job, *args)
        except RefusedError as refused:
            self.answers[f"{job.__name__}: {os.strerror(refused.errno or 0)}"] += 1
            return None
        except HungError as hung:
            self._hung(who, hung)
            return None
        self.answers[f"{job.__name__}: ok"] += 1
        self._learn(who, job, value)
        return value

    def together(self, work: dict[str, list[tuple[Callable[..., Any], tuple[Any, ...]]]]) -> None:
        """Have several users do what each has to, at the same time."""
        for who, jobs in work.items():
            for job, args in jobs:
                self._remember(f"{who} at once", job, args)
            self.people[who].begin(operations.batch, jobs)
        came = []
        for who, jobs in work.items():
            self.steps += len(jobs)
            try:
                answers = self.people[who].finish()
            except HungError as hung:
                self._hung(who, hung)
                continue
            for (job, _), (answer, value) in zip(jobs, answers, strict=True):
                self.answers[f"{job.__name__}: {answer}"] += 1
                if answer == "ok":
                    came.append((who, job, value))
        # What one opens up or commits meanwhile, another may have read meanwhile.
        reads = [each for each in came if each[1] is operations.read_everything]
        for each in came:
            if each[1] is not operations.read_everything:
                self._learn(*each)
        if reads:
            self.check_published()
        for each in reads:
            self._learn(*each)

    def _learn(self, who: str, job: Callable[..., Any], value: Any) -> None:
        if job is operations.open_up and self._secrets.get(value) == who:
            del self._secrets[value]
        elif job is operations.read_everything:
            for token in value:
                if self._secrets.get(token, who) != who:
                    self.wrong(f"{who} has read the secret {token}")

    def _hung(self, who: str, hung: HungError) -> None:
        self.wrong(str(hung))
        uid = USERS[who]
        self.people[who] = Person(who, uid, () if who == STRANGER else (TEAM,))

    def _remember(self, who: str, job: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._recent.append(f"{who}: {job.__name__}{args}")
        del self._recent[:-40]

    def wrong(self, what: str) -> None:
        """Note a violation, and say it at once: what comes after may hang."""
        self.violations.append("\n    ".join([what, *self._recent]))
        sys.stderr.write(f"\nafter {self.steps} steps: {what}\n")

    @property
    def over(self) -> bool:
        """Whether there is no more to do."""
        return bool(self.violations) or self.steps >= self.wanted

    # ---- what must hold

    def check(self) -> None:
        """Check what must hold between any two operations; all of it is looked at from outside."""
        changes = self.canaries.changes()
        if changes:
            self.wrong("outside the store: " + "; ".join(changes))
            self.canaries.before = self.canaries.look()
        self._check_owners()

    def _check_owners(self) -> None:
        """What a user has made is his, and nobody else's, wherever it has been moved to."""
        uids = set(USERS.values())
        pending = [self.store / "staging/default/default"]
        while pending:
            place = pending.pop()
            for entry in os.scandir(place):
                found = entry.stat(follow_symlinks=False)
                if found.st_uid not in uids:
                    self.wrong(f"{entry.path} is {found.st_uid}'s")
                    os.chown(entry.path, USERS["alice"], TEAM, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    pending.append(Path(entry.path))
                elif stat.S_ISREG(found.st_mode) and found.st_size:
                    with open(entry.path, "rb") as file:
                        words = file.readline(200).split()
                    if len(words) == 3 and words[0] == b"OWNER" and int(words[1]) != found.st_uid:
                        self.wrong(f"{entry.path} of {int(words[1])} became {found.st_uid}'s")
                        os.unlink(entry.path)

    def check_published(self, *, all_of_it: bool = False) -> None:
        """Check that a version has nothing that its committer could not read, and never changes.

        New versions are looked at now. Those that are known take turns, so that a long run does not
        spend its time on them; with `all_of_it` each of them is read again.
        """
        self._checks += 1
        thorough = all_of_it or self._checks % _LIST_EVERY == 0
        for name in self._listed() if thorough else self._next_numbers():
            if name not in self.published:
                data = contents_of(self.mounts[0] / "artifacts" / name)
                self.published[name] = hashlib.sha256(data).hexdigest()
                self._turn.append(name)
                self._check_new(name, name.partition("/")[0].rpartition("-")[2], data)
        for _ in range(len(self._turn) if all_of_it else min(_AGAIN, len(self._turn))):
            name = self._turn[0]
            self._turn.rotate(-1)
            data = contents_of(self.mounts[0] / "artifacts" / name)
            if hashlib.sha256(data).hexdigest() != self.published[name]:
                self.wrong(f"{name} changed after it was published")
                self.published[name] = hashlib.sha256(data).hexdigest()

    def _listed(self) -> Iterator[str]:
        """Yield all versions there are."""
        top = self.mounts[0] / "artifacts"
        for artifact in os.listdir(top):
            for version in os.listdir(top / artifact):
                if version[0] == "v" and version[1:].isdigit():
                    yield f"{artifact}/{version}"

    def _next_numbers(self) -> Iterator[str]:
        """Yield the versions that follow those that were met, as far as there are any."""
        top = self.mounts[0] / "artifacts"
        for artifact in os.listdir(top):
            while (top / artifact / f"v{self._met[artifact]}").exists():
                yield f"{artifact}/v{self._met[artifact]}"
                self._met[artifact] += 1

    def _check_new(self, name: str, committer: str, data: bytes) -> None:
        if self.canaries.secrets_in(data):
            self.wrong(f"{name} holds what is outside the store")
        for line in data.splitlines():
            words = line.split()
            if len(words) != 3 or words[0] != b"OWNER":
                continue
            owner = self._secrets.pop(words[2].decode(), committer)
            if owner != committer:
                self.wrong(f"{name} holds the secret {words[2].decode()}, by {committer}")

    def begin(self) -> None:
        """Make the drafts of a run, under new names: mounts remember old ones for a second."""
        self.run += 1
        for who, draft in zip((*USERS, "alice"), DRAFTS, strict=True):
            mode = 0o777 if draft in ("d0", "d1") else 0o755
            top = f"{self.staging(0)}{draft}"
            self.do(who, operations.mkdir, top, mode)
            self.do(who, operations.mkdir, f"{top}/s", mode)
            for number, name in enumerate(("f0", "f1", "s/f0")):
                secret = number > 0
                token = self.token(who, secret=secret)
                self.do(who, operations.create, f"{top}/{name}", token, 0o600 if secret else 0o644)

    def staging(self, number: int) -> str:
        """Return what the paths of this run's drafts begin with, in one of the mounts."""
        return f"{self.mounts[number]}/staging/r{self.run}-"

    def clean(self) -> None:
        """Remove all drafts, as root."""
        self.check()
        self.check_published()
        place = self.store / "staging/default/default"
        for name in os.listdir(place):
            path = place / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def end(self) -> None:
        """Let everybody go home."""
        for person in self.people.values():
            person.end()


def contents_of(version: Path) -> bytes:
    """Return all the bytes of a version, with the names."""
    said = []
    for path in sorted(version.rglob("*")):
        said.append(f"\n{path.relative_to(version)}\n".encode())
        if path.is_symlink():
            said.append(os.fsencode(os.readlink(path)))
        elif path.is_file():
            said.append(path.read_bytes())
    return b"".join(said)


# ---- what is drawn


def _operations() -> st.SearchStrategy[tuple[str, tuple[Any, ...]]]:
    """Return a strategy for an operation: its kind, and what it needs."""
    modes = st.sampled_from((0o600, 0o700, 0o400, 0o000, 0o4700))
    open_modes = st.sampled_from((0o644, 0o666, 0o755, 0o4755))
    return st.one_of(
        st.tuples(st.just("mkdir"), st.tuples(_TOPS, st.sampled_from((0o700, 0o755, 0o777)))),
        st.tuples(st.just("mkdir"), st.tuples(_PATHS, st.sampled_from((0o700, 0o755, 0o777)))),
        st.tuples(st.just("secret"), st.tuples(_PATHS)),
        st.tuples(st.just("create"), st.tuples(_PATHS, st.sampled_from((0o644, 0o666)))),
        st.tuples(st.just("open_up"), st.tuples(_PATHS, open_modes)),
        st.tuples(st.just("chmod_private"), st.tuples(_PATHS, modes)),
        st.tuples(st.just("chown_group"), st.tuples(_PATHS, st.just(TEAM))),
        st.tuples(st.just("set_times"), st.tuples(_PATHS, _NUMBERS)),
        st.tuples(st.just("truncate"), st.tuples(_PATHS)),
        st.tuples(st.just("set_xattr"), st.tuples(_PATHS, st.binary(max_size=5))),
        st.tuples(st.just("unlink"), st.tuples(_PATHS)),
        st.tuples(st.just("rmdir"), st.tuples(st.one_of(_PATHS, _TOPS))),
        st.tuples(st.just("move"), st.tuples(_PATHS, _PATHS)),
        st.tuples(st.just("move"), st.tuples(_TOPS, st.one_of(_TOPS, _PATHS))),
        st.tuples(st.just("exchange"), st.tuples(_PATHS, _PATHS)),
        st.tuples(st.just("exchange"), st.tuples(_TOPS, st.one_of(_TOPS, _PATHS))),
        st.tuples(st.just("link"), st.tuples(_PATHS, _PATHS)),
        st.tuples(st.just("symlink"), st.tuples(_NUMBERS, st.one_of(_PATHS, _TOPS))),
        st.tuples(st.just("hold"), st.tuples(_TOPS)),
        st.tuples(
            st.just("use_held"),
            st.tuples(
                _NUMBERS,
                st.sampled_from(("create", "append", "chmod", "unlink", "cwd")),
                st.sampled_from(NAMES),
            ),
        ),
        st.tuples(st.just("read"), st.tuples(st.booleans())),
        st.tuples(st.just("commit"), st.tuples(st.one_of(_TOPS, _PATHS))),
        st.tuples(st.just("mv"), st.tuples(_TOPS)),
        st.tuples(st.just("alias"), st.tuples(_NUMBERS)),
    )


_JOBS: dict[str, Callable[..., Any]] = {
    name: getattr(operations, name)
    for name in (
        "chmod_private", "chown_group", "exchange", "hold", "link", "mkdir", "move", "open_up",
        "rmdir", "set_times", "set_xattr", "truncate", "unlink",
    )
}  # fmt: skip
_SECOND_IS_A_PATH = ("exchange", "link", "move")


def _job(
    world: World, who: str, number: int, kind: str, given: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Turn what was drawn into a function and its arguments."""
    mount = str(world.mounts[number])
    staging = world.staging(number)
    if kind == "secret":
        path = f"{staging}{given[0]}"
        return operations.create, (path, world.token(who, secret=True), 0o600)
    if kind == "create":
        path = f"{staging}{given[0]}"
        return operations.create, (path, world.token(who, secret=False), given[1])
    if kind == "symlink":
        targets = [*world.canaries.files.values(), *world.canaries.directories.values()]
        target = targets[given[0] % len(targets)]
        return operations.symlink, (str(target), f"{staging}{given[1]}")
    if kind == "use_held":
        return operations.use_held, given
    if kind == "read":
        return operations.read_everything, (f"{mount}/{'staging' if given[0] else 'artifacts'}",)
    if kind == "commit":
        return operations.control, (mount, f"commit r{world.run}-{given[0]} by-{who}\n")
    if kind == "mv":
        return operations.move, (f"{staging}{given[0]}", f"{mount}/artifacts/by-{who}/next")
    if kind == "alias":
        return operations.control, (mount, f"ln -sf by-{who}:v{given[0] % 3} by-{who}:best\n")
    paths = 2 if kind in _SECOND_IS_A_PATH else 1
    return _JOBS[kind], tuple(
        f"{staging}{value}" if index < paths else value for index, value in enumerate(given)
    )


def machine_in(world: World, duel_seconds: float) -> type[RuleBasedStateMachine]:
    """Return the state machine that works in a world."""

    class ThreeUsers(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            if not world.over:
                world.begin()

        @rule(who=_WHO, number=_MOUNTS, drawn=st.lists(_operations(), min_size=1, max_size=8))
        def one_after_another(self, who: str, number: int, drawn: list[Any]) -> None:
            for kind, given in [] if world.over else drawn:
                job, args = _job(world, who, number, kind, given)
                world.do(who, job, *args)
                world.check()
                if kind in ("commit", "mv"):
                    world.check_published()

        @rule(
            drawn=st.fixed_dictionaries(
                {
                    who: st.lists(st.tuples(_MOUNTS, _operations()), min_size=2, max_size=8)
                    for who in USERS
                }
            )
        )
        def all_at_once(self, drawn: dict[str, list[Any]]) -> None:
            if world.over:
                return
            world.together(
                {
                    who: [_job(world, who, number, *drawn) for number, drawn in work]
                    for who, work in drawn.items()
                }
            )
            world.check()
            world.check_published()

        @rule(
            who=_WHO,
            kind=st.sampled_from(operations.ALPHABET),
            aim=_NUMBERS,
            numbers=st.permutations((0, 1)),
            bystander=st.booleans(),
        )
        def fight(self, who: str, kind: str, aim: int, numbers: list[int], bystander: bool) -> None:
            if world.over:
                return
            one, other = (str(world.mounts[number]) for number in numbers)
            here = f"fight-{who}-{world.steps}"
            victims = list(world.canaries.files.values())
            line = f"commit {here} by-{who}\n"
            if kind in ("commit", "mv"):
                victims = list(world.canaries.directories.values())
                line = line if kind == "commit" else f"{one}/artifacts/by-{who}/next"
            victim = str(victims[aim % len(victims)])
            if bystander and kind in ("create", "mkdir", "symlink", "mknod"):
                second = "bob" if who == "alice" else "alice"
                world.do(who, operations.mkdir, f"{one}/staging/{here}", 0o777)
                token = world.token(second, secret=False)
                world.do(second, operations.create, f"{one}/staging/{here}/other", token, 0o644)
                victim = ""
            world.do(who, operations.duel, kind, one, other, here, victim, line, duel_seconds)
            world.check()
            world.check_published()

        def teardown(self) -> None:
            if os.listdir(world.store / "staging/default/default"):
                world.clean()

    return ThreeUsers
