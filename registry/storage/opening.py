"""The store that the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.errors import InvalidSettings
from registry.server.threads import RECEIVERS, SENDERS
from registry.storage.base import Storage
from registry.storage.disk import DiskStorage

if TYPE_CHECKING:
    from registry.settings import Settings

# Threads that wait for another machine instead of a disk.
S3_SENDERS = 32
S3_RECEIVERS = 16


def open_storage(settings: Settings) -> Storage:
    """Open it without asking whether it answers (`Storage.check` does); the caller closes it.

    Blocks. Raises: StorageFailed if the directory cannot be used; InvalidSettings if S3 is wanted
    and its library is not installed.
    """
    if settings.storage == "s3":
        # Imported here: the library costs 25 MiB and a second, which a store on disk does not pay.
        try:
            from registry.storage.s3.store import S3Storage
        except ImportError as error:
            raise InvalidSettings(
                f"storage in S3 needs a library that is not installed: {error.name}",
                hint="install pyreg with its extra: pip install 'pyreg[s3]'",
            ) from error
        SENDERS.configure(size=S3_SENDERS)
        RECEIVERS.configure(size=S3_RECEIVERS)
        return S3Storage(settings)
    return DiskStorage(str(settings.data))
