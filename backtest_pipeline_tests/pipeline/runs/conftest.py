"""A store for retention."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.conftest import database_like


@pytest.fixture(scope="module")
def shared(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A store that each test clears and fills."""
    for database in database_like(template, "backtest"):
        yield Workspace(database, ArtifactStore(tmp_path_factory.mktemp("shared")))
