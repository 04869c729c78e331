"""The check `replay` proves a sample of the stored runs, and sets apart what it cannot prove."""

from __future__ import annotations

from typing import Any

import dagster as dg
import sqlalchemy as sa

from backtest_pipeline.storage.database import Database
from backtest_pipeline_tests.defs.test_runs import execute, rectangle, require_success


def replayed(instance: dg.DagsterInstance) -> tuple[bool, dict[str, Any]]:
    run = execute(instance, "replay_runs", {})
    require_success(run)
    (evaluation,) = run.get_asset_check_evaluations()
    return evaluation.passed, {name: value.value for name, value in evaluation.metadata.items()}


def test_a_run_that_was_changed_fails_the_check_until_it_is_mended(
    store: Database, instance: dg.DagsterInstance
) -> None:
    refreshed = execute(instance, "refresh", rectangle("S-ALPHA|1D", "S-BETA|2D"))
    require_success(refreshed)
    assert "replay" not in {e.check_name for e in refreshed.get_asset_check_evaluations()}
    passed, found = replayed(instance)
    assert passed
    assert (found["runs"], found["same"], found["unproven"]) == (20, 20, [])
    assert found["seed"] > 700_000

    change = "UPDATE backtest_trades SET bars_held = bars_held {} 1 WHERE trade_no = 2"
    with store.begin() as connection:
        connection.execute(sa.text(change.format("+")))
    passed, found = replayed(instance)
    assert not passed
    assert found["differs"] == len(found["unproven"]) > 10
    assert all("bars_held" in line for line in found["unproven"])
    summary = execute(instance, "refresh", rectangle("S-ALPHA|1D", "S-BETA|2D"))
    (observed,) = [
        event.asset_observation_data.asset_observation.metadata
        for event in summary.get_asset_observation_events()
        if event.asset_key == dg.AssetKey("backtests")
    ]
    assert observed["runs_in_quarantine"].value == found["differs"]
    with store.begin() as connection:
        connection.execute(sa.text(change.format("-")))
    passed, mended = replayed(instance)
    assert passed
    assert len(mended["quarantine_lifted"]) == found["differs"]
