"""The workspace of a use case: database, artifacts, workers and progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from backtest_pipeline.pipeline.stage import Progress, silent
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.external.open_table import open_table
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.postgres.migrations import check
from backtest_pipeline.storage.settings import Settings, load_settings
from backtest_pipeline.strategies.known_strategies import look_again, use_folder

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Workspace:
    """An open store.

    Attributes:
        database: the database, with the current schema.
        artifacts: the artifact store, checked to be writable.
        workers: number of concurrent batches.
        progress: called as stages advance.
        external: the external feature table; None where features are built from bars.
        columns_folder: folder of files with columns of the user's own; None for none.
    """

    database: Database
    artifacts: ArtifactStore
    workers: int = 2
    progress: Progress = silent
    external: FeatureTable | None = None
    columns_folder: Path | None = None

    @property
    def price_dataset(self) -> str:
        """The dataset that holds the bars: `features` with an external table, else `bars`."""
        return "bars" if self.external is None else "features"


def retried(
    use_case: Callable[Concatenate[Workspace, P], R],
) -> Callable[Concatenate[Workspace, P], R]:
    """Decorator that repeats a use case if the database connection is lost in the middle of it.

    For idempotent use cases only: what they store is named by its content, and each transaction
    replaces what is there.
    """

    @wraps(use_case)
    def done(workspace: Workspace, *args: P.args, **kwargs: P.kwargs) -> R:
        return workspace.database.retrying(
            use_case.__name__, lambda: use_case(workspace, *args, **kwargs)
        )

    return done


def use_strategies(settings: Settings | None = None) -> None:
    """Take up the user's own strategies as they are now, by default of the environment's folder."""
    settings = settings or load_settings()
    use_folder(
        settings.strategies_folder,
        trust=settings.strategies_trust,
        tried=settings.home / "cache" / "strategies",
    )
    look_again()


@contextmanager
def open_workspace(
    settings: Settings | None = None, *, progress: Progress = silent
) -> Iterator[Workspace]:
    """Open and check the store that the settings configure, by default those of the environment.

    Raises:
        ConfigurationError, StoreUnavailable, SchemaNotMigrated, ArtifactError: each with what to
            do about it.
    """
    settings = settings or load_settings()
    use_strategies(settings)
    with ExitStack() as opened:
        database = open_database(settings)
        opened.callback(database.close)
        check(database)
        artifacts = ArtifactStore.of(settings)
        artifacts.require_writable()
        artifacts.sweep()
        external = None
        if settings.external is not None:
            external = open_table(settings, database)
            opened.callback(external.close)
        yield Workspace(
            database,
            artifacts,
            progress=progress,
            external=external,
            columns_folder=settings.columns_folder,
        )
