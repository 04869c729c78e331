"""Restores a backup: everything or nothing, into an empty store unless it is to be replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from backtest_pipeline.market.errors import AlreadyRunning, BackupRefused
from backtest_pipeline.storage.artifact_root import bind_root, rebind_root
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.backup import table_copies
from backtest_pipeline.storage.backup.archive import (
    ARTIFACTS,
    TABLES,
    BackupManifest,
    members_of,
    verified,
)
from backtest_pipeline.storage.backup.backup import without_limits
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.migrations import (
    SchemaFile,
    lock_schema,
    migrate_within,
    schema_files,
)
from backtest_pipeline.storage.postgres.removals import lock_for_removal
from backtest_pipeline.storage.postgres.session_lock import (
    CODE_SERVER_LOCK,
    DAEMON_LOCK,
    SERVICE_LOCK,
    SessionLock,
)

# What holds each lock, which would go on with rows that it has read.
_GO_ON = {
    DAEMON_LOCK: "`up` or `daemon`",
    CODE_SERVER_LOCK: "`code-server`",
    SERVICE_LOCK: "`serve`",
}
# The lease of a killed process expires within a minute.
_AT_WORK = {
    "dagster_run_leases": """
        SELECT '`' || command || '` (' || holder || ')' FROM dagster_run_leases
        WHERE lease_expires_at >= now() ORDER BY 1""",
    "backtest_jobs": """
        SELECT 'job ' || job_id FROM backtest_jobs
        WHERE status = 'running' AND lease_expires_at >= now() ORDER BY 1""",
}


@dataclass(frozen=True)
class RestoreReport:
    """What was restored."""

    manifest: BackupManifest
    artifacts: int


def restore(
    database: Database, artifacts: ArtifactStore, path: Path, *, replace: bool = False
) -> RestoreReport:
    """Restore a backup, checked as a whole before anything is written, and migrate it.

    Files are put in place under names that follow from their content, and one transaction loads all
    tables. A kill before its end leaves the database as it was, and files that no row names, which
    retention removes.

    Args:
        database: the database, empty or of an older store.
        artifacts: where its artifacts go.
        path: the backup.
        replace: drop what the database holds; files that are not in the backup are left to
            retention.

    Raises:
        BackupRefused: where the backup cannot be used, the store is not empty, or somebody works on
            it.
    """
    manifest = verified(path)
    files = schema_files()
    of_backup = _files_of(manifest, files, path)
    artifacts.require_writable()
    n = 0
    with _alone(database), database.begin() as connection:
        without_limits(connection)
        lock_schema(connection)
        lock_for_removal(connection)
        _require_idle(connection, database.where)
        _require_room(connection, artifacts, manifest, database.where, replace=replace)
        table_copies.drop_store(connection, files)
        migrate_within(database, connection, of_backup)
        table_copies.create_dagster_tables(connection, manifest)
        ours = table_copies.our_tables(connection, of_backup)
        table_copies.empty_and_unguarded(connection, ours)
        for name, content in members_of(path):
            if name.startswith(ARTIFACTS):
                artifacts.write_raw(name.removeprefix(ARTIFACTS), content)
                n += 1
            elif name.startswith(TABLES):
                table_copies.copy_in(connection, name, manifest.columns[name], content)
        table_copies.set_sequences(connection, manifest.sequences)
        table_copies.guard_again(connection, ours)
        migrate_within(database, connection, files)
        rebind_root(connection, artifacts)
        table_copies.analyze(connection, manifest.columns)
    bind_root(database, artifacts)
    return RestoreReport(manifest, n)


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Keep from the store what would go on with rows that it has read."""
    with ExitStack() as held:
        for name, command in _GO_ON.items():
            try:
                held.callback(SessionLock(database, name).release)
            except AlreadyRunning:
                raise BackupRefused(
                    f"{database.where}: {command} runs on this store; end it first, then restore"
                    " again"
                ) from None
        yield


def _require_idle(connection: sa.Connection, where: str) -> None:
    """Refuse to replace a store on which commands or jobs are at work, as their leases say."""
    at_work = [
        who
        for table, query in _AT_WORK.items()
        if connection.scalar(sa.text("SELECT to_regclass(:table) IS NOT NULL"), {"table": table})
        for who in connection.execute(sa.text(query)).scalars()
    ]
    if at_work:
        raise BackupRefused(
            f"{where}: at work on this store: {', '.join(at_work)}; end what works first, or wait"
            " for its end, then restore again"
        )


def _files_of(
    manifest: BackupManifest, files: Sequence[SchemaFile], path: Path
) -> list[SchemaFile]:
    """The SQL files that made the schema of the backup."""
    known = {(file.name, file.sha256): file for file in files}
    applied = [(name, sha256) for name, sha256 in manifest.schema]
    other = [name for name, sha256 in applied if (name, sha256) not in known]
    if other:
        raise BackupRefused(
            f"{path}: was made by release {manifest.version} with another schema"
            f" ({', '.join(other)}); restore it with that release, or a later one"
        )
    return [known[file] for file in applied]


def _require_room(
    connection: sa.Connection,
    artifacts: ArtifactStore,
    manifest: BackupManifest,
    where: str,
    *,
    replace: bool,
) -> None:
    """Refuse to mix a backup with another store, or to replace one that was not meant."""
    own = None
    if connection.scalar(sa.text("SELECT to_regclass('artifact_root') IS NOT NULL")):
        own = connection.scalar(sa.text("SELECT root_id::text FROM artifact_root"))
    holds_assets = connection.scalar(
        sa.text("SELECT to_regclass('dim_assets') IS NOT NULL")
    ) and connection.scalar(sa.text("SELECT EXISTS (SELECT FROM dim_assets)"))
    if holds_assets and not replace:
        raise BackupRefused(
            f"{where} holds a store; restore into an empty database, or drop what it holds with"
            " --replace"
        )
    there = artifacts.root_id()
    if there in (None, own):
        return
    if there != manifest.root_id:
        raise BackupRefused(
            f"{artifacts.where} holds the artifacts of another store; set BACKTEST_ARTIFACTS_URL to"
            " a new folder"
        )
    if not replace:
        raise BackupRefused(
            f"{artifacts.where} holds the artifacts of the store that was backed up; give --replace"
            " if its database is gone, or set BACKTEST_ARTIFACTS_URL to a new folder"
        )
