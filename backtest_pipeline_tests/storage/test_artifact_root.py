"""A database and its artifact root know each other, so that no process mixes two stores."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backtest_pipeline.market.errors import OtherArtifactRoot
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.storage.artifact_root import bind_root, require_own_root
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.sql import execute_sql, scalar


@pytest.fixture(params=["disk", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An empty root, on a disk or in a bucket."""
    bucket = request.getfixturevalue("s3") if request.param == "s3" else ""
    return ArtifactStore(tmp_path / "first", bucket)


def test_the_first_root_is_the_store_s_and_another_is_refused(
    database: Database, artifacts: ArtifactStore, tmp_path: Path
) -> None:
    assert not require_own_root(database, artifacts)
    bind_root(database, artifacts)
    assert require_own_root(database, artifacts)
    bind_root(database, artifacts)  # from now on, only a look
    other = ArtifactStore(tmp_path / "other")
    with pytest.raises(OtherArtifactRoot, match="does not hold the artifacts of") as refused:
        bind_root(database, other)
    assert f"were at {artifacts.where} when" in str(refused.value)
    assert other.root_id() is None


def test_a_root_that_was_moved_is_the_same_root(database: Database, tmp_path: Path) -> None:
    bind_root(database, ArtifactStore(tmp_path / "first"))
    shutil.move(tmp_path / "first", tmp_path / "moved")
    assert require_own_root(database, ArtifactStore(tmp_path / "moved"))


def test_a_root_of_another_database_is_refused(database: Database, tmp_path: Path) -> None:
    root = ArtifactStore(tmp_path)
    root.write_root_id("6f9b6d4e-6c7e-4d39-8a3e-3d1f3f1c0e11")
    with pytest.raises(OtherArtifactRoot, match="holds the artifacts of another store"):
        bind_root(database, root)
    assert scalar(database, "SELECT bound_at FROM artifact_root") is None


def test_a_kill_between_the_file_and_the_row_is_mended_by_the_next_process(
    database: Database, tmp_path: Path
) -> None:
    root = ArtifactStore(tmp_path)
    bind_root(database, root)
    execute_sql(database, "UPDATE artifact_root SET bound_at = NULL, place = NULL")
    bind_root(database, root)
    assert scalar(database, "SELECT place FROM artifact_root") == str(tmp_path)


def test_of_two_roots_at_once_one_is_bound(database: Database, tmp_path: Path) -> None:
    roots = [ArtifactStore(tmp_path / str(n)) for n in range(4)]

    def bound(root: ArtifactStore) -> bool:
        try:
            bind_root(database, root)
        except OtherArtifactRoot:
            return False
        return True

    with ThreadPoolExecutor(len(roots)) as pool:
        assert sum(pool.map(bound, roots)) == 1
    assert sum(root.root_id() is not None for root in roots) == 1


def test_a_process_with_another_root_writes_nothing(database: Database, tmp_path: Path) -> None:
    def settings(folder: str) -> dict[str, object]:
        place = str(tmp_path / folder)
        return {
            "run_store_mode": "postgres",
            "postgres_dsn": database.conninfo,
            "artifacts_url": place,
        }

    with open_workspace(load_settings(**settings("own"))):
        pass
    with (
        pytest.raises(OtherArtifactRoot),
        open_workspace(load_settings(**settings("other"))),
    ):
        pass
    assert list((tmp_path / "other").iterdir()) == []


def test_a_store_from_before_the_ids_is_bound_to_the_root_that_has_its_files(
    workspace: Workspace, tmp_path: Path
) -> None:
    source = StaticSource({"1D": daily_panel({"A": 150})})
    refresh(workspace, source, [Partition("A", "1D")])
    with pytest.raises(OtherArtifactRoot, match="does not hold"):
        bind_root(workspace.database, ArtifactStore(tmp_path / "empty"))
    bind_root(workspace.database, workspace.artifacts)
    assert require_own_root(workspace.database, workspace.artifacts)
