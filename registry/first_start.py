"""What the first start does: the directory, the database, and somebody who may log in."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from registry.app import DATABASE, open_database
from registry.auth.login import create_first_admin
from registry.auth.passwords import Passwords
from registry.errors import RegistryError
from registry.settings import Settings


class DataUnusable(RegistryError):
    """The data directory cannot be made or written."""


def make_directory(settings: Settings) -> None:
    """The registry's directory, readable by its owner alone. Raises: DataUnusable."""
    path = Path(settings.data)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".probe-{secrets.token_hex(4)}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise DataUnusable(
            f"cannot write to the data directory {path}: {error.strerror}",
            hint="choose another one with --root, or run as a user who may write there",
        ) from error


def require_registry(settings: Settings) -> None:
    """Raises: DataUnusable if there is no registry's data yet, as after a slip in the directory."""
    if not settings.database and not (settings.data / DATABASE).exists():
        raise DataUnusable(
            f"there is no registry in {settings.data}",
            hint="name another directory with --root, or start `pyreg serve` once",
        )


def upgrade_apart(settings: Settings) -> None:
    """Create or upgrade the database in a child process, whose memory goes with it.

    The migration tool would stay in the server's memory for good. Only a help: where it fails,
    `prepare` does the same here and says why. To be called while there is one thread.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            make_directory(settings)
            open_database(settings).close()
            status = 0
        finally:
            os._exit(status)
    os.waitpid(child, 0)


async def prepare(settings: Settings) -> str:
    """Create or upgrade the database; the password of a new `admin`, empty if there is none.

    The password is given once and stored only as a hash.
    Raises: DataUnusable; what `open_metadata` raises.
    """
    make_directory(settings)
    metadata = open_database(settings)
    passwords = Passwords()
    try:
        if not settings.auth:
            return ""
        return await create_first_admin(metadata.accounts, passwords) or ""
    finally:
        passwords.close()
        metadata.close()
