"""A store in no directory at all: what a bucket will bring along, and what two hosts keep of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mregfs.ports.packs import PackFile
from mregfs.registry.log.description import StoreDescription, describe_new_store
from mregfs.wiring.address import StoreAddress
from mregfs.wiring.host_directories import HostDirectories
from mregfs.wiring.opening import open_index
from mregfs.wiring.place import Owner
from mregfs.wiring.store import Store
from tests.contracts.sleeping_store import SleepingObjects, SleepingPacks
from tests.vfs.rig import Rig

ADDRESS = StoreAddress.parse("s3://bucket/models")
DESCRIPTION = StoreDescription(1, "ab" * 16, "2026-11-29T12:00:00Z")


class FarObjects(SleepingObjects):
    def replace(self, key: str, data: bytes) -> None:
        self._bucket.call(key)[key] = data

    def set_aside(self, key: str) -> None:
        self.delete(key)


class NoVerity:
    why_not = "packs are not files of this host"

    def enable(self, pack: PackFile) -> bool:
        return False


class FarPlace:
    """A `Place` of another kind than a directory."""

    description = DESCRIPTION
    verity = NoVerity()
    is_own = writable = True
    temporary = ()

    def __init__(self, objects: FarObjects, packs: SleepingPacks) -> None:
        self.objects, self.packs = objects, packs
        self.hidden = 0

    @property
    def owner(self) -> Owner:
        return Owner(os.geteuid(), os.getegid())

    def free_bytes(self) -> None:
        return None

    def give_room(self) -> bool:
        return False

    def expect_appends(self) -> None:
        pass

    def do_housekeeping(self, *, writing: bool) -> None:
        pass

    def close_to_others(self) -> None:
        self.hidden += 1

    def close(self) -> None:
        pass


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Store]]:
    """One store in a bucket, opened on two hosts."""
    monkeypatch.chdir(tmp_path)
    objects, packs = FarObjects(0.001), SleepingPacks(0.001)
    describe_new_store(objects, DESCRIPTION, str(ADDRESS))

    def open_on(host: str) -> Store:
        directories = HostDirectories(
            ADDRESS, DESCRIPTION.id, within=None, index_within=False, said=str(tmp_path / host)
        )
        return Store(
            ADDRESS,
            FarPlace(objects, packs),
            directories,
            open_index(directories, objects),
            read_only=False,
            verification="first-read",
        )

    one, other = open_on("one"), open_on("other")
    yield one, other
    one.close()
    other.close()


async def test_what_one_host_commits_another_reads(
    hosts: tuple[Store, Store], tmp_path: Path
) -> None:
    one, other = hosts
    rig, its_neighbour = Rig(one), Rig(other)
    weights = os.urandom(3 << 20)

    assert "v0" == await rig.commit("mnist", {"weights": weights, "config.json": b"{}"})
    assert "v1" == await its_neighbour.commit("mnist", {"config.json": b"[]"}, "--alias best")
    one.log.catch_up()

    assert b"{}" == await its_neighbour.read("artifacts/mnist/v0/config.json")
    assert weights[: 1 << 20] == await its_neighbour.read("artifacts/mnist/v0/weights")
    assert "v1" == await rig.readlink("artifacts/mnist/best")
    assert 1 == len(list(other.packs.list()))  # a small file is in its layout
    assert {"one", "other"} == set(os.listdir(tmp_path))
    for store in hosts:
        kept = Path(store.host.drafts.path)
        assert f"{DESCRIPTION.id}-{ADDRESS.digest}" == kept.name
        assert {"index", "intake", "staging"} == set(os.listdir(kept))
        assert [] == os.listdir(kept / "intake")


async def test_its_status_names_the_address_and_no_directory(hosts: tuple[Store, Store]) -> None:
    store, _ = hosts
    rig = Rig(store)
    await rig.commit("mnist", {"config.json": b"{}"})
    facts = store.facts()

    assert ("s3://bucket/models", None) == (facts["store"], facts["free"])
    assert b'"s3://bucket/models"' in await rig.read(".mregfs/status")
