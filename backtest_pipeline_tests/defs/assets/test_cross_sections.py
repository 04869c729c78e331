"""The asset `cross_sections`, in real Dagster runs."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pandas as pd
from sqlalchemy import text

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.table_checks import violations
from backtest_pipeline_tests.defs.running import rectangle, require_success, run_job, told
from backtest_pipeline_tests.own_strategies import own_strategies, write
from backtest_pipeline_tests.sql import column

RULES = """
kind = "cross_section"
name = "strength"
score = "{score}"
count = 1
rebalance = 5
"""
SOUND = {"trades_outside_of_the_universe": 0, "coefficients_out_of_bounds": 0}


def test_each_timeframe_has_a_run_of_each_cross_section(
    store: Database, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    require_success(run_job(instance, "refresh", rectangle("S-ALPHA|1D", "S-BETA|1D")))
    with own_strategies(tmp_path / "own") as folder:
        run = run_job(instance, "cross_sections_job", rectangle("1D", "1D"))
        require_success(run)
        (event,) = told(instance, run, "cross_sections").values()
        assert event.metadata["dagster/row_count"].value == 0
        write(folder, "strength.toml", RULES.format(score="rsi_14"))
        run = run_job(instance, "cross_sections_job", rectangle("1D", "1D"))
        require_success(run)
        (event,) = told(instance, run, "cross_sections").values()
        assert event.metadata["dagster/row_count"].value == 1
        assert event.metadata["cross_sections_computed"].value == 1
        (check,) = run.get_asset_check_evaluations()
        assert (check.check_name, check.passed) == ("grain_and_bounds", True)
        with store.begin() as connection:
            assert violations(connection, "cross_sections") == SOUND
            connection.execute(
                text(
                    "UPDATE backtest_trades SET symbol = 'ELSE' WHERE symbol <> '' AND trade_no = 1"
                )
            )
            broken = {**SOUND, "trades_outside_of_the_universe": 1}
            assert violations(connection, "cross_sections") == broken
        frame = build_definitions().load_asset_value(
            "cross_sections", instance=instance, partition_key="1D"
        )
        assert isinstance(frame, pd.DataFrame)
        assert frame["signal_name"].tolist() == ["strength"]
        assert {"mean_ic", "icir", "sharpe"} <= set(frame)
        flat = RULES.format(score="close / close").replace("strength", "flat")
        write(folder, "flat.toml", flat)
        run = run_job(instance, "cross_sections_job", rectangle("1D", "1D"))
        assert not run.success
        errors = json.dumps([str(e) for e in run.all_events if e.is_step_failure])
        assert "flat: nothing could be ranked" in errors
        (folder / "flat.toml").unlink()
        # A file that cannot be read fails the timeframe by its name; the others are stored.
        write(folder, "broken.toml", flat.replace("flat", "broken") + "conut = 3\n")
        write(folder, "torn.toml", 'kind = "cross_section"\nname = ')
        write(folder, "no_ranking.toml", 'name = "no_ranking"\nsignals = 1\n')
        run = run_job(instance, "cross_sections_job", rectangle("1D", "1D"))
        assert not run.success
        errors = json.dumps([str(e) for e in run.all_events if e.is_step_failure])
        assert "broken.toml:7: conut: unknown key" in errors
        assert "torn.toml" in errors
        assert "no_ranking" not in errors
    ids = column(store, "SELECT signal_name FROM backtest_runs WHERE split = 'cross_section'")
    assert ids == ["strength"]
