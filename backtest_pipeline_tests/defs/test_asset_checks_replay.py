"""The check `replay` proves a sample of the stored runs, and sets apart what it cannot prove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from backtest_pipeline.defs.stored_events import observations
from backtest_pipeline.pipeline.versions import run_code
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.defs.running import rectangle, require_success, run_job
from backtest_pipeline_tests.pipeline.versions import NO_LONGS, other_version
from backtest_pipeline_tests.sql import count, execute_sql

ALPHA = rectangle("S-ALPHA|1D", "S-ALPHA|1D")


def test_a_run_fails_the_check_that_was_changed_or_that_todays_code_changes(
    store: Database, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    refreshed = run_job(instance, "refresh", ALPHA)
    require_success(refreshed)
    assert "replay" not in {e.check_name for e in refreshed.get_asset_check_evaluations()}
    # A row of its trades is edited, until it is mended.
    change = "UPDATE backtest_trades SET bars_held = bars_held {} 1 WHERE trade_no = 1"
    execute_sql(store, change.format("+"))
    passed, found = replayed(instance)
    assert not passed
    assert found["seed"] > 700_000
    assert found["differs"] == len(found["unproven"]) == found["runs"] == 6
    assert all("bars_held" in line for line in found["unproven"])
    summary = run_job(instance, "refresh", ALPHA)
    (observed,) = observations(instance, summary.run_id, "backtests")
    assert observed["runs_in_quarantine"].value == 6
    execute_sql(store, change.format("-"))
    # Another strategy of the same name is declared to be another, by its hash.
    workspace = Workspace(store, ArtifactStore(tmp_path / "artifacts"))
    moved = other_version(workspace.artifacts, NO_LONGS).run(workspace)
    passed, found = replayed(instance)
    assert passed
    assert (found["runs"], found["same"], found["unproven"]) == (7, 7, [])
    assert len(found["quarantine_lifted"]) == 6
    assert (found["runs_on_todays_code"], found["undeclared_changes"]) == (0, [])
    # Were it not, today's code would change the run and declare nothing.
    execute_sql(
        store,
        "UPDATE backtest_runs SET code_version = :code WHERE run_id = :run_id",
        code=run_code("ema_crossover"),
        run_id=moved,
    )
    passed, found = replayed(instance)
    assert not passed
    (line,) = found["undeclared_changes"]
    assert f"run {moved}: the fingerprint differs" in line
    assert "Raise ENGINE_VERSION" in line
    assert (found["unproven"], found["runs_on_todays_code"]) == ([], 1)
    assert count(store, "quarantined_runs") == 0


def replayed(instance: dg.DagsterInstance) -> tuple[bool, dict[str, Any]]:
    run = run_job(instance, "replay", {})
    require_success(run)
    (evaluation,) = run.get_asset_check_evaluations()
    return evaluation.passed, {name: value.value for name, value in evaluation.metadata.items()}
