"""Writes a backup: rows and files of one moment, in one file."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa

from backtest_pipeline.storage.artifact_root import require_own_root
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.backup import table_copies
from backtest_pipeline.storage.backup.archive import (
    ARTIFACTS,
    MANIFEST,
    ArchiveWriter,
    BackupManifest,
    writing_archive,
)
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.migrations import schema_files
from backtest_pipeline.storage.postgres.removals import block_removals
from backtest_pipeline.storage.run_tables.retention import stored_by_rows

_IN_MEMORY = 64 * 2**20
# A backup of a large store takes longer than any other transaction may.
_UNLIMITED = (
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
)


@dataclass(frozen=True)
class BackupReport:
    """What was backed up; `unsound` names artifacts that were missing or damaged."""

    path: Path
    bytes: int
    tables: int
    artifacts: int
    unsound: tuple[str, ...]


def back_up(database: Database, artifacts: ArtifactStore, path: Path) -> BackupReport:
    """Write a store into a file: all tables as of one moment, and the artifacts that they name.

    Others may go on writing; retention waits until it is done. A kill leaves no file of that name.

    Raises:
        BackupRefused: where the file exists or cannot be written.
        OtherArtifactRoot: where these are not the artifacts of this database.
    """
    require_own_root(database, artifacts)
    with database.begin() as keeping:
        # Before the snapshot: files that it names must not be removed until they are copied.
        without_limits(keeping)
        block_removals(keeping)
        with (
            database.begin() as connection,
            writing_archive(path) as archive,
        ):
            connection.execute(
                sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            )
            without_limits(connection)
            manifest = _written(connection, artifacts, archive)
            archive.add(MANIFEST, io.BytesIO(manifest.as_json()))
    names = manifest.members
    n_artifacts = sum(name.startswith(ARTIFACTS) for name in names)
    return BackupReport(
        path,
        path.stat().st_size,
        len(manifest.columns),
        n_artifacts,
        tuple(manifest.unsound),
    )


def without_limits(connection: sa.Connection) -> None:
    """Let this transaction take as long as it takes."""
    for statement in _UNLIMITED:
        connection.execute(sa.text(statement))


def _written(
    connection: sa.Connection, artifacts: ArtifactStore, archive: ArchiveWriter
) -> BackupManifest:
    files = schema_files()
    applied = connection.execute(
        sa.text("SELECT name, sha256 FROM schema_migrations ORDER BY applied_at, name")
    )
    root_id = connection.scalar(sa.text("SELECT root_id::text FROM artifact_root"))
    schema = [(row.name, row.sha256) for row in applied]
    unsound = []
    for uri in sorted(stored_by_rows(connection)):
        names = artifacts.sound_files(uri)
        if not names:
            unsound.append(uri)
        for name in names:
            archive.add(f"{ARTIFACTS}{name}", io.BytesIO(artifacts.read_raw(name)))
    ours = table_copies.our_tables(connection, files)
    of_dagster = table_copies.dagster_tables(connection)
    for table in (*ours, *of_dagster):
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as rows:
            table_copies.copy_out(connection, table, rows)
            archive.add(table_copies.member_of(table), rows)
    return BackupManifest(
        version=version("backtest-pipeline"),
        created_at=datetime.now(UTC),
        root_id=str(root_id),
        schema=schema,
        columns={
            table_copies.member_of(table): table_copies.columns_of(table)
            for table in (*ours, *of_dagster)
        },
        sequences=table_copies.sequence_values(connection, files),
        dagster_ddl=table_copies.statements_that_create(of_dagster, connection),
        unsound=unsound,
        members=archive.members,
    )
