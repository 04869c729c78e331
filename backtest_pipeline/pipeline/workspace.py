"""Everything a use case needs at hand: the store, the artifacts, how to work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backtest_pipeline.pipeline.batches import Progress, silent
from backtest_pipeline.storage.artifacts import ArtifactStore
from backtest_pipeline.storage.database import Database, open_database
from backtest_pipeline.storage.migrations import check
from backtest_pipeline.storage.settings import Settings, load_settings


@dataclass(frozen=True)
class Workspace:
    """An open store.

    Attributes:
        database: migrated.
        artifacts: writable.
        workers: blocks under way at once.
        progress: told how far a stage is.
    """

    database: Database
    artifacts: ArtifactStore
    workers: int = 2
    progress: Progress = silent


@contextmanager
def open_workspace(
    settings: Settings | None = None, *, progress: Progress = silent
) -> Iterator[Workspace]:
    """The store that the environment names, checked before anything is computed.

    Raises:
        ConfigurationError, StoreUnavailable, SchemaNotMigrated, ArtifactError: each saying what
            to do.
    """
    settings = settings or load_settings()
    database = open_database(settings)
    try:
        check(database)
        artifacts = ArtifactStore(settings.artifacts_folder)
        artifacts.require_writable()
        artifacts.sweep()
        yield Workspace(database, artifacts, progress=progress)
    finally:
        database.close()
