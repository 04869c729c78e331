"""vectorbt is asked about what is stored, and notices what is wrong with it."""

from __future__ import annotations

import dagster as dg

from backtest_pipeline.defs.resources import SimulationResource
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.defs.running import rectangle, require_success, run_job
from backtest_pipeline_tests.sql import execute_sql

STOPS = SimulationResource(stops="stop_loss=0.08,trailing_atr=3,max_bars=40")


def opinion(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    run = run_job(instance, "second_opinion", {})
    require_success(run)
    (evaluation,) = run.get_asset_check_evaluations()
    return evaluation


def test_vectorbt_is_given_each_new_run_once_and_names_one_that_was_changed(
    store: Database, instance: dg.DagsterInstance
) -> None:
    refreshed = run_job(instance, "refresh", rectangle("S-ALPHA|1D", "S-BETA|2D"), simulation=STOPS)
    require_success(refreshed)
    assert "second_opinion" not in {e.check_name for e in refreshed.get_asset_check_evaluations()}
    execute_sql(
        store,
        """
                UPDATE backtest_metrics m SET total_return = total_return + 1e-6
                FROM backtest_runs r WHERE r.run_id = m.run_id
                AND r.symbol = 'S-BETA' AND r.tf = '2D' AND r.signal_name = 'ema_9_21'
            """,
    )
    changed = opinion(instance)
    assert not changed.passed
    assert changed.metadata["disagreeing"].value == ["ema_9_21 on S-BETA|2D"]
    runs = changed.metadata["new_runs"].value
    assert isinstance(runs, int)
    assert runs > 12
    again = opinion(instance)
    assert not again.passed
    assert again.metadata["new_runs"].value == 1
    execute_sql(
        store,
        "UPDATE backtest_metrics SET total_return = total_return - 1e-6"
        " WHERE run_id IN (SELECT run_id FROM engine_checks WHERE verdict = 'differs')",
    )
    assert opinion(instance).passed
