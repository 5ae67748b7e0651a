"""Auth on real metadata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.metadata.base import Metadata
from registry.metadata.database import open_metadata


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    metadata = open_metadata(tmp_path / "metadata.db")
    yield metadata
    metadata.close()
