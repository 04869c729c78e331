"""vectorbt is asked about what is stored, and notices what is wrong with it."""

from __future__ import annotations

import dagster as dg

from backtest_pipeline.defs.resources import SimulationResource
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.defs.running import rectangle, require_success, run_job
from backtest_pipeline_tests.sql import execute_sql

STOPS = SimulationResource(stops="stop_loss=0.08,trailing_atr=3,max_bars=40")


def opinion(
    instance: dg.DagsterInstance, simulation: SimulationResource
) -> dg.AssetCheckEvaluation:
    run = run_job(instance, "second_opinion", {}, simulation=simulation)
    require_success(run)
    (evaluation,) = run.get_asset_check_evaluations()
    return evaluation


def test_vectorbt_agrees_with_what_is_stored_and_names_a_run_that_was_changed(
    store: Database, instance: dg.DagsterInstance
) -> None:
    refreshed = run_job(instance, "refresh", rectangle("S-ALPHA|1D", "S-BETA|2D"), simulation=STOPS)
    require_success(refreshed)
    assert "second_opinion" not in {e.check_name for e in refreshed.get_asset_check_evaluations()}
    agreed = opinion(instance, STOPS)
    assert agreed.passed
    assert agreed.metadata["partitions"].value == 4
    runs = agreed.metadata["runs"].value
    assert isinstance(runs, int)
    assert runs > 12
    execute_sql(
        store,
        """
                UPDATE backtest_metrics m SET total_return = total_return + 1e-6
                FROM backtest_runs r WHERE r.run_id = m.run_id
                AND r.symbol = 'S-BETA' AND r.tf = '2D' AND r.signal_name = 'ema_9_21'
            """,
    )
    changed = opinion(instance, STOPS)
    assert not changed.passed
    assert changed.metadata["disagreeing"].value == ["ema_9_21 on S-BETA|2D"]
