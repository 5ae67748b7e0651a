"""What the first start does: the directory, the database, and somebody who may log in."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import traceback
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


class StartFailed(RegistryError):
    """What `prepare` raised in the child process, in its words."""


def prepare_apart(settings: Settings) -> str:
    """`prepare` in a child process: nothing of it stays open or in memory here.

    The migration tool would stay in the server's memory for good, and a connection that is open
    in the parent must not be used by forked workers. To be called while there is one thread.
    Raises: StartFailed.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with open(writing, "w", encoding="utf-8") as answer:
                json.dump(_prepare_safely(settings), answer)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        said = answer.read()
    _, state = os.waitpid(child, 0)
    if not said:
        code = os.waitstatus_to_exitcode(state)
        raise StartFailed(f"the process that prepares the database ended with status {code}")
    outcome = json.loads(said)
    if "error" in outcome:
        raise StartFailed(outcome["error"], hint=outcome["hint"])
    return str(outcome["password"])


def _prepare_safely(settings: Settings) -> dict[str, str]:
    try:
        return {"password": asyncio.run(prepare(settings))}
    except RegistryError as error:
        return {"error": str(error), "hint": error.hint}
    except BaseException as error:
        logging.getLogger("pyreg.registry").debug("%s", traceback.format_exc())
        return {"error": f"cannot prepare the database: {error}", "hint": ""}


async def prepare(settings: Settings) -> str:
    """Create or upgrade the database; the password of a new `admin`, empty if there is none.

    The password is given once and stored only as a hash.
    Raises: DataUnusable; DatabaseUnusable if it is older and `upgrade` is off; what `open_metadata`
    raises.
    """
    make_directory(settings)
    if not settings.upgrade:
        from registry.maintenance import require_current_schema  # it stands on this module

        require_current_schema(settings)
    metadata = open_database(settings)
    passwords = Passwords()
    try:
        if not settings.auth:
            return ""
        return await create_first_admin(metadata.accounts, passwords) or ""
    finally:
        passwords.close()
        metadata.close()
