"""A store with bars up to five days before their end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.pipeline.planning.stores import a_copy, a_refreshed_store


@pytest.fixture(scope="session")
def refreshed_store(
    template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    yield from a_refreshed_store(template, tmp_path_factory.mktemp("planned"))


@pytest.fixture
def store(refreshed_store: Workspace) -> Iterator[Workspace]:
    """A copy of it."""
    yield from a_copy(refreshed_store)
