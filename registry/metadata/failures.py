"""The database driver's errors in the registry's words: translated once, where they enter."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, NoResultFound

from registry.errors import (
    DatabaseBusy,
    DatabaseFailed,
    DatabaseUnreachable,
    DatabaseUnusable,
    StorageFull,
)
from registry.metadata.location import LOCK_TIMEOUT_MS, Location

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


# ---- PostgreSQL: https://www.postgresql.org/docs/current/errcodes-appendix.html -----------------

_SERIALIZATION = {"40001", "40P01"}
# A foreign key; a unique one.
_CONSTRAINTS = {"23503", "23505"}
# A lock was waited for too long; a statement ran too long.
TOO_LONG_STATES = {"55P03", "57014"}
# Classes: the connection failed; an operator or a crash ended it.
LOST_STATES = {"08", "57"}
# A standby, or a former primary: writes are refused until clients connect anew.
_READ_ONLY = "25006"
_NOT_ALLOWED = "42501"
_TOO_MANY_CONNECTIONS = "53300"
_FULL = {"53100", "53200"}
_DAMAGED = ("58", "XX")


def conflicts(error: BaseException) -> bool:
    """Whether the transaction lost against another one, and nothing of it happened."""
    return _state(error) in _SERIALIZATION


def may_be_overtaken(error: BaseException) -> bool:
    """Whether a row was not, or no longer, as the transaction had found it a statement before.

    Each statement sees what others committed before it: a membership that was there may be gone
    when a manifest is to refer to it. The step decides anew; if that does not help, it is our bug.
    """
    return _state(error) in _CONSTRAINTS or isinstance(error, NoResultFound)


def is_refused(error: BaseException) -> bool:
    """Whether this server takes no changes, so that a new connection may find another one."""
    return _state(error) == _READ_ONLY


def is_lost(error: BaseException) -> bool:
    """Whether the connection ended or could not be made: another one may fare better."""
    original = _original(error)
    state = _state(error)
    if state[:2] in LOST_STATES and state not in TOO_LONG_STATES:
        return True
    if state in (_READ_ONLY, _TOO_MANY_CONNECTIONS):
        return True
    # A connection that breaks gives no code; neither does one that cannot be made.
    return not state and type(original).__name__ in ("OperationalError", "ConnectionTimeout")


def translate_postgres(error: Exception, location: Location) -> Exception:
    """As `translate`, for PostgreSQL."""
    state = _state(error)
    said = location.hide(str(_original(error)))[:300]
    if state in _SERIALIZATION or state in TOO_LONG_STATES:
        translated: Exception = DatabaseBusy(
            LOCK_TIMEOUT_MS / 1000, who="who holds locks in pg_stat_activity"
        )
    elif is_lost(error):
        translated = DatabaseUnreachable(str(location), said)
    elif state in _FULL:
        translated = StorageFull("the database")
    elif state == _NOT_ALLOWED:
        translated = DatabaseUnusable(
            f"the database {location} refuses us: {said}",
            hint="make its user the owner of the database: ALTER DATABASE … OWNER TO …",
        )
    elif state[:2] in _DAMAGED:
        translated = DatabaseFailed(said)
    else:
        return error
    return translated


def _original(error: BaseException) -> BaseException:
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig
    return error


def _state(error: BaseException) -> str:
    """PostgreSQL's five-character code, or empty."""
    return getattr(_original(error), "sqlstate", None) or ""
