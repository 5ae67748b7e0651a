"""What Alembic runs for every command.

At start the registry passes its open connection, whose transaction holds the write lock. Without
one (a developer writes a new revision) the throw-away database of `alembic.ini` is used.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from registry.metadata.schema import schema


def _run(connection: Connection) -> None:
    # No batch mode by default: it rebuilds whole tables. A revision asks for it where it must.
    context.configure(connection=connection, target_metadata=schema)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if isinstance(given, Connection):
    _run(given)
else:
    url = context.config.get_main_option("sqlalchemy.url", "sqlite://")
    with create_engine(url).begin() as throw_away:
        _run(throw_away)
