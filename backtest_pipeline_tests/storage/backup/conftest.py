"""A store with runs of Dagster's, and what a copy of it must be like."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifact_root import bind_root
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.backup.backup import back_up
from backtest_pipeline.storage.backup.restore import restore
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.sql import rows, scalar

SOURCE = StaticSource({"1D": daily_panel({"A": 200, "B": 200})})
PARTITIONS = [Partition("A", "1D"), Partition("B", "2D")]


@dg.asset
def watched() -> dg.MaterializeResult:
    return dg.MaterializeResult(data_version=dg.DataVersion("1"))


@dataclass(frozen=True)
class Filled:
    """A store that tests get copies of: the name of its database, its artifacts, and a backup."""

    database: str
    root: Path
    backup: Path


@pytest.fixture(scope="package")
def original(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A store with two partitions and a run of Dagster's, backed up."""
    folder = tmp_path_factory.mktemp("original")
    for database in database_like(template, "backtest"):
        workspace = Workspace(database, ArtifactStore(folder / "artifacts"))
        bind_root(database, workspace.artifacts)
        refresh(workspace, SOURCE, PARTITIONS)
        with open_instance(load_settings(home=folder / "home"), database) as instance:
            assert dg.materialize([watched], instance=instance).success
        report = back_up(database, workspace.artifacts, folder / "b.tar.zst")
        database.close()
        yield Filled(database.where.rpartition("/")[2], workspace.artifacts.root, report.path)


@pytest.fixture
def filled(original: Filled, template: Database, tmp_path: Path) -> Iterator[Workspace]:
    """That store, with a database and a folder of its own."""
    shutil.copytree(original.root, tmp_path / "artifacts")
    for database in database_like(template, original.database):
        yield Workspace(database, ArtifactStore(tmp_path / "artifacts"))


@pytest.fixture
def backup(original: Filled, tmp_path: Path) -> Path:
    """A copy of its backup."""
    return Path(shutil.copy(original.backup, tmp_path / "b.tar.zst"))


def back_up_in(conninfo: str, root: Path, path: Path) -> None:
    """Back up a store, in a process of its own."""
    back_up(connect_database(conninfo), ArtifactStore(root), path)


def restore_in(conninfo: str, root: Path, path: Path) -> None:
    """Restore a backup, in a process of its own."""
    restore(connect_database(conninfo), ArtifactStore(root), path)


def everything(database: Database) -> dict[str, object]:
    """A hash of each table, and what the database knows of indexes, sequences and triggers."""
    ours = "schemaname IN (current_schema(), 'dagster')"
    tables = rows(database, f"SELECT schemaname AS s, tablename AS t FROM pg_tables WHERE {ours}")
    hashed = "SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {} t"
    names = {f"{row['s']}.{row['t']}" for row in tables}
    # The times of migrations, and the root of the artifacts, are those of each store.
    apart = {"public.schema_migrations", "public.artifact_root"}
    triggers = """
        SELECT tgname, tgenabled::text, tgrelid::regclass::text FROM pg_trigger
        WHERE NOT tgisinternal ORDER BY 1, 3"""
    return {
        **{name: scalar(database, hashed.format(name)) for name in names - apart},
        "indexes": rows(database, f"SELECT indexdef FROM pg_indexes WHERE {ours} ORDER BY 1"),
        "columns": rows(
            database,
            "SELECT table_schema, table_name, column_name, data_type, is_nullable"
            " FROM information_schema.columns WHERE table_schema IN (current_schema(), 'dagster')"
            " ORDER BY 1, 2, 3",
        ),
        "sequences": rows(
            database, f"SELECT sequencename, last_value FROM pg_sequences WHERE {ours} ORDER BY 1"
        ),
        "triggers": rows(database, triggers),
    }
