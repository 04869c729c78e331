"""Stored walk-forwards: folds survive, nothing is computed twice, every trial is counted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest_pipeline as bp
from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.audits.stored_tables import check_dataset
from backtest_pipeline.pipeline.ranking.leaderboard import publish_leaderboard
from backtest_pipeline.pipeline.runs.blocked_entries import run_blocks
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.runs.query import get_run
from backtest_pipeline.pipeline.stage import Status
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.use_cases.walk_forward import prepare_walk_forward, run_walk_forward
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.schedule import Schedule
from backtest_pipeline.research.validation.walk_forward import FOLD_METRICS
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.pipeline.walking_process import (
    MARKET,
    PARTITIONS,
    WITHOUT_LAST_WEEK,
    searches,
    walk,
)
from backtest_pipeline_tests.sql import execute_sql, rows
from backtest_pipeline_tests.waiting import gate_after

ABC = [Partition(asset, "1D") for asset in "ABC"]
HOUR_US = 3_600_000_000
GRID = {"fast": [5, 9], "slow": [21, 40]}


def folds(workspace: Workspace) -> pd.DataFrame:
    """All folds of current runs, without when they were computed."""
    query = """
        SELECT f.* FROM walk_forward_folds f JOIN backtest_runs r USING (run_id)
        WHERE is_current ORDER BY strategy, symbol, fold
    """
    return pd.DataFrame(rows(workspace, query)).drop(columns=["computed_at", "id", "fold_key"])


def computed(workspace: Workspace) -> dict[str, datetime]:
    found = rows(workspace, "SELECT fold_key, min(computed_at) FROM walk_forward_folds GROUP BY 1")
    return {row["fold_key"]: row["min"] for row in found}


def fingerprints(workspace: Workspace) -> list[dict[str, Any]]:
    query = """
        SELECT run_id, result_fingerprint, efficiency, verdict
        FROM backtest_runs JOIN walk_forward_runs USING (run_id) WHERE is_current ORDER BY 1
    """
    return rows(workspace, query)


def test_a_walk_forward_that_is_killed_goes_on_where_it_stopped(
    workspace: Workspace, fresh_store: Callable[[], Workspace]
) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    with gate_after(workspace.database, "walk_forward_folds", 6) as gate:
        process = searches(workspace)
        gate.hold_up()
        process.kill()
        process.join()
    before = computed(workspace)
    assert 6 <= len(before) < 27
    n_trials = rows(workspace, "SELECT count(*) AS n FROM trials")[0]["n"]
    assert rows(workspace, "SELECT 1 FROM walk_forward_runs") == []

    assert not walk(workspace).failed
    after = computed(workspace)
    assert {key: after[key] for key in before} == before
    assert len(after) > len(before)
    assert rows(workspace, "SELECT count(*) AS n FROM trials")[0]["n"] > n_trials

    undisturbed = fresh_store()
    refresh(undisturbed, MARKET, PARTITIONS)
    walk(undisturbed)
    pd.testing.assert_frame_equal(folds(workspace), folds(undisturbed))
    assert fingerprints(workspace) == fingerprints(undisturbed)


def test_appended_bars_cost_the_new_folds_alone(workspace: Workspace) -> None:
    refresh(workspace, WITHOUT_LAST_WEEK, PARTITIONS)
    walk(workspace)
    before = computed(workspace)
    refresh(workspace, MARKET, PARTITIONS)
    report = walk(workspace)
    assert {o.status for o in report.outcomes} == {Status.STORED}
    after = computed(workspace)
    assert {key: after[key] for key in before} == before
    assert len(after) > len(before)
    newest = folds(workspace)
    assert len(newest) == len(after)
    for _, of_run in newest.groupby("run_id"):
        assert list(of_run["fold"]) == list(range(len(of_run)))


def test_the_same_inputs_are_not_computed_again_and_a_rebuild_gives_the_same(
    workspace: Workspace,
) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    walk(workspace)
    first, stamps, prints = folds(workspace), computed(workspace), fingerprints(workspace)
    assert walk(workspace).counts == {"unchanged": 2}
    assert computed(workspace) == stamps
    n_trials = rows(workspace, "SELECT count(*) AS n FROM trials")
    walk(workspace, rebuild=True)
    assert all(later > stamps[key] for key, later in computed(workspace).items())
    pd.testing.assert_frame_equal(folds(workspace), first)
    assert fingerprints(workspace) == prints
    assert rows(workspace, "SELECT count(*) AS n FROM trials") == n_trials


def test_an_asset_alone_is_what_it_is_in_company(
    workspace: Workspace, fresh_store: Callable[[], Workspace]
) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    walk(workspace, PARTITIONS[::-1])
    alone = fresh_store()
    refresh(alone, MARKET, PARTITIONS)
    for partition in PARTITIONS:
        walk(alone, [partition])
    pd.testing.assert_frame_equal(folds(workspace), folds(alone))
    assert fingerprints(workspace) == fingerprints(alone)


def once(
    workspace: Workspace,
    source: BarSource | None = None,
    asset: str = "S-ALPHA",
    tf: str = "1D",
    **changes: Any,
) -> dict[str, Any]:
    """A walk-forward of S-ALPHA, with some of it changed."""
    plan = changes.pop("plan", WalkForwardPlan(Schedule(400, 200)))
    config = changes.pop("config", SimulationConfig())
    terms = RunTerms(config, changes.pop("window", Window()))
    walk_forwards = {"strategy": "ema", "params": GRID, **changes}
    prepared = prepare_walk_forward(
        workspace,
        source or SampleMarket(),
        asset=asset,
        tf=tf,
        terms=terms,
        schedule=plan.schedule,
    )
    return dict(run_walk_forward(workspace, prepared, terms=terms, plan=plan, **walk_forwards))


def test_entries_that_a_walk_forward_could_not_make_are_stored_with_it(
    workspace: Workspace,
) -> None:
    stored = once(workspace, config=SimulationConfig(min_notional=9_500.0))
    blocks = run_blocks(workspace, stored["run_id"], limit=1000).rows
    counted = get_run(workspace, stored["run_id"]).results["limit_enforcement"]
    assert counted == {"total": len(blocks), "by_reason": {"insufficient_cash": len(blocks)}}
    assert blocks
    assert not any(check_dataset(workspace, "backtests").values())


def test_what_is_stored_is_what_the_python_api_finds(workspace: Workspace) -> None:
    stored = once(workspace)
    found = bp.walk_forward(
        bp.load_bars(asset="S-ALPHA"), "ema", GRID, schedule=bp.Schedule(400, 200)
    )
    assert stored["n_folds"] == len(found.folds) > 5
    for row, fold in zip(stored["folds"], found.folds.to_dict("records"), strict=True):
        assert row["params"] == {"fast": fold["fast"], "slow": fold["slow"]}
        for name in ("train_start", "train_end", "test_start", "test_end"):
            assert pd.Timestamp(row[name]) == fold[name]
        for name in FOLD_METRICS:
            for side in ("train", "test"):
                value = row[f"{side}_{name}"]
                expected: Any = fold[f"{side}_{name}"]
                assert (np.nan if value is None else value) == pytest.approx(
                    expected, rel=1e-9, nan_ok=True
                )
    assert stored["efficiency"] == pytest.approx(found.efficiency.ratio)
    assert stored["verdict"] == found.efficiency.verdict
    assert stored["sharpe"] == pytest.approx(found.metrics["sharpe"])
    trades = rows(workspace, "SELECT * FROM backtest_trades ORDER BY trade_no")
    assert len(trades) == len(found.trades) > 0
    read, uri = workspace.artifacts.read_table, stored["artifact_uri"]
    equity = read(uri, "equity.parquet", ["equity"])["equity"].to_numpy()
    pd.testing.assert_series_equal(
        pd.Series(equity), found.equity.reset_index(drop=True), check_names=False
    )


def test_every_training_evaluation_is_a_trial_once(workspace: Workspace) -> None:
    stored = once(workspace)
    trials = rows(workspace, "SELECT * FROM trials WHERE NOT params ? 'chosen_by'")
    assert len(trials) == 4 * stored["n_folds"]
    assert {t["source"] for t in trials} == {"walk_forward"}
    assert len({(t["window_start"], t["window_end"]) for t in trials}) == stored["n_folds"]
    for fold in stored["folds"]:
        (trial,) = [
            t
            for t in trials
            if t["params"]["fast"] == fold["params"]["fast"]
            and t["params"]["slow"] == fold["params"]["slow"]
            and t["window_end"] == fold["train_end"].date() + timedelta(days=1)
        ]
        assert trial["total_return"] == fold["train_total_return"]
    once(workspace)
    assert len(rows(workspace, "SELECT 1 FROM trials")) == len(trials) + 1


def test_the_stitched_run_is_deflated_by_the_walk_forwards_alone(workspace: Workspace) -> None:
    stored = once(workspace)
    (trial,) = rows(workspace, "SELECT * FROM trials WHERE params ? 'chosen_by'")
    assert trial["params"]["from"] == GRID
    assert trial["params"]["chosen_by"]["objective"] == {"sharpe": 1.0}
    assert trial["source"] == "walk_forward"
    assert trial["sharpe"] == pytest.approx(stored["sharpe"] / np.sqrt(365))
    # None of its bars took part in what was tried in training: only walk-forwards count.
    assert stored["n_trials"] == 1
    assert stored["dsr"] == stored["dsr_effective"] == stored["psr"]
    assert stored["n_walk_forwards"] == 1
    once(workspace, plan=WalkForwardPlan(Schedule(400, 150)))
    again = once(workspace)
    assert again["run_id"] == stored["run_id"]
    assert again["n_trials"] == again["n_walk_forwards"] == 2
    assert again["dsr"] < stored["dsr"]
    board = publish_leaderboard(workspace)
    assert {row["unranked"].partition(":")[0] for row in board.rows} == {
        "out-of-sample run of a walk-forward, on fewer bars than the others"
    }
    assert board.about["n_ranked"] == 0


def test_a_walk_forward_from_python_is_counted_where_a_store_is_given(
    workspace: Workspace,
) -> None:
    bars = daily_panel({"A": 600}).frame("A")
    terms: dict[str, Any] = {"schedule": bp.Schedule(300, 100), "asset": "A"}
    found = bp.walk_forward(bars, "ema", GRID, workspace=workspace, **terms)
    bp.walk_forward(bars, "ema", GRID, workspace=workspace, **terms)
    trials = rows(workspace, "SELECT * FROM trials")
    assert len(trials) == 4 * len(found.folds) + 1 >= 9
    assert {(t["symbol"], t["source"]) for t in trials} == {("A", "walk_forward")}
    (stitched,) = [t for t in trials if "chosen_by" in t["params"]]
    assert stitched["total_return"] == pytest.approx(found.metrics["total_return"])


def test_windows_that_begin_within_a_day_are_trials_of_their_own(workspace: Workspace) -> None:
    days = daily_panel({"A": 24 * 14})
    ends = days.ts[-1] - HOUR_US * np.arange(len(days))[::-1]
    hourly = Panel(timeframe("1H"), days.assets, days.offsets, ends, days.columns)
    source = StaticSource({"1H": hourly})
    stored = once(workspace, source, "A", "1H", plan=WalkForwardPlan(Schedule("10D", "6h")))
    trials = rows(workspace, "SELECT * FROM trials WHERE window_start IS NOT NULL")
    assert stored["n_folds"] == 16
    assert len(trials) == 4 * 16
    assert len({t["configuration_id"] for t in trials}) == 4 * 16


def test_windows_in_a_hole_are_left_out_and_counted_and_the_reason_of_none_is_told(
    workspace: Workspace,
) -> None:
    panel = daily_panel({"A": 700, "B": 100, "C": 500}, seed=5)
    hole = np.ones(len(panel), bool)
    hole[320:470] = False
    refresh(workspace, StaticSource({"1D": panel.take(hole)}), ABC)
    details = {o.partition.asset: o.detail for o in walk(workspace, ABC).outcomes}
    assert "more bars are needed" in details["B"]
    assert details["A"] == details["C"] == ""
    found = rows(
        workspace,
        "SELECT DISTINCT n_left_out, n_untested FROM walk_forward_runs w"
        " JOIN backtest_runs USING (run_id) WHERE symbol = 'A'",
    )
    assert len(found) == 1
    assert found[0]["n_left_out"] == 2
    assert found[0]["n_untested"] > 30
    assert min(row["n_train"] for row in rows(workspace, "TABLE walk_forward_folds")) > 70
    quality = """
        SELECT symbol, reason, n_rows FROM data_quality JOIN dim_assets USING (id)
        WHERE dataset = 'walk_forward' ORDER BY symbol
    """
    counts = [tuple(row.values()) for row in rows(workspace, quality)]
    assert counts == [("A", "starved_window", 2), ("B", "no_fold", 1)]
    assert sum(check_dataset(workspace, "walk_forward").values()) == 0

    execute_sql(workspace, "UPDATE dim_signals SET is_active = FALSE")
    walk(workspace, ABC)
    assert {row["reason"] for row in rows(workspace, quality)} == {"no_active_signal"}


def test_the_window_cuts_the_folds_and_indicators_know_what_was_before(
    workspace: Workspace,
) -> None:
    cut = once(workspace, window=Window(date(2021, 7, 1), date(2024, 7, 1)))
    first, last = cut["folds"][0], cut["folds"][-1]
    assert first["train_start"].date() == date(2021, 7, 1)
    assert last["test_end"].date() < date(2024, 7, 1)
    # The bar before the first test is the run's first: at its close its position is decided.
    assert first["test_start"] - cut["first_ts"] == timedelta(days=1)
    assert cut["last_ts"] == last["test_end"]
    with pytest.raises(InvalidInput, match=r"S-ALPHA\|1D: .* more bars are needed"):
        once(workspace, window=Window(date(2021, 7, 1), date(2022, 1, 1)))


def test_bad_questions_store_no_fold(workspace: Workspace) -> None:
    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"strategy": "ema_9_12"}, UnknownName, "did you mean"),
        ({"params": {"fats": [3]}}, UnknownName, "did you mean fast"),
        ({"params": {"fast": []}}, InvalidInput, "no value"),
        ({"params": {"fast": [50], "slow": [5]}}, InvalidInput, "makes sense"),
    ]
    for changes, error, message in bad:
        with pytest.raises(error, match=message):
            once(workspace, **changes)
    assert rows(workspace, "SELECT 1 FROM walk_forward_folds") == []
