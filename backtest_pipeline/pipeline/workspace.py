"""Everything a use case needs at hand: the store, the artifacts, how to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from backtest_pipeline.pipeline.stage import Progress, silent
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.external.open_table import open_table
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.postgres.migrations import check
from backtest_pipeline.storage.settings import Settings, load_settings

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Workspace:
    """An open store.

    Attributes:
        database: migrated.
        artifacts: writable.
        workers: batches under way at once.
        progress: told how far a stage is.
        external: the user's own table of features; None where they are built here.
    """

    database: Database
    artifacts: ArtifactStore
    workers: int = 2
    progress: Progress = silent
    external: FeatureTable | None = None

    @property
    def price_dataset(self) -> str:
        """The dataset that all bars are in, whichever way they came."""
        return "bars" if self.external is None else "features"


def retried(
    use_case: Callable[Concatenate[Workspace, P], R],
) -> Callable[Concatenate[Workspace, P], R]:
    """Have a use case done again where the database goes away in the middle of it.

    For those that come to the same however often they are done: what they store is named by its
    content, and each transaction puts it in the place of what is there.
    """

    @wraps(use_case)
    def done(workspace: Workspace, *args: P.args, **kwargs: P.kwargs) -> R:
        return workspace.database.retrying(
            use_case.__name__, lambda: use_case(workspace, *args, **kwargs)
        )

    return done


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
        yield Workspace(database, artifacts, progress=progress, external=external)
