"""The workspace of a use case: database, artifacts, workers and progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from threading import Event
from typing import Concatenate, ParamSpec, TypeVar

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.pipeline.pools.configured_pool import pool_of
from backtest_pipeline.pipeline.pools.work_pool import HERE, WorkPool
from backtest_pipeline.pipeline.stage import Progress, silent
from backtest_pipeline.storage.artifact_root import bind_root
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.external.open_table import open_table
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.postgres.migrations import ensure
from backtest_pipeline.storage.postgres.removals import nobody_writing
from backtest_pipeline.storage.postgres.retry import Retry
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
        pool: where batches are computed.
        progress: called as stages advance.
        external: the external feature table; None where features are built from bars.
        columns_folder: folder of files with columns of the user's own; None for none.
        given_up: set when what is done with this workspace is not wanted any more.
    """

    database: Database
    artifacts: ArtifactStore
    pool: WorkPool = HERE
    progress: Progress = silent
    external: FeatureTable | None = None
    columns_folder: Path | None = None
    given_up: Event = field(default_factory=Event, repr=False, compare=False)

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
    """Take up the user's own strategies as they are now, by default of the environment's folder.

    Raises:
        ConfigurationError: for a folder that is configured and does not exist.
    """
    settings = settings or load_settings()
    if settings.strategies is not None and not settings.strategies.exists():
        raise ConfigurationError(
            f"BACKTEST_STRATEGIES is {settings.strategies}, which does not exist; create the "
            "folder, or correct the setting"
        )
    use_folder(
        settings.strategies_folder,
        trust=settings.strategies_trust,
        tried=settings.home / "cache" / "strategies",
    )
    look_again()


@contextmanager
def open_workspace(
    settings: Settings | None = None, *, progress: Progress = silent, retry_s: float = 0
) -> Iterator[Workspace]:
    """Open and check the store that the settings configure, by default those of the environment.

    Args:
        settings: the settings.
        progress: called as stages advance.
        retry_s: seconds to wait for an unavailable database; for work that has already begun.

    Raises:
        ConfigurationError, StoreUnavailable, SchemaNotMigrated, ArtifactError: each with what to
            do about it.
    """
    settings = settings or load_settings()
    use_strategies(settings)
    with ExitStack() as opened:

        def open_all() -> Workspace:
            opened.close()  # what an attempt before this one has opened
            return _opened(settings, progress, opened)

        yield Retry(retry_s).outlast("opening the store", open_all, lambda: None)


def _opened(settings: Settings, progress: Progress, opened: ExitStack) -> Workspace:
    database = open_database(settings)
    opened.callback(database.close)
    ensure(database, embedded=settings.run_store_mode == "embedded")
    artifacts = ArtifactStore.of(settings)
    artifacts.require_writable()
    bind_root(database, artifacts)
    artifacts.sweep(partial(nobody_writing, database))
    external = None
    if settings.external is not None:
        external = open_table(settings, database)
        opened.callback(external.close)
    pool = pool_of(settings, artifacts.root_id)
    opened.callback(pool.close)
    return Workspace(
        database,
        artifacts,
        pool=pool,
        progress=progress,
        external=external,
        columns_folder=settings.columns_folder,
    )
