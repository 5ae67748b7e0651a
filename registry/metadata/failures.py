"""The database driver's errors in the registry's words: translated once, where they enter."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError

from registry.errors import DatabaseBusy, DatabaseFailed, DatabaseUnusable, StorageFull

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_FAILED = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
}


def is_busy(error: BaseException) -> bool:
    """Whether the lock was held by somebody else for the whole busy timeout."""
    return _code(error) in _BUSY


def translate(error: Exception, *, waited_s: float) -> Exception:
    """The registry's error for a driver's, or the same one if it is none of those that happen.

    A broken constraint or statement is a mistake of ours and stays what it is.
    """
    code = _code(error)
    if code in _BUSY:
        translated: Exception = DatabaseBusy(waited_s)
    elif code == sqlite3.SQLITE_NOTADB:
        translated = DatabaseUnusable(
            "the metadata file is not a database",
            hint="restore it from a backup, or name another directory with --root",
        )
    elif code == sqlite3.SQLITE_FULL:
        translated = StorageFull("the database")
    elif code in _FAILED:
        translated = DatabaseFailed(str(getattr(error, "orig", error)))
    else:
        return error
    return translated


def _code(error: BaseException) -> int | None:
    """SQLite's primary result code."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    extended = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else int(extended) & 0xFF
