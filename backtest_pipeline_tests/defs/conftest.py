"""A code location on a database of its own, and an instance to run it on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.defs_state.base import set_defs_state_storage

from backtest_pipeline.defs.partitions import register_partitions
from backtest_pipeline.storage.postgres.database import Database

ASSETS = ("S-ALPHA", "S-BETA", "S-GAMMA")


@pytest.fixture(autouse=True)
def no_instance_of_an_earlier_test() -> Iterator[None]:
    """Dagster keeps, for the whole process, the storage of an instance that may be gone by now."""
    with set_defs_state_storage(None):
        yield


@pytest.fixture
def store(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The database, as the environment of a Dagster process names it."""
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", database.conninfo)
    monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", str(tmp_path / "artifacts"))
    monkeypatch.delenv("BACKTEST_BARS", raising=False)
    return database


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        register_partitions(instance, ASSETS)
        yield instance
