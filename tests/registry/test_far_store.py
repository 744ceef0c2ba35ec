"""What a registry does over a store that is far away: all that it does over one on this host."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mregfs.api import Registry, init_store
from mregfs.errors import CorruptError
from tests.contracts.sleeping_store import SleepingPacks
from tests.far_store import far_away
from tests.registry.rig import write_files

MIB = 1 << 20
CHANCE = random.Random(15)
BASE = CHANCE.randbytes(7 * MIB + 77)
VARIANT = BASE + CHANCE.randbytes(5000)
SMALL = {f"part-{number}": CHANCE.randbytes(20_000) for number in range(3)}


class Far:
    """A registry, the packs that are far away, and two versions of `mnist`."""

    def __init__(self, registry: Registry, packs: SleepingPacks, top: Path) -> None:
        self.registry = registry
        self.packs = packs
        self._top = top

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        write_files(self._top / name, files)
        return str(self.registry.commit(self._top / name, "mnist")["version"])

    def open(self, ref: str, path: str):
        registry = self.registry
        version = registry._way._loaded(registry._locate(ref))
        entry = registry.store.content.find_path(version, path)
        assert entry is not None
        return registry.store.content.open(version, entry.position)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    init_store(tmp_path / "store")
    with far_away(0) as (_, packs), Registry(tmp_path / "store") as registry:
        made = Far(registry, packs, tmp_path)
        made.commit("a", {"model": BASE, "readme": b"inline", **SMALL})
        made.commit("b", {"model": VARIANT, "readme": b"inline", **SMALL})
        yield made


def test_no_pack_is_in_the_directory(far: Far, tmp_path: Path):
    assert not list((tmp_path / "store").glob("packs/??/*"))
    assert 3 == len(list(far.packs.list()))


def test_versions_are_read_and_share_what_they_have_in_common(far: Far):
    assert BASE == far.registry.read("mnist:v0", "model")
    assert VARIANT == far.registry.read("mnist:v1", "model")
    for name, data in SMALL.items():
        assert data == far.registry.read("mnist:v1", name)
    assert b"inline" == far.registry.read("mnist:v1", "readme")
    stored = sum(map(far.packs.size, far.packs.list()))
    assert stored < 2 * len(BASE) - 2 * MIB


def test_there_is_no_file_that_the_kernel_could_read(far: Far):
    with far.open("mnist:v0", "model") as model, far.open("mnist:v1", "model") as variant:
        assert ("remote", -1) == (model.read_path, model.backing())
        assert ("extents", -1) == (variant.read_path, variant.backing())
        assert model.read_cached(0, 10) is None
        assert BASE[:10] == model.read(0, 10)


@pytest.mark.parametrize(("version", "data"), [("v0", BASE), ("v1", VARIANT)])
def test_a_pinned_file_is_a_file_of_this_host(far: Far, version: str, data: bytes):
    pin = far.registry.pin(f"mnist:{version}")

    assert (1, True) == (pin.files, pin.complete)
    with far.open(f"mnist:{version}", "model") as model:
        assert data == os.pread(model.backing(), len(data) + 1, 0)
        assert "coalesced" == model.read_path


def test_the_same_content_makes_no_new_version(far: Far):
    assert "v1" == far.commit("again", {"model": VARIANT, "readme": b"inline", **SMALL})


def test_a_version_is_exported(far: Far, tmp_path: Path):
    far.registry.export("mnist:v1", tmp_path / "copy")

    assert VARIANT == (tmp_path / "copy" / "model").read_bytes()
    assert SMALL["part-1"] == (tmp_path / "copy" / "part-1").read_bytes()


def test_versions_are_compared(far: Far):
    diff = far.registry.diff("mnist:v0", "mnist:v1")
    assert ["model"] == [each.path for each in diff.changed]


def test_a_sound_store_is_found_so(far: Far):
    report = far.registry.fsck(data=True)

    assert () == report.findings
    assert report.bytes_read > len(BASE)


@pytest.mark.usefixtures("expected_warnings")
def test_damage_is_found_and_never_read(far: Far, expected_warnings):
    expected_warnings.expect("damaged|there is no pack")
    whole = max(far.packs.list(), key=far.packs.size)
    far.packs.replace(whole, [bytes(len(BASE))])
    with pytest.raises(CorruptError):
        far.registry.read("mnist:v0", "model")
    kinds = {finding.kind for finding in far.registry.fsck(data=True).findings}
    assert {"data"} == kinds

    far.packs.delete(whole)
    with pytest.raises(CorruptError, match="no pack"):
        far.registry.read("mnist:v0", "model")


def test_a_damaged_pack_is_made_again_from_the_copy_on_this_host(far: Far, expected_warnings):
    expected_warnings.expect("damaged")
    far.registry.pin("mnist:v0")
    whole = max(far.packs.list(), key=far.packs.size)
    far.packs.replace(whole, [bytes(len(BASE))])

    far.registry.repair(lambda step: None, data=True)

    assert BASE == far.registry.read("mnist:v0", "model")
    assert () == far.registry.fsck(data=True).findings
