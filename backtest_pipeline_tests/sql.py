"""Single statements on a store, each in a transaction of its own."""

from __future__ import annotations

from typing import Any, Protocol

import sqlalchemy as sa

from backtest_pipeline.storage.postgres.database import Database


class Holder(Protocol):
    """A workspace, a command line or another thing that works on one database."""

    @property
    def database(self) -> Database: ...


def execute_sql(store: Database | Holder, statement: str, /, **bound: Any) -> int:
    """Executes a statement; the number of rows that it changed."""
    with _database(store).begin() as connection:
        return connection.execute(sa.text(statement), bound).rowcount


def execute_as(store: Database | Holder, role: str, *statements: str) -> None:
    """Executes statements as a role, in one transaction."""
    with _database(store).begin() as connection:
        for statement in (f"SET LOCAL ROLE {role}", *statements):
            connection.execute(sa.text(statement))


def rows(store: Database | Holder, query: str, /, **bound: Any) -> list[dict[str, Any]]:
    """All rows of a query, each by the names of its columns."""
    with _database(store).begin() as connection:
        return [dict(row) for row in connection.execute(sa.text(query), bound).mappings()]


def column(store: Database | Holder, query: str, /, **bound: Any) -> list[Any]:
    """The first column of all rows."""
    with _database(store).begin() as connection:
        return list(connection.execute(sa.text(query), bound).scalars())


def distinct(store: Database | Holder, query: str, /, **bound: Any) -> set[Any]:
    """The different values of the first column."""
    return set(column(store, query, **bound))


def scalar(store: Database | Holder, query: str, /, **bound: Any) -> Any:
    """The first column of the only row."""
    with _database(store).begin() as connection:
        return connection.execute(sa.text(query), bound).scalar_one()


def count(store: Database | Holder, table: str, /, **bound: Any) -> int:
    """How many rows a table has; also of "table WHERE condition"."""
    return scalar(store, f"SELECT count(*) FROM {table}", **bound)


def _database(store: Database | Holder) -> Database:
    return store if isinstance(store, Database) else store.database
