"""The store that the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import InvalidSettings
from registry.storage.base import Storage
from registry.storage.disk import DiskStorage

if TYPE_CHECKING:
    from registry.settings import Settings


def open_storage(settings: Settings) -> Storage:
    """Open it without asking whether it answers (`Storage.check` does); the caller closes it.

    Blocks. Raises: StorageFailed if the directory cannot be used; InvalidSettings if S3 is wanted
    and its library is not installed.
    """
    if settings.storage == "s3":
        raise InvalidSettings("S3 storage is not built in yet")
    return DiskStorage(str(settings.data))
