"""What a refresh in the threads of one process leaves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import Contents, contents, refresh
from backtest_pipeline_tests.pipeline.pools.universes import EARLIER, PARTITIONS, UNIVERSE


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts this process, also where a shell has started it in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def inline(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contents]:
    """The universe as it was earlier, and then what was added to it."""
    root: Path = tmp_path_factory.mktemp("inline")
    for database in database_like(template, "backtest"):
        workspace = Workspace(database, ArtifactStore(root))
        for source in (EARLIER, UNIVERSE):
            refresh(workspace, source, PARTITIONS)
        yield contents(workspace)
