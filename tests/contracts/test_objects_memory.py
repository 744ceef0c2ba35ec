"""The objects in memory keep the contract."""

import pytest

from mregfs.stores.objects_memory import ObjectsMemory
from tests.contracts.object_store import ObjectStoreContract


class TestObjectsMemory(ObjectStoreContract):
    @pytest.fixture
    def objects(self):
        return ObjectsMemory()
