"""More stores to refresh into."""

from __future__ import annotations

import shutil
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
def refreshed_once(
    template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Name of a database and artifacts that one full refresh of the whole sample source leaves."""
    root = tmp_path_factory.mktemp("refreshed")
    for database in database_like(template, "backtest"):
        refresh(Workspace(database, ArtifactStore(root)), whole())
        database.close()
        yield database.where.rpartition("/")[2], root


@pytest.fixture
def refreshed(
    template: Database, refreshed_once: tuple[str, Path], tmp_path: Path
) -> Iterator[Workspace]:
    """That store, with a database and a folder of its own."""
    yield from copied(template, *refreshed_once, tmp_path / "artifacts")


@pytest.fixture(scope="session")
def undisturbed(template: Database, refreshed_once: tuple[str, Path]) -> Iterator[Contents]:
    """What that store holds."""
    name, root = refreshed_once
    for database in database_like(template, name):
        yield contents(Workspace(database, ArtifactStore(root)))


def copied(template: Database, name: str, artifacts: Path, folder: Path) -> Iterator[Workspace]:
    """A store of its own with the contents of a database and of a folder of artifacts."""
    shutil.copytree(artifacts, folder)
    for database in database_like(template, name):
        yield Workspace(database, ArtifactStore(folder))
