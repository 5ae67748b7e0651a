from __future__ import annotations

import pytest

from registry.storage.errors import StorageFull
from registry.storage.memory import MemoryStorage
from tests.registry.storage.contract import UPLOAD, StorageContract


class TestMemory(StorageContract):
    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()


def test_a_full_memory_keeps_what_was_there() -> None:
    storage = MemoryStorage(capacity=10)
    storage.begin(UPLOAD)
    with storage.append(UPLOAD, 0) as writer:
        writer.write(b"12345")
    with storage.append(UPLOAD, 5) as writer:
        writer.write(b"67")
        with pytest.raises(StorageFull):
            writer.write(b"890AB")
    assert b"".join(storage.read(UPLOAD)) == b"12345"
