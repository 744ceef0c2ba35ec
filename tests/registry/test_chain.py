"""A commit is a chain: whoever follows one through the code rarely comes back to a module he left.

Counted as the program runs, and so that it depends on nothing but Python: a real commit of a draft
(a new file, one that shares parts with a version, a stored one, small ones) is followed from
`prepare` to its last object. Somebody who reads each function once, when it is first called, goes
from module to module; to go to one that he has left is a return. The threads' work is done at once
where it is asked for, or its order would be chance.
"""

import json
import random
import struct
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import mregfs
from mregfs.registry.write import commit as chain
from mregfs.wiring.store import Store
from tests.registry.rig import commit, packs_of

TOP = Path(mregfs.__file__).parent

OWN = ("registry/write/", "model/plan")
"""The steps of a commit."""

USED = ("model/manifest", "model/layout", "model/digest", "model/chunking", "model/tensors")
"""What the steps make, and what they make it with."""

MOST_OWN = 8
"""Returns; it was 11, when a commit was two objects that called each other. They lead to the pool
of threads; twice to the meters, which are told of each stage; twice to `dedup`, after it had
something verified or judged; to the plan, which has lent `dedup` a rule, and again for its packs;
to the end."""

MOST = 28
"""With what the steps use, and the ports; it was 45."""

PORTS = ("stores/intake_dir", "stores/packs_dir", "stores/objects_dir")
"""Adapters, each as one module: what happens in them is tested elsewhere."""


class AtOnce(Executor):
    """Threads that have done all before one can ask."""

    def __init__(self, *args: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **more))
        except Exception as exc:  # noqa: BLE001 - as threads do
            future.set_exception(exc)
        return future


class Walk:
    """The functions of this package in the order in which they are first called."""

    def __init__(self) -> None:
        self.stays: list[str] = []
        self._seen: set[tuple[str, str]] = set()
        self._inside = 0  # calls of an adapter that are under way

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event not in ("call", "return") or TOP not in path.parents:
            return
        module = path.relative_to(TOP).with_suffix("").as_posix()
        adapter = module.startswith(("stores/", "host/"))
        if event == "return":
            self._inside -= adapter
            return
        name = frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name
        if not self._inside and not name.endswith(("<genexpr>", "<lambda>", "comp>")):
            if adapter:
                module = "/".join(module.split("/")[:2])
            if (module, name) not in self._seen:
                self._seen.add((module, name))
                self.stays.append(module)
        self._inside += adapter

    def returns(self, *rooms: str) -> list[str]:
        """Return the modules that one comes back to, of those in some rooms."""
        left: set[str] = set()
        back, here = [], ""
        for module in self.stays:
            if module == here or not module.startswith(rooms):
                continue
            if module in left:
                back.append(module)
            left.add(module)
            here = module
        return back


def safetensors(*tensors: bytes) -> bytes:
    header, end = {}, 0
    for number, data in enumerate(tensors):
        offsets = [end, end + len(data)]
        header[str(number)] = {"dtype": "U8", "shape": [len(data)], "data_offsets": offsets}
        end += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(tensors)


@pytest.fixture
def walk(store: Store, draft: Any, monkeypatch: pytest.MonkeyPatch) -> Walk:
    """The way of a commit that has something for each step."""
    monkeypatch.setattr(chain, "ThreadPoolExecutor", AtOnce)
    chance = random.Random(1)
    shared, old = chance.randbytes(2 << 20), chance.randbytes(3 << 20)
    first = {"model": safetensors(shared, old), "old": old, "tokens": old[:9000], "config": b"{}"}
    commit(store, draft(first))
    packs = packs_of(store)
    second = {
        "model": safetensors(shared, chance.randbytes(3 << 20)),
        "old": old,
        "new": chance.randbytes(5 << 20),
        "tokens": old[1:9000],
        "config": b"{1}",
    }
    path = draft(second)
    found = Walk()
    prepare = store.committer.prepare

    def followed(*args: Any) -> Any:
        sys.setprofile(found)
        try:
            return prepare(*args)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(store.committer, "prepare", followed)
    commit(store, path)
    assert 3 == len(packs_of(store).keys() - packs)  # the new one, the rest of another, small ones
    return found


def test_following_a_commit_one_rarely_comes_back(walk: Walk) -> None:
    back = walk.returns(*OWN)
    assert len(back) <= MOST_OWN, back
    back = walk.returns(*OWN, *USED, *PORTS)
    assert len(back) <= MOST, back


def test_every_step_of_a_commit_is_on_the_way(walk: Walk) -> None:
    """Else the figure above would be of less than a commit."""
    steps = {path.stem for path in (TOP / "registry/write").glob("*.py")} - {"changes", "__init__"}
    assert steps == {stay.rpartition("/")[2] for stay in walk.stays if stay.startswith(OWN[0])}
    assert {*PORTS} <= {*walk.stays}


def test_a_way_back_is_counted() -> None:
    """One and the same module, left twice and entered again twice."""
    walk = Walk()
    walk.stays = ["a/one", "a/two", "b/else", "a/two", "a/one", "a/two", "a/two"]
    assert ["a/one", "a/two"] == walk.returns("a/")
    assert ["a/two", "a/one", "a/two"] == walk.returns("a/", "b/")
