"""Bring a database to the schema this code knows, inside a transaction of the caller."""

from __future__ import annotations

from importlib import resources

from sqlalchemy import Connection, inspect, text

import migrations
from registry.errors import DatabaseTooNew, DatabaseUnusable

_VERSION_TABLE = "alembic_version"


def current_revision(connection: Connection, *, where: str = "") -> str:
    """The revision of a database; empty for one without tables.

    Raises: DatabaseUnusable if there are tables, but not ours.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return ""
    if _VERSION_TABLE not in tables:
        raise DatabaseUnusable(
            f"{where or connection.engine.url.database} is a database, but not a registry's",
            hint="name another directory with --root, or another database",
        )
    found = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()
    return str(found or "")


def upgrade(connection: Connection, *, where: str = "") -> str:
    """Apply what is missing; the revision reached.

    The caller's transaction must hold the write lock: two processes may start at once. It decides
    about commit, so a migration that fails leaves the database as it was.

    Raises: DatabaseTooNew if a later version of pyreg wrote the database; DatabaseUnusable.
    """
    found = current_revision(connection, where=where)
    if found == migrations.HEAD:
        return found
    # Imported here: it is large, and nearly every start finds an up-to-date database.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    with resources.as_file(resources.files(migrations)) as directory:
        config = Config()
        config.set_main_option("script_location", str(directory).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if found and found not in known:
            where = where or str(connection.engine.url.database)
            raise DatabaseTooNew(where, found=found, known=migrations.HEAD)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return migrations.HEAD
