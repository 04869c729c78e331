"""The schema: a baseline, then numbered migrations; each file is applied once and never changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from backtest_pipeline.market.errors import ConfigurationError, SchemaNotMigrated, StoreError
from backtest_pipeline.storage.postgres.database import DAGSTER_SCHEMA, Database, open_database
from backtest_pipeline.storage.settings import Settings
from backtest_pipeline.storage.tables.timeframes import sync_timeframes

_FILE_NAME = re.compile(r"(baseline/\d{2}|migrations/\d{4})_[a-z0-9_]+\.sql")
_ROLES = "roles.sql"  # repeated by every migrate
_LOCK = 7_204_315_526_001  # any number that nobody else takes
_SHORT_WAITS = """
    SELECT set_config('lock_timeout', least(nullif(setting::int, 0), 60000)::text, TRUE)
    FROM pg_settings WHERE name = 'lock_timeout'
"""
_CREATE_RECORD = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        name       TEXT PRIMARY KEY,
        sha256     TEXT NOT NULL,
        applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )"""


@dataclass(frozen=True)
class SchemaFile:
    """A file of the schema.

    Attributes:
        name: its path below `sql`, such as `baseline/01_dimensions.sql`.
        sql: its statements.
        sha256: hash of its bytes.
    """

    name: str
    sql: str
    sha256: str

    @property
    def in_baseline(self) -> bool:
        return self.name.startswith("baseline/")


def sql_folder() -> Path:
    """The folder of the SQL files: in the installed package, or next to it in a checkout."""
    package = Path(__file__).parents[2]
    for folder in (package / "sql", package.parent / "sql"):
        if folder.is_dir():
            return folder
    raise ConfigurationError(f"no folder sql in {package} or beside it; reinstall the package")


def schema_files(folder: Path | None = None) -> list[SchemaFile]:
    """The baseline and the migrations, in the order in which they are applied.

    Raises:
        ConfigurationError: for an invalid file name, or a number that is used twice.
    """
    folder = folder or sql_folder()
    files: dict[str, SchemaFile] = {}
    for path in sorted(folder.rglob("*.sql")):
        name = path.relative_to(folder).as_posix()
        if name == _ROLES:
            continue
        match = _FILE_NAME.fullmatch(name)
        if match is None or match[1] in files:
            raise ConfigurationError(
                f"{name}: invalid or repeated name; name SQL files baseline/NN_name.sql or "
                "migrations/NNNN_name.sql, using each number once"
            )
        data = path.read_bytes()
        files[match[1]] = SchemaFile(name, data.decode(), hashlib.sha256(data).hexdigest())
    return list(files.values())


def migrate(database: Database, folder: Path | None = None) -> list[str]:
    """Apply the missing files in one transaction; returns their names.

    Any number of processes may do this concurrently: all but one wait, then find nothing to do.

    Raises:
        SchemaNotMigrated: where the store has an older schema or a newer release's, or an applied
            file has changed; nothing is applied then.
        StoreError: where a file fails; nothing is applied then.
    """
    files = schema_files(folder)
    with database.begin() as connection:
        lock_schema(connection)
        return migrate_within(database, connection, files)


def lock_schema(connection: sa.Connection) -> None:
    """Block other migrations until this transaction ends, and keep its waits for locks short.

    Behind a change of a table that waits, the server holds up everybody who reads it.
    """
    connection.execute(sa.text(_SHORT_WAITS))
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def migrate_within(
    database: Database, connection: sa.Connection, files: Sequence[SchemaFile]
) -> list[str]:
    """Apply the missing ones of these files in a transaction with `lock_schema`, as `migrate`."""
    recorded = _recorded(connection)
    _refuse_other_schema(recorded, files, database.where)
    connection.execute(sa.text(_CREATE_RECORD))
    missing = [file for file in files if file.name not in recorded]
    for file in missing:
        _apply(database, connection, file)
    connection.execute(sa.text(f'CREATE SCHEMA IF NOT EXISTS "{DAGSTER_SCHEMA}"'))
    sync_timeframes(connection)
    _run(connection, (sql_folder() / _ROLES).read_text())
    return [file.name for file in missing]


def check(database: Database, folder: Path | None = None) -> None:
    """Raise SchemaNotMigrated, with what to do, unless exactly these files are applied."""
    files = schema_files(folder)
    with database.begin() as connection:
        recorded = _recorded(connection)
    _refuse_other_schema(recorded, files, database.where)
    missing = [file.name for file in files if file.name not in recorded]
    if missing:
        raise SchemaNotMigrated(
            f"{database.where}: the schema is missing {', '.join(missing)};"
            " run `backtest-pipeline migrate`"
        )


def ensure(database: Database, *, embedded: bool) -> None:
    """Check the schema, and bring an embedded store's up to date, which is nobody else's to do.

    Raises:
        SchemaNotMigrated: where it is not this code's schema, with what to do.
    """
    try:
        check(database)
    except SchemaNotMigrated:
        if not embedded:
            raise
        migrate(database)


@contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """The database that the settings configure, its schema checked as by `ensure`; then closed."""
    with closing(open_database(settings)) as database:
        ensure(database, embedded=settings.run_store_mode == "embedded")
        yield database


def _apply(database: Database, connection: sa.Connection, file: SchemaFile) -> None:
    try:
        with database.errors():
            _run(connection, file.sql)
    except StoreError as error:
        raise type(error)(f"{file.name}: {error}") from error
    connection.execute(
        sa.text("INSERT INTO schema_migrations (name, sha256) VALUES (:name, :sha256)"),
        {"name": file.name, "sha256": file.sha256},
    )


def _run(connection: sa.Connection, statements: str) -> None:
    cursor = connection.connection.cursor()  # the driver's own: many statements, % as it is
    cursor.execute(statements)
    cursor.close()


def _recorded(connection: sa.Connection) -> dict[str, str]:
    """The hash of each applied file, by name; empty for a store without a schema."""
    if not connection.scalar(sa.text("SELECT to_regclass('schema_migrations') IS NOT NULL")):
        return {}
    rows = connection.execute(sa.text("SELECT name, sha256 FROM schema_migrations"))
    return {row.name: row.sha256 for row in rows}


def _refuse_other_schema(
    recorded: Mapping[str, str], files: Sequence[SchemaFile], where: str
) -> None:
    """Raise SchemaNotMigrated unless all applied files are among these, unchanged."""
    if any("/" not in name for name in recorded):  # recorded before there was a baseline
        raise SchemaNotMigrated(
            f"{where}: the store has an older schema that this release cannot migrate; start a new"
            " store (another BACKTEST_HOME or another database), or remove this one, and refresh to"
            " recompute its runs"
        )
    newer = sorted(recorded.keys() - {file.name for file in files})
    if newer:
        raise SchemaNotMigrated(
            f"{where}: the store was migrated by a newer release ({', '.join(newer)}); upgrade"
            " backtest-pipeline, or use another store"
        )
    changed = [
        file.name
        for file in files
        if (file.name in recorded or (recorded and file.in_baseline))
        and recorded.get(file.name) != file.sha256
    ]
    if changed:
        raise SchemaNotMigrated(
            f"{where}: {', '.join(changed)} has changed since it was applied; restore the file, and"
            " put the change into a new migration"
        )
