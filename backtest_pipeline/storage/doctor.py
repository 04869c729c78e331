"""The checks of `backtest-pipeline doctor`: each part of the store, and how to fix it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from pydantic_settings import BaseSettings

from backtest_pipeline.market.errors import ArtifactCorrupt, BacktestError, StoreError
from backtest_pipeline.storage.artifact_root import require_own_root
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.dagster_run_leases import expired_leases
from backtest_pipeline.storage.external.open_table import open_table
from backtest_pipeline.storage.external.overview import describe_columns, describe_rows
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.postgres.database import DAGSTER_SCHEMA, Database, open_database
from backtest_pipeline.storage.postgres.migrations import check, schema_files
from backtest_pipeline.storage.run_tables.engine_checks import engine_agreement
from backtest_pipeline.storage.run_tables.recorded_runs import lost_inputs
from backtest_pipeline.storage.run_tables.retention import stored_by_rows
from backtest_pipeline.storage.settings import (
    PREFIX,
    Settings,
    load_settings,
    read_settings,
    unread_variables,
)

_LEAST_FREE_GB = 2.0
_LEAST_VERSION = 15
_MOST_NAMED = 5
_T = TypeVar("_T")


@dataclass(frozen=True)
class Finding:
    """The result of one check; `fix` says what to do if it is not `ok`."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def examine(
    settings: Callable[[], Settings] = load_settings,
    others: Mapping[str, type[BaseSettings]] | None = None,
) -> Iterator[Finding]:
    """Check variables, settings, database, schema, Dagster's storage, artifacts and disk space.

    Each finding is yielded as soon as it is known. Checks that depend on a failed one are skipped.

    Args:
        settings: function that reads the settings of the store.
        others: further settings classes that are read from the environment, by name.
    """
    others = others or {}
    yield from _variables(others)
    chosen, finding = _attempt("settings", settings, lambda s: f"store {s.run_store_mode}")
    yield finding
    for name, kind in others.items():
        yield _attempt(name, partial(read_settings, kind), lambda _: "valid")[1]
    if chosen is None:
        return
    schema = None
    database, finding = _attempt("database", lambda: open_database(chosen), lambda d: d.where)
    yield finding
    if database is not None:
        yield _look("server version", lambda: _server_version(database))
        schema = _look("schema", lambda: _schema(database))
        yield schema
        yield _look("dagster storage", lambda: _dagster_storage(database))
        if schema.ok:
            yield _look("dagster runs", lambda: _dagster_runs(database))
            yield _look("second opinion", lambda: _second_opinion(database))
        if chosen.external is not None:
            yield from _features(chosen, database)
    artifacts, finding = _attempt("artifacts", lambda: _artifacts(chosen), _is_writable)
    yield finding
    if database is not None:
        if artifacts is not None and schema is not None and schema.ok:
            yield _look("artifact root", lambda: _artifact_root(database, artifacts))
        database.close()
    yield free_space(chosen.artifacts_folder)


def examine_deeply(settings: Settings) -> Iterator[Finding]:
    """Check the contents of a store that `examine` found sound; reads every artifact.

    Yields:
        Whether each artifact that a row names is there and matches its hash, and whether the rows
        that each run read are known.
    """
    database = open_database(settings)
    try:
        yield _look("artifact hashes", lambda: _hashes(database, ArtifactStore.of(settings)))
        yield _look("inputs of runs", lambda: _inputs(database))
    finally:
        database.close()


def _hashes(database: Database, artifacts: ArtifactStore) -> str:
    with database.begin() as connection:
        uris = sorted(stored_by_rows(connection))
    unsound = [uri for uri in uris if not artifacts.sound_files(uri)]
    if unsound:
        named = ", ".join(unsound[:_MOST_NAMED])
        more = f" and {len(unsound) - _MOST_NAMED:,} more" if unsound[_MOST_NAMED:] else ""
        raise ArtifactCorrupt(
            f"{len(unsound):,} of {len(uris):,} artifacts in {artifacts.where} are not there, or"
            f" not as they were written: {named}{more}; restore a backup, or compute them again: a"
            " refresh with --full-rebuild, or for runs on demand the same command with it"
        )
    return f"{len(uris):,} artifacts match their hashes"


def _inputs(database: Database) -> str:
    with database.begin() as connection:
        lost = lost_inputs(connection)
    if lost:
        named = [f"run {run_id} ({', '.join(keys)})" for run_id, keys in lost.items()]
        more = f" and {len(named) - _MOST_NAMED:,} more" if named[_MOST_NAMED:] else ""
        raise StoreError(
            f"{len(named):,} runs cannot be replayed, as rows that they read are not stored:"
            f" {', '.join(named[:_MOST_NAMED])}{more}; compute them again: a refresh with"
            " --full-rebuild, or for runs on demand the same command with it"
        )
    return "the rows that each run read are stored"


def _variables(others: Mapping[str, type[BaseSettings]]) -> Iterator[Finding]:
    """A finding for each variable with the prefix that is not a setting."""
    unread = unread_variables(Settings, *others.values())
    for sentence in unread:
        yield Finding("variables", False, sentence, "rename it, or unset it")
    if not unread:
        yield Finding("variables", True, f"all variables that begin with {PREFIX} are settings")


def _features(settings: Settings, store: Database) -> Iterator[Finding]:
    """The external feature table: whether it can be read, and what it contains."""

    def describe(table: FeatureTable) -> str:
        unused = f"; BACKTEST_BARS={settings.bars} is not used" if settings.bars else ""
        return describe_columns(table) + unused

    table, finding = _attempt("features table", lambda: open_table(settings, store), describe)
    yield finding
    if table is not None:
        yield _look("features rows", lambda: describe_rows(table, settings.timeframes))
        table.close()


def _artifacts(settings: Settings) -> ArtifactStore:
    artifacts = ArtifactStore.of(settings)
    artifacts.require_writable()
    return artifacts


def _is_writable(artifacts: ArtifactStore) -> str:
    return f"{artifacts.where} is writable"


def _artifact_root(database: Database, artifacts: ArtifactStore) -> str:
    if require_own_root(database, artifacts):
        return f"{artifacts.where} belongs to {database.where}"
    return f"{artifacts.where} will belong to {database.where} once it is used"


def free_space(folder: Path, least_gb: float = _LEAST_FREE_GB) -> Finding:
    """Whether the disk of this existing or future folder has enough free space."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    return Finding(
        "disk space",
        free_gb >= least_gb,
        f"{free_gb:.1f} GB free at {there}",
        f"free disk space, or set BACKTEST_HOME to a disk with at least {least_gb:.0f} GB free",
    )


def _attempt(
    name: str, action: Callable[[], _T], detail: Callable[[_T], str]
) -> tuple[_T | None, Finding]:
    try:
        result = action()
    except BacktestError as error:
        what, _, fix = str(error).rpartition("; ")
        return None, Finding(name, False, what, fix) if what else Finding(name, False, fix)
    return result, Finding(name, True, detail(result))


def _look(name: str, action: Callable[[], str]) -> Finding:
    return _attempt(name, action, str)[1]


def _server_version(database: Database) -> str:
    with database.begin() as connection:
        version = str(connection.scalar(sa.text("SHOW server_version")))
    if int(version.split(".")[0]) < _LEAST_VERSION:
        raise StoreError(
            f"the server is PostgreSQL {version}, which is too old; use {_LEAST_VERSION} or newer"
        )
    return f"PostgreSQL {version}"


def _schema(database: Database) -> str:
    check(database)
    migrations = [file for file in schema_files() if not file.in_baseline]
    return f"baseline and {len(migrations)} migrations applied"


def _dagster_storage(database: Database) -> str:
    """Connect to Dagster's storage with Dagster's own driver."""
    engine = sa.create_engine(database.dagster_url(), poolclass=sa.NullPool, hide_parameters=True)
    with database.errors(), engine.connect() as connection:
        if connection.scalar(sa.text("SELECT current_schema()")) != DAGSTER_SCHEMA:
            raise StoreError(
                f"no schema {DAGSTER_SCHEMA!r} in {database.where}; run `backtest-pipeline migrate`"
            )
    return f"schema {DAGSTER_SCHEMA!r} in {database.where}"


def _dagster_runs(database: Database) -> str:
    """Whether the process of each run that a command executes in its own process is alive."""
    with database.begin() as connection:
        dead = expired_leases(connection)
    if dead:
        raise StoreError(
            f"{'; '.join(map(str, dead))}; the next `backtest-pipeline refresh`, or `up` within a "
            "minute, marks it failed"
        )
    return "no run of a command is dead"


def _second_opinion(database: Database) -> str:
    """What vectorbt came to of the current runs."""
    with database.begin() as connection:
        found = engine_agreement(connection)
    if found.differs:
        raise StoreError(
            f"{found.told}. Those that differ: {', '.join(found.disagreeing[:_MOST_NAMED])}; look "
            "for rows that were edited with `doctor --deep`, and compute these runs again with "
            "--full-rebuild"
        )
    return found.told
