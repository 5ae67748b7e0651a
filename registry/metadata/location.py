"""Where a PostgreSQL database is, and how to say so without its password."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from registry.errors import DatabaseUnusable

_SCHEMES = ("postgresql://", "postgres://")
_PARAMETERS = re.compile(r"\s*[a-z_]+\s*=")

# What connections of ours ask for unless the location says otherwise. A host that is gone without
# a word is noticed in half a minute, not in two hours.
_USUAL = {
    "application_name": "pyreg",
    "connect_timeout": "5",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

# In milliseconds. A statement of ours takes milliseconds; a lock is waited for by a push that
# shares a layer with another. Nobody may hold locks without doing anything.
LOCK_TIMEOUT_MS = 10_000
STATEMENT_TIMEOUT_MS = 30_000
_SESSION = (
    f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS}"
    " -c idle_in_transaction_session_timeout=60000 -c client_min_messages=error"
)


def is_location(text: str) -> bool:
    """Whether it looks like a URL `postgresql://…` or like libpq parameters `host=… dbname=…`."""
    return text.startswith(_SCHEMES) or _PARAMETERS.match(text) is not None


@dataclass(frozen=True, slots=True)
class Location:
    """A database server and a database on it. `str()` is for people and logs: no password."""

    #: For libpq.
    parameters: dict[str, str] = field(repr=False)

    @staticmethod
    def parse(text: str) -> Location:
        """A URL or libpq parameters (libpq's manual, "Connection Strings").

        Raises: DatabaseUnusable, without repeating the text: there may be a password in it.
        """
        try:
            from psycopg import Error
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as error:
            raise DatabaseUnusable(
                "the driver for PostgreSQL is not installed",
                hint="install pyreg with its extra: pip install 'pyreg[postgresql]'",
            ) from error
        try:
            given = conninfo_to_dict(text)
        except Error:
            # Not chained: libpq's message repeats what it could not read.
            raise DatabaseUnusable(
                "the setting 'database' is not a PostgreSQL URL or libpq parameters",
                hint="write postgresql://user:password@host:port/name; escape odd characters in"
                " the password as %XX",
            ) from None
        parameters = _USUAL | {key: str(value) for key, value in given.items() if value is not None}
        parameters["options"] = f"{_SESSION} {parameters.get('options', '')}".strip()
        return Location(parameters)

    @property
    def conninfo(self) -> str:
        """For the driver, password included."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo("", **self.parameters)

    def hide(self, message: str) -> str:
        """A driver's message in one line, without the password, if it should be there."""
        for secret in ("password", "sslpassword"):
            if self.parameters.get(secret):
                message = message.replace(self.parameters[secret], "…")
        return " ".join(message.split())

    def __str__(self) -> str:
        user, host = self.parameters.get("user", ""), self.parameters.get("host", "")
        host = host or self.parameters.get("hostaddr", "")
        port, name = self.parameters.get("port", ""), self.parameters.get("dbname", "")
        return (
            f"postgresql://{user}{'@' if user else ''}{host}{':' if port else ''}{port}/{name}"
            if not host.startswith("/")
            else f"postgresql://{user}{'@' if user else ''}/{name} at {host}"
        )
