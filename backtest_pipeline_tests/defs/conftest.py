"""Code locations on databases of their own, and an instance to run them on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.defs_state.base import set_defs_state_storage

from backtest_pipeline.defs.partitions import register_partitions
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.defs.revisions import read_once
from backtest_pipeline_tests.pipeline.conftest import copied
from backtest_pipeline_tests.pipeline.markets import refresh

ASSETS = ("S-ALPHA", "S-BETA", "S-GAMMA")


@pytest.fixture(scope="session", autouse=True)
def revisions_read_once() -> Iterator[None]:
    with read_once():
        yield


@pytest.fixture(autouse=True)
def no_instance_of_an_earlier_test() -> Iterator[None]:
    """Dagster keeps, for the whole process, the storage of an instance that may be gone by now."""
    with set_defs_state_storage(None):
        yield


@pytest.fixture
def store(database: Database, tmp_path: Path) -> Iterator[Database]:
    """The database, as the environment of a Dagster process names it."""
    with named(database, tmp_path / "artifacts"):
        yield database


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        register_partitions(instance, ASSETS)
        yield instance


Stored = tuple[str, Path]
"""Name of a database, and the artifacts that belong to it."""


@pytest.fixture(scope="session")
def one_once(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """What a refresh of S-ALPHA|1D leaves."""
    partitions = [Partition("S-ALPHA", "1D")]
    yield from refreshed_once(template, tmp_path_factory.mktemp("one"), partitions)


@pytest.fixture
def one_store(template: Database, one_once: Stored, tmp_path: Path) -> Iterator[Database]:
    """`store` after a refresh of S-ALPHA|1D, of which Dagster has not heard."""
    yield from copy_of(template, one_once, tmp_path / "artifacts")


@pytest.fixture(scope="session")
def four_once(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """What a refresh of S-ALPHA and S-BETA by one and by two days leaves."""
    partitions = [Partition(asset, tf) for asset in ASSETS[:2] for tf in ("1D", "2D")]
    yield from refreshed_once(template, tmp_path_factory.mktemp("four"), partitions)


@pytest.fixture
def four_store(template: Database, four_once: Stored, tmp_path: Path) -> Iterator[Database]:
    """`store` after a refresh of S-ALPHA|1D...S-BETA|2D, of which Dagster has not heard."""
    yield from copy_of(template, four_once, tmp_path / "artifacts")


def refreshed_once(
    template: Database, artifacts: Path, partitions: Sequence[Partition]
) -> Iterator[Stored]:
    """A store to copy, made without Dagster in a tenth of the time."""
    for database in database_like(template, "backtest"):
        refresh(Workspace(database, ArtifactStore(artifacts)), SampleMarket(), partitions)
        database.close()
        yield database.where.rpartition("/")[2], artifacts


def copy_of(template: Database, stored: Stored, artifacts: Path) -> Iterator[Database]:
    """A copy of a store, as the environment of a Dagster process names it."""
    for workspace in copied(template, *stored, artifacts):
        with named(workspace.database, artifacts):
            yield workspace.database


@contextmanager
def named(database: Database, artifacts: Path) -> Iterator[None]:
    """The environment of a Dagster process names this store."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
        environment.setenv("BACKTEST_POSTGRES_DSN", database.conninfo)
        environment.setenv("BACKTEST_ARTIFACTS_URL", str(artifacts))
        environment.delenv("BACKTEST_BARS", raising=False)
        yield
