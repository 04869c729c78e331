"""Stores that are about to be disturbed, and what they must come to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.postgres.embedded import embedded_server
from backtest_pipeline.storage.postgres.migrations import migrate
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.chaos.harness import MARKETS, Judge, undisturbed
from backtest_pipeline_tests.chaos.servers import Server
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.conftest import fresh_store

__all__ = ["fresh_store", "judge"]


@pytest.fixture(scope="session")
def judge(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """What undisturbed refreshes of each market leave."""
    with ExitStack() as stack:
        found = []
        for source in MARKETS:
            database = stack.enter_context(contextmanager(database_like)(template, "backtest"))
            root = tmp_path_factory.mktemp("undisturbed")
            found.append(undisturbed(Workspace(database, ArtifactStore(root)), source))
        yield Judge(tuple(found))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    home = Path(tempfile.mkdtemp(prefix="btp-"))
    home.chmod(0o755)
    database = open_database(load_settings(run_store_mode="embedded", home=home))
    migrate(database)
    yield Server(home, Workspace(database, ArtifactStore(tmp_path / "artifacts")))
    database.close()
    embedded_server(home).release()
    shutil.rmtree(home)
