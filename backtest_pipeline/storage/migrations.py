"""The schema: numbered SQL files, each applied once, in order, and never changed afterwards."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from backtest_pipeline.market.errors import ConfigurationError, SchemaNotMigrated, StoreError
from backtest_pipeline.storage.database import DAGSTER_SCHEMA, Database
from backtest_pipeline.storage.dimensions import sync_timeframes

_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_ROLES = "roles.sql"  # repeated after every migration
_LOCK = 7_204_315_526_001  # any number that nobody else takes
_CREATE_LEDGER = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        name       TEXT PRIMARY KEY,
        sha256     TEXT NOT NULL,
        applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )"""


@dataclass(frozen=True)
class Migration:
    """One file: its name, what it does and the hash of its bytes."""

    name: str
    sql: str
    sha256: str


def sql_folder() -> Path:
    """Where the SQL files lie: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "sql", package.parent / "sql"):
        if folder.is_dir():
            return folder
    raise ConfigurationError(f"no folder sql in {package} or beside it; install the package anew")


def load_migrations(folder: Path | None = None) -> list[Migration]:
    """The numbered files in order.

    Raises:
        ConfigurationError: for a name that is not `NNNN_name.sql`, or a number used twice.
    """
    found: dict[str, Migration] = {}
    files = (folder or sql_folder()).glob("*.sql")
    for path in sorted(path for path in files if path.name != _ROLES):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None or match[1] in found:
            raise ConfigurationError(f"{path.name}: migrations are called NNNN_name.sql, each once")
        data = path.read_bytes()
        found[match[1]] = Migration(path.name, data.decode(), hashlib.sha256(data).hexdigest())
    return list(found.values())


def migrate(database: Database, folder: Path | None = None) -> list[str]:
    """Apply what is missing, each file in a transaction of its own; returns the names applied.

    Any number of processes may do this at once: all but one wait, and find nothing to do.

    Raises:
        SchemaNotMigrated: where an applied file has changed, or the schema is newer than the code.
        StoreError: where a file fails; it leaves nothing behind, the files before it stay.
    """
    migrations = load_migrations(folder)
    applied = [m.name for m in migrations if _apply_once(database, m)]
    with database.begin() as connection:
        _lock(connection)
        _refuse_drift(_recorded(connection), migrations, database)
        connection.execute(sa.text(f'CREATE SCHEMA IF NOT EXISTS "{DAGSTER_SCHEMA}"'))
        sync_timeframes(connection)
        _run(connection, (sql_folder() / _ROLES).read_text())
    return applied


def check(database: Database, folder: Path | None = None) -> None:
    """Raise SchemaNotMigrated, with the names, unless exactly the files here are applied."""
    migrations = load_migrations(folder)
    with database.begin() as connection:
        known = sa.text("SELECT to_regclass('schema_migrations') IS NOT NULL")
        recorded = _recorded(connection) if connection.scalar(known) else {}
    _refuse_drift(recorded, migrations, database)
    missing = [m.name for m in migrations if m.name not in recorded]
    if missing:
        raise SchemaNotMigrated(
            f"{database.where}: not applied yet: {', '.join(missing)};"
            " run `backtest-pipeline migrate`"
        )


def _apply_once(database: Database, migration: Migration) -> bool:
    try:
        with database.begin() as connection:
            _lock(connection)
            connection.execute(sa.text(_CREATE_LEDGER))
            if migration.name in _recorded(connection):
                return False
            _run(connection, migration.sql)
            connection.execute(
                sa.text("INSERT INTO schema_migrations (name, sha256) VALUES (:name, :sha256)"),
                {"name": migration.name, "sha256": migration.sha256},
            )
    except StoreError as error:
        raise type(error)(f"{migration.name}: {error}") from error
    return True


def _run(connection: sa.Connection, statements: str) -> None:
    cursor = connection.connection.cursor()  # the driver's own: many statements, % as it is
    cursor.execute(statements)
    cursor.close()


def _lock(connection: sa.Connection) -> None:
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _recorded(connection: sa.Connection) -> dict[str, str]:
    rows = connection.execute(sa.text("SELECT name, sha256 FROM schema_migrations"))
    return {row.name: row.sha256 for row in rows}


def _refuse_drift(
    recorded: dict[str, str], migrations: list[Migration], database: Database
) -> None:
    here = {m.name: m.sha256 for m in migrations}
    newer = sorted(set(recorded) - set(here))
    if newer:
        raise SchemaNotMigrated(
            f"{database.where}: has {', '.join(newer)}, which this release does not know;"
            " install the release that applied it"
        )
    changed = sorted(name for name, sha256 in recorded.items() if here[name] != sha256)
    if changed:
        raise SchemaNotMigrated(
            f"{database.where}: {', '.join(changed)} changed after it was applied; restore the file"
            " and put the change into a new migration"
        )
