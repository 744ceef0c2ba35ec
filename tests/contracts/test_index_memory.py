"""The index in memory keeps the contract."""

import pytest

from mregfs.stores.index_memory import IndexMemory
from tests.contracts.index import IndexContract


class TestIndexMemory(IndexContract):
    @pytest.fixture
    def index(self):
        return IndexMemory()
