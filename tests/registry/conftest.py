"""Registries in memory, and stores in a directory of their own."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mregfs.api import Store, init_store, open_store
from mregfs.registry.log.log import Log
from mregfs.stores.index_memory import IndexMemory
from mregfs.stores.objects_memory import ObjectsMemory
from tests.registry.rig import make_log, write_files


@pytest.fixture
def objects() -> ObjectsMemory:
    return ObjectsMemory()


@pytest.fixture
def index() -> IndexMemory:
    return IndexMemory()


@pytest.fixture
def log(objects: ObjectsMemory, index: IndexMemory) -> Log:
    return make_log(objects, index)


@pytest.fixture
def new_store(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Make the store `tmp_path/store`, and open it as often as asked."""
    path = tmp_path / "store"
    init_store(path)
    opened: list[Store] = []

    def open_it() -> Store:
        opened.append(open_store(path))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(new_store: Callable[[], Store]) -> Store:
    return new_store()


@pytest.fixture
def draft(store: Store) -> Callable[[dict[str, bytes]], Path]:
    """Write a draft of these files into the store's staging area."""
    numbers = itertools.count()

    def write(files: dict[str, bytes]) -> Path:
        path = (
            Path(store.host.drafts.path)
            / "staging"
            / "default"
            / "default"
            / f"run-{next(numbers)}"
        )
        write_files(path, files)
        return path

    return write
