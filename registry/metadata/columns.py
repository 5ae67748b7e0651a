"""The words that every table is written in: one MetaData, and the column types we use.

Text is compared bytewise everywhere, as tags and digests are: SQLite's default, and collation "C"
on PostgreSQL. Times are whole seconds since 1970 in UTC. Ids are never given twice.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData, Text
from sqlalchemy.types import TypeEngine

schema = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def text_type() -> TypeEngine[str]:
    return Text().with_variant(Text(collation="C"), "postgresql")


def id_type() -> TypeEngine[int]:
    # SQLite numbers rows by itself only for a primary key of type INTEGER.
    return BigInteger().with_variant(Integer(), "sqlite")


def time_column(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def repository_column() -> Column[int]:
    return Column(
        "repository_id", id_type(), ForeignKey("repository.id", ondelete="CASCADE"), nullable=False
    )
