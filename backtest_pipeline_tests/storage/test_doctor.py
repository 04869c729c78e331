from __future__ import annotations

from pathlib import Path

import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.storage.doctor import Finding, examine, examine_deeply, free_space
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import Settings, load_settings
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.sql import distinct, execute_sql


def findings(settings: Settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(lambda: settings)}


def settings_for(database: Database, artifacts: Path) -> Settings:
    return load_settings(
        run_store_mode="postgres",
        postgres_dsn=database.conninfo,
        artifacts_url=str(artifacts),
    )


def test_a_sound_store_has_nothing_to_mend(database: Database, tmp_path: Path) -> None:
    found = findings(settings_for(database, tmp_path / "artifacts"))
    assert [name for name, finding in found.items() if not finding.ok] == []
    assert list(found) == [
        *("variables", "settings"),
        *("database", "server version", "schema", "dagster storage", "dagster runs"),
        "second opinion",
        *("artifacts", "artifact root", "disk space"),
    ]
    assert "PostgreSQL 18" in found["server version"].detail


def test_the_artifacts_of_another_store_are_told(database: Database, tmp_path: Path) -> None:
    settings = settings_for(database, tmp_path)
    with open_workspace(settings):
        pass
    (tmp_path / "store-id").write_text("other\n")
    finding = findings(settings)["artifact root"]
    assert not finding.ok
    assert "holds the artifacts of another store" in finding.detail
    assert "set BACKTEST_ARTIFACTS_URL to the artifacts of this database" in finding.fix


def test_each_artifact_is_compared_with_its_hash_and_the_inputs_of_runs_are_looked_for(
    workspace: Workspace,
) -> None:
    source = StaticSource({"1D": daily_panel({"A": 150})})
    refresh(workspace, source, [Partition("A", "1D")])
    settings = settings_for(workspace.database, workspace.artifacts.root)
    finding, inputs = examine_deeply(settings)
    assert finding.ok
    assert inputs.ok
    assert "artifacts match their hashes" in finding.detail
    uris = distinct(workspace, "SELECT artifact_uri FROM backtest_runs")
    damaged = workspace.artifacts.root / uris.pop() / "equity.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    execute_sql(workspace, "DELETE FROM dataset_snapshots WHERE dataset = 'features'")
    finding, inputs = examine_deeply(settings)
    assert not finding.ok
    assert (
        f"not there, or not as they were written: runs/1D/{damaged.parent.name}" in finding.detail
    )
    assert "restore a backup" in finding.fix
    assert not inputs.ok
    (run, *_) = sorted(distinct(workspace, "SELECT run_id FROM backtest_runs"))
    assert (
        f"runs cannot be replayed, as rows that they read are not stored: run {run} (A|1D), "
        in (inputs.detail)
    )
    assert "--full-rebuild" in inputs.fix


def test_an_unmigrated_store_is_told_to_migrate(empty_database: Database, tmp_path: Path) -> None:
    found = findings(settings_for(empty_database, tmp_path))
    assert not found["schema"].ok
    assert found["schema"].fix == "run `backtest-pipeline migrate`"
    assert not found["dagster storage"].ok
    assert found["dagster storage"].fix == "run `backtest-pipeline migrate`"


def test_a_store_that_does_not_answer_still_has_its_folder_examined(tmp_path: Path) -> None:
    settings = load_settings(
        run_store_mode="postgres",
        postgres_dsn="postgresql://u:hunter2@127.0.0.1:1/prices",
        artifacts_url=str(tmp_path),
    )
    found = findings(settings)
    assert not found["database"].ok
    assert found["artifacts"].ok
    assert "schema" not in found
    assert "hunter2" not in str(found)


def test_with_bad_settings_nothing_else_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "mysql")
    variables, settings = examine()
    assert variables.ok
    assert not settings.ok
    assert "BACKTEST_RUN_STORE_MODE" in settings.detail


def test_a_folder_that_cannot_hold_artifacts_is_told_how_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/artifacts")):
        settings = load_settings(home=tmp_path / "file" / "home", artifacts_url=str(folder))
        found = findings(settings)["artifacts"]
        assert not found.ok
        assert f"the artifact folder {folder} is not writable" in found.detail
        assert "set BACKTEST_ARTIFACTS_URL to another folder" in found.fix


def test_examining_the_folder_leaves_nothing_in_it(database: Database, tmp_path: Path) -> None:
    assert findings(settings_for(database, tmp_path))["artifacts"].ok
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    assert free_space(tmp_path / "not" / "there", least_gb=0).ok
    assert not free_space(tmp_path, least_gb=1e9).ok
