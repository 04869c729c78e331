"""More stores to refresh into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import Contents, contents, refresh, whole


@pytest.fixture
def fresh_store(template: Database, tmp_path: Path) -> Iterator[Callable[[], Workspace]]:
    """Makes further empty stores."""
    with ExitStack() as stack:

        def make() -> Workspace:
            database = stack.enter_context(contextmanager(database_like)(template, "backtest"))
            return Workspace(database, ArtifactStore(tmp_path / database.where.rpartition("/")[2]))

        yield make


@pytest.fixture(scope="session")
def undisturbed(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contents]:
    """What one full refresh of the whole sample source leaves in a fresh store."""
    for database in database_like(template, "backtest"):
        store = Workspace(database, ArtifactStore(tmp_path_factory.mktemp("undisturbed")))
        refresh(store, whole())
        yield contents(store)
