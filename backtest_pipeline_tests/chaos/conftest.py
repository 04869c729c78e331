"""Stores that are about to be disturbed, and what they must come to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.chaos.harness import MARKETS, Judge, undisturbed
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
