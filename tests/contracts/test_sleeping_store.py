"""An adapter that was written from the pages alone keeps the contracts."""

import pytest

from mregfs.ports.objects import ObjectStore
from mregfs.ports.packs import PackStore
from tests.contracts.object_store import ObjectStoreContract
from tests.contracts.pack_store import PackStoreContract
from tests.contracts.sleeping_store import SleepingObjects, SleepingPacks

SHORT = 0.0001


class TestSleepingObjects(ObjectStoreContract):
    @pytest.fixture
    def objects(self) -> ObjectStore:
        return SleepingObjects(SHORT)


class TestSleepingPacks(PackStoreContract):
    @pytest.fixture
    def packs(self) -> PackStore:
        return SleepingPacks(SHORT)
