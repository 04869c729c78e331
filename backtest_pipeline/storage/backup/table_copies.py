"""The tables of a store, ours and Dagster's: copied out of a snapshot, and into a store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import sqlalchemy as sa
from psycopg import Connection, sql
from sqlalchemy.schema import CreateIndex, CreateTable

from backtest_pipeline.storage.backup.archive import TABLES, BackupManifest
from backtest_pipeline.storage.postgres.database import DAGSTER_SCHEMA
from backtest_pipeline.storage.postgres.migrations import SchemaFile

OURS = "store"
_CREATED = re.compile(
    r"^CREATE (?:OR REPLACE )?(TABLE|VIEW|FUNCTION|SEQUENCE) (?:IF NOT EXISTS )?(\w+)", re.MULTILINE
)
# In their order; triggers go with the functions that they call.
_DROPS = {
    "FUNCTION": sql.SQL("DROP FUNCTION IF EXISTS {} CASCADE"),
    "VIEW": sql.SQL("DROP VIEW IF EXISTS {}"),
    "TABLE": sql.SQL("DROP TABLE IF EXISTS {}"),
    "SEQUENCE": sql.SQL("DROP SEQUENCE IF EXISTS {}"),
}
_DISABLE = sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER")
_ENABLE = sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER")
_CHUNK = 1 << 20


def created_by(files: Iterable[SchemaFile]) -> dict[str, list[str]]:
    """The names of what the SQL files create, by kind: TABLE, VIEW, FUNCTION, SEQUENCE."""
    found: dict[str, dict[str, None]] = {kind: {} for kind in _DROPS}
    for file in files:
        for kind, name in _CREATED.findall(file.sql):
            found[kind][name] = None
    return {kind: list(names) for kind, names in found.items()}


def our_tables(connection: sa.Connection, files: Iterable[SchemaFile]) -> list[sa.Table]:
    """Our tables, those that others refer to first; the user's own in the schema are left out."""
    names = created_by(files)["TABLE"]
    metadata = sa.MetaData()
    metadata.reflect(connection, only=lambda name, _: name in names)
    return metadata.sorted_tables


def dagster_tables(connection: sa.Connection) -> list[sa.Table]:
    """Dagster's tables, those that others refer to first; none before its first use."""
    metadata = sa.MetaData()
    metadata.reflect(connection, schema=DAGSTER_SCHEMA)
    return metadata.sorted_tables


def statements_that_create(tables: Iterable[sa.Table], connection: sa.Connection) -> list[str]:
    """The statements that create these tables with their keys and indexes."""
    found = []
    for table in tables:
        found.append(str(CreateTable(table).compile(connection)))
        found += [str(CreateIndex(index).compile(connection)) for index in table.indexes]
    return found


def member_of(table: sa.Table) -> str:
    """The name of a table in a backup."""
    return f"{TABLES}{table.schema or OURS}/{table.name}"


def columns_of(table: sa.Table) -> list[str]:
    """The columns that hold what was written: those that the database computes are left out."""
    return [column.name for column in table.columns if column.computed is None]


def copy_out(connection: sa.Connection, table: sa.Table, into: IO[bytes]) -> None:
    """Write the rows of a table."""
    statement = sql.SQL("COPY {} ({}) TO STDOUT").format(
        _identifier(member_of(table)), _identifiers(columns_of(table))
    )
    with _driver(connection).cursor().copy(statement) as copy:
        for chunk in copy:
            into.write(chunk)


def copy_in(
    connection: sa.Connection, member: str, columns: Sequence[str], rows: IO[bytes]
) -> None:
    """Add rows that `copy_out` has written."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        _identifier(member), _identifiers(columns)
    )
    with _driver(connection).cursor().copy(statement) as copy:
        while chunk := rows.read(_CHUNK):
            copy.write(chunk)


def sequence_values(
    connection: sa.Connection, files: Iterable[SchemaFile]
) -> dict[str, tuple[int, bool]]:
    """The last value of each sequence, ours and Dagster's, and whether it was handed out."""
    of_dagster = connection.scalars(
        sa.text("SELECT sequencename FROM pg_sequences WHERE schemaname = :schema"),
        {"schema": DAGSTER_SCHEMA},
    )
    names = [
        *(f"{OURS}/{name}" for name in created_by(files)["SEQUENCE"]),
        *(f"{DAGSTER_SCHEMA}/{name}" for name in of_dagster),
    ]
    query = sql.SQL("SELECT last_value, is_called FROM {}")
    with _driver(connection).cursor() as cursor:
        return {
            name: cursor.execute(query.format(_identifier(name))).fetchone() or (1, False)
            for name in names
        }


def set_sequences(connection: sa.Connection, values: Mapping[str, Sequence[Any]]) -> None:
    """Go on counting where the backed up store stood."""
    with _driver(connection).cursor() as cursor:
        for name, (last, is_called) in values.items():
            place = _identifier(name).as_string(cursor)
            cursor.execute("SELECT setval(%s::regclass, %s, %s)", [place, last, is_called])


def drop_store(connection: sa.Connection, files: Sequence[SchemaFile]) -> None:
    """Drop what the SQL files and Dagster have created, and nothing of the user's.

    A view of the user's on one of our tables makes the database refuse that, with its name.
    """
    found = created_by(files)
    with _driver(connection).cursor() as cursor:
        for kind, drop in _DROPS.items():
            cursor.execute(drop.format(_identifiers(found[kind])))
        cursor.execute("DROP TABLE IF EXISTS schema_migrations")
        schema = sql.Identifier(DAGSTER_SCHEMA)
        cursor.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))


def empty_and_unguarded(connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
    """Remove the first rows of new tables, and have triggers leave what is loaded as it was."""
    with _driver(connection).cursor() as cursor:
        for table in tables:
            cursor.execute(_DISABLE.format(sql.Identifier(table.name)))
        cursor.execute(sql.SQL("TRUNCATE {}").format(_identifiers(t.name for t in tables)))


def guard_again(connection: sa.Connection, tables: Sequence[sa.Table]) -> None:
    """Have the triggers work again."""
    with _driver(connection).cursor() as cursor:
        for table in tables:
            cursor.execute(_ENABLE.format(sql.Identifier(table.name)))


def create_dagster_tables(connection: sa.Connection, manifest: BackupManifest) -> None:
    """Create Dagster's tables as they were in the backed up store."""
    with _driver(connection).cursor() as cursor:
        for statement in manifest.dagster_ddl:
            cursor.execute(statement.encode())


def analyze(connection: sa.Connection, members: Iterable[str]) -> None:
    """Tell the planner what was loaded."""
    with _driver(connection).cursor() as cursor:
        for member in members:
            cursor.execute(sql.SQL("ANALYZE {}").format(_identifier(member)))


def _identifier(member: str) -> sql.Identifier:
    """A table or sequence, by its name in a backup; ours are in the schema of the connection."""
    schema, name = member.removeprefix(TABLES).split("/")
    return sql.Identifier(name) if schema == OURS else sql.Identifier(schema, name)


def _identifiers(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _driver(connection: sa.Connection) -> Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, Connection)  # noqa: S101  (our engine's)
    return driver
