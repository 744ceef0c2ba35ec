"""The file system against a tree of plain dicts: random operations, the same tree after each.

Decided here: what each operation does to a model of dicts, written without looking at the rules.
Not decided here: how the file system does it. No mount, no kernel: `tests/vfs/rig.py`.
"""

import errno
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mregfs.errors import MregfsError
from tests.vfs.rig import open_rig

ARTIFACTS = st.sampled_from(["a", "b"])
COLLECTIONS = st.sampled_from(["c", "d"])
OWNERS = st.one_of(ARTIFACTS, COLLECTIONS)
ALIASES = st.sampled_from(["best", "production"])
CONTENTS = st.sampled_from(["one", "two", "three"])
NUMBERS = st.integers(0, 3)


class Owner:
    """An artifact (numbers hold content) or a collection (numbers hold (artifact, number))."""

    def __init__(self, first: int = 0) -> None:
        self.numbers: dict[int, Any] = {}
        self.aliases: dict[str, int] = {}
        self.next = first


class VfsMachine(RuleBasedStateMachine):
    """FileOperations on the registry's tree; the model beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.cleanup = ExitStack()
        directory = self.cleanup.enter_context(tempfile.TemporaryDirectory())
        self.rig = self.cleanup.enter_context(open_rig(Path(directory)))
        self.artifacts: dict[str, Owner] = {}
        self.collections: dict[str, Owner] = {}
        self.former: dict[str, tuple[int, Owner]] = {}
        """Names given up: the number that comes next there, and who had the name."""

    def teardown(self) -> None:
        self.cleanup.close()

    # ---- helpers

    def do(self, call: Callable[..., Awaitable[Any]], *args: Any, fails: int | None = None) -> None:
        """Make the call; it must fail with the errno `fails`, or work when there is none."""
        if fails is None:
            trio.run(call, *args)
            return
        with pytest.raises(MregfsError) as caught:
            trio.run(call, *args)
        assert fails == caught.value.errno, caught.value

    def owner(self, name: str) -> Owner | None:
        return self.artifacts.get(name) or self.collections.get(name)

    def directory(self, name: str) -> str:
        return f"{'artifacts' if name in ('a', 'b') else 'collections'}/{name}"

    def first(self, name: str) -> int:
        return self.former.get(name, (0, None))[0]

    # ---- operations

    @rule(name=ARTIFACTS, content=CONTENTS, by_move=st.booleans())
    def commit(self, name: str, content: str, by_move: bool) -> None:
        """A draft becomes the next version; content that is there already makes none."""
        trio.run(self.rig.write, "staging/draft/file", content.encode())
        if by_move:
            if name not in self.artifacts:
                trio.run(self.rig.mkdir, f"artifacts/{name}")
            self.do(self.rig.rename, "staging/draft", f"artifacts/{name}/next")
        else:
            assert trio.run(self.rig.control, f"commit draft {name}")["ok"]
        artifact = self.artifacts.setdefault(name, Owner(self.first(name)))
        if content not in artifact.numbers.values():
            artifact.numbers[artifact.next] = content
            artifact.next += 1

    @rule(name=OWNERS, alias=ALIASES, number=NUMBERS, temporary=st.booleans())
    def alias_within(self, name: str, alias: str, number: int, temporary: bool) -> None:
        """`ln -s vN ALIAS`, or `ln -sfn`, in the directory of an owner."""
        owner = self.owner(name)
        top = self.directory(name)
        fails: int | None = None
        if owner is None or number not in owner.numbers:
            fails = errno.ENOENT
        if temporary:
            if owner is None:
                self.do(self.rig.symlink, f"v{number}", f"{top}/.tmp", fails=errno.ENOENT)
                return
            self.do(self.rig.symlink, f"v{number}", f"{top}/.tmp")
            self.do(self.rig.rename, f"{top}/.tmp", f"{top}/{alias}", fails=fails)
            if fails:
                self.do(self.rig.unlink, f"{top}/.tmp")
        elif owner is not None and alias in owner.aliases:
            return  # the kernel answers EEXIST by itself
        else:
            self.do(self.rig.symlink, f"v{number}", f"{top}/{alias}", fails=fails)
        if not fails and owner is not None:
            owner.aliases[alias] = number

    @rule(name=COLLECTIONS, alias=ALIASES, artifact=ARTIFACTS, number=NUMBERS)
    def link(self, name: str, alias: str, artifact: str, number: int) -> None:
        """`ln -s ../../artifacts/A/vN collections/C/ALIAS` links first if need be."""
        collection = self.collections.get(name)
        if collection is not None and alias in collection.aliases:
            return
        source = self.artifacts.get(artifact)
        exists = source is not None and number in source.numbers and collection is not None
        target = f"../../artifacts/{artifact}/v{number}"
        self.do(
            self.rig.symlink,
            target,
            f"collections/{name}/{alias}",
            fails=None if exists else errno.ENOENT,
        )
        if exists and collection is not None:
            linked = (artifact, number)
            if linked not in collection.numbers.values():
                collection.numbers[collection.next] = linked
                collection.next += 1
            known = {value: key for key, value in collection.numbers.items()}
            collection.aliases[alias] = known[linked]

    @rule(name=OWNERS, alias=ALIASES)
    def drop_alias(self, name: str, alias: str) -> None:
        """`rm ALIAS`."""
        owner = self.owner(name)
        known = owner is not None and alias in owner.aliases
        self.do(
            self.rig.unlink,
            f"{self.directory(name)}/{alias}",
            fails=None if known else errno.ENOENT,
        )
        if known and owner is not None:
            del owner.aliases[alias]

    @rule(name=OWNERS, old=ALIASES, new=ALIASES)
    def rename_alias(self, name: str, old: str, new: str) -> None:
        """`mv ALIAS OTHER` in one directory."""
        owner = self.owner(name)
        if old == new:
            return  # the kernel does nothing
        known = owner is not None and old in owner.aliases
        top = self.directory(name)
        self.do(
            self.rig.rename, f"{top}/{old}", f"{top}/{new}", fails=None if known else errno.ENOENT
        )
        if known and owner is not None:
            owner.aliases[new] = owner.aliases.pop(old)

    @rule(name=COLLECTIONS, number=NUMBERS)
    def unlink(self, name: str, number: int) -> None:
        """`rm collections/C/vN`: refused while an alias is at it."""
        collection = self.collections.get(name)
        fails: int | None = None
        if collection is None or number not in collection.numbers:
            fails = errno.ENOENT
        elif number in collection.aliases.values():
            fails = errno.EBUSY
        self.do(self.rig.unlink, f"collections/{name}/v{number}", fails=fails)
        if not fails and collection is not None:
            del collection.numbers[number]

    @rule(name=COLLECTIONS)
    def make_collection(self, name: str) -> None:
        """`mkdir collections/C`."""
        fails = errno.EEXIST if name in self.collections else None
        self.do(self.rig.mkdir, f"collections/{name}", fails=fails)
        if not fails:
            self.collections[name] = Owner(self.first(name))

    @rule(name=COLLECTIONS)
    def remove_collection(self, name: str) -> None:
        """`rmdir collections/C`: only an empty one."""
        collection = self.collections.get(name)
        fails: int | None = None
        if collection is None:
            fails = errno.ENOENT
        elif collection.numbers:
            fails = errno.ENOTEMPTY
        self.do(self.rig.rmdir, f"collections/{name}", fails=fails)
        if not fails and collection is not None:
            del self.collections[name]
            self.former[name] = (collection.next, collection)

    @rule(old=COLLECTIONS, new=COLLECTIONS)
    def rename_collection(self, old: str, new: str) -> None:
        """`mv collections/C collections/D`: a name that another one had is not given again."""
        if old == new:
            return
        collection = self.collections.get(old)
        fails: int | None = None
        if collection is None:
            fails = errno.ENOENT
        elif new in self.collections or (
            self.first(new) > 0 and self.former[new][1] is not collection
        ):
            fails = errno.EEXIST
        self.do(self.rig.rename, f"collections/{old}", f"collections/{new}", fails=fails)
        if not fails and collection is not None:
            del self.collections[old]
            self.collections[new] = collection
            self.former[old] = (collection.next, collection)

    @rule(name=ARTIFACTS, number=NUMBERS)
    def published_is_immutable(self, name: str, number: int) -> None:
        """No operation removes a version."""
        artifact = self.artifacts.get(name)
        exists = artifact is not None and number in artifact.numbers
        code = errno.EROFS if exists else errno.ENOENT
        self.do(self.rig.rmdir, f"artifacts/{name}/v{number}", fails=code)
        self.do(self.rig.unlink, f"artifacts/{name}/v{number}/file", fails=code)

    # ---- the tree

    @invariant()
    def trees_agree(self) -> None:
        """Every name, every file and every symlink is what the model says."""
        found = trio.run(self.rig.tree)
        expected = {"artifacts": "directory", "collections": "directory", "staging": "directory"}
        for kind, owners in (("artifacts", self.artifacts), ("collections", self.collections)):
            for name, owner in owners.items():
                expected[f"{kind}/{name}"] = "directory"
                for number, value in owner.numbers.items():
                    path = f"{kind}/{name}/v{number}"
                    if kind == "artifacts":
                        expected[path] = "directory"
                        expected[f"{path}/file"] = value
                    else:
                        expected[path] = f"-> ../../artifacts/{value[0]}/v{value[1]}"
                if owner.numbers:
                    expected[f"{kind}/{name}/latest"] = f"-> v{max(owner.numbers)}"
                for alias, number in owner.aliases.items():
                    expected[f"{kind}/{name}/{alias}"] = f"-> v{number}"
        tops = ("artifacts", "collections", "staging")
        assert expected == {path: what for path, what in found.items() if path.startswith(tops)}


TestVfsMachine = pytest.mark.slow(VfsMachine.TestCase)
TestVfsMachine.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
