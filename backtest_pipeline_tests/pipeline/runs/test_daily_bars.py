"""Runs on bars longer than a day are marked by stored daily bars, whoever asks for them."""

from __future__ import annotations

import io
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.resample import resample
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.pipeline import execution
from backtest_pipeline.pipeline.replay.export import bundle_files
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.specs import SweepSpec, WalkForwardSpec
from backtest_pipeline.pipeline.stage import Status
from backtest_pipeline.pipeline.use_cases.spec_terms import plan_of
from backtest_pipeline.pipeline.use_cases.sweep import explore
from backtest_pipeline.pipeline.use_cases.walk_forward import run_walk_forward
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.pipeline.on_demand import assess_once, backtest_once
from backtest_pipeline_tests.pipeline.walking_process import walk
from backtest_pipeline_tests.sql import column, distinct, rows

BARS = daily_panel({"A": 900, "B": 700}, seed=5)
SOURCE = StaticSource({"1D": BARS})
WEEKS = [Partition(asset, "1W") for asset in "AB"]
DAYS = [Partition(asset, "1D") for asset in "AB"]
CURRENT = "FROM backtest_runs r JOIN backtest_metrics m USING (run_id) WHERE r.is_current"
OF_WEEKS = f"{CURRENT} AND r.tf = '1W'"


def _ids(workspace: Workspace, condition: str = "true") -> list[Any]:
    return column(workspace, f"SELECT run_id {OF_WEEKS} AND {condition} ORDER BY run_id")


def _samplings(workspace: Workspace) -> set[str]:
    return distinct(workspace, f"SELECT m.sampling {OF_WEEKS}")


def _assert_replayed(workspace: Workspace, ids: list[Any]) -> None:
    assert ids
    for one in replay_runs(workspace, ids):
        assert one.verdict is ReplayVerdict.SAME, one
        assert one.differences == ()


def _with_day(day: int, factor: float) -> StaticSource:
    """A day of A with another close, which no week sees: its range and its last day stay."""
    close = BARS["close"].copy()
    close[day] = BARS["low"][day] + factor * (BARS["high"][day] - BARS["low"][day])
    return StaticSource({"1D": BARS.with_columns({"close": close})})


def _tuesday(after: int) -> int:
    """The row of the first Tuesday of A from a row on."""
    return next(i for i in range(after, after + 7) if BARS.ts[i] // DAY_US % 7 == 5)


def test_a_refresh_marks_by_days_as_soon_as_they_are_stored(workspace: Workspace) -> None:
    refresh(workspace, SOURCE, WEEKS)
    of_bars = _ids(workspace)
    assert _samplings(workspace) == {"bars"}
    assert rows(workspace, f"SELECT dataset_version_ids AS v {OF_WEEKS} LIMIT 1")[0][
        "v"
    ].keys() in (
        {"A|1W"},
        {"B|1W"},
    )
    by_bars = rows(workspace, f"SELECT r.symbol, r.signal_id, m.* {OF_WEEKS} ORDER BY 1, 2")
    reports = refresh(workspace, SOURCE, DAYS)
    again = refresh(workspace, SOURCE, WEEKS)["backtests"]
    assert {o.status for o in again.outcomes} == {Status.STORED}
    assert _samplings(workspace) == {"daily"}
    assert not set(_ids(workspace)) & set(of_bars)
    by_days = rows(workspace, f"SELECT r.symbol, r.signal_id, m.* {OF_WEEKS} ORDER BY 1, 2")
    for coarse, fine in zip(by_bars, by_days, strict=True):
        for name in ("total_return", "trade_count", "profit_factor", "benchmark_return"):
            assert coarse[name] == fine[name]
        assert fine["max_drawdown"] <= coarse["max_drawdown"]
        if fine["trade_count"]:
            assert fine["value_at_risk_95"] < 0
    assert {o.status for o in refresh(workspace, SOURCE, WEEKS)["backtests"].outcomes} == {
        Status.UNCHANGED
    }
    assert not reports["backtests"].failed


def test_a_changed_day_makes_its_runs_stale_and_a_new_day_does_not(workspace: Workspace) -> None:
    both = [*WEEKS, *DAYS]
    shorter = StaticSource({"1D": BARS.take(BARS.ts < BARS.ts.max() - DAY_US // 2)})
    refresh(workspace, shorter, WEEKS)
    of_bars = _ids(workspace)
    refresh(workspace, shorter, both)
    before = {asset: _ids(workspace, f"symbol = '{asset}'") for asset in "AB"}
    refresh(workspace, SOURCE, both)
    assert {asset: _ids(workspace, f"symbol = '{asset}'") for asset in "AB"} == before
    assert BARS.ts.max() // DAY_US % 7 == 6  # a Wednesday: no week was completed
    refresh(workspace, _with_day(_tuesday(300), 0.9), both)
    assert not set(_ids(workspace, "symbol = 'A'")) & set(before["A"])
    assert _ids(workspace, "symbol = 'B'") == before["B"]
    assert not set(of_bars) & {*before["A"], *before["B"]}
    _assert_replayed(workspace, [*_ids(workspace), *before["A"], *of_bars])


def test_single_runs_have_daily_benchmarks_and_replay(workspace: Workspace) -> None:
    refresh(workspace, SOURCE, DAYS)
    config = SimulationConfig(CostModel(20, 7, 3.0), stops=StopRules(stop_loss=0.05))
    window = Window(date(2024, 3, 1), date(2025, 9, 1))
    terms = [RunTerms(config, window, name) for name in ("asset", "cash", "B", "universe")]
    runs = [
        backtest_once(workspace, SOURCE, signal="ema_9_21", asset="A", tf="1W", terms=one)
        for one in terms
    ]
    assert _samplings(workspace) == {"daily"}
    assert "A|1D" in runs[0]["dataset_version_ids"]
    assert {"A|1D", "B|1D"} <= runs[2]["dataset_version_ids"].keys()
    _assert_replayed(workspace, _ids(workspace))
    stops = "SELECT count(*) FROM backtest_trades WHERE exit_reason = 'stop_loss'"
    assert column(workspace, stops)[0] > 0
    for run in runs:
        equity = workspace.artifacts.read_table(
            run["artifact_uri"], "equity.parquet", filters=[("run_id", "==", str(run["run_id"]))]
        ).to_pandas()
        assert (np.diff(equity["ts"]) == pd.Timedelta(days=1)).all()
        held = equity["equity"].pct_change().abs() > 0
        assert held.mean() > 0.1
        benchmark = workspace.artifacts.read_table(run["artifact_uri"], "benchmark.parquet")
        moves = np.diff(benchmark["benchmark"].to_numpy()) != 0
        assert len(moves) == len(equity) - 1
        assert moves.mean() > 0.98 or run is runs[1]


def test_a_run_brings_the_stored_days_up_to_date(workspace: Workspace) -> None:
    refresh(workspace, StaticSource({"1D": BARS.take(BARS.ts < BARS.ts.max() - 20 * DAY_US)}), DAYS)
    assert not _samplings(workspace)
    backtest_once(
        workspace, SOURCE, signal="ema_9_21", asset="A", tf="1W", terms=RunTerms(SimulationConfig())
    )
    assert _samplings(workspace) == {"daily"}


def test_a_refresh_of_weeks_alone_brings_the_stored_days_up_to_date(workspace: Workspace) -> None:
    shorter = StaticSource({"1D": BARS.take(BARS.ts < BARS.ts.max() - 20 * DAY_US)})
    refresh(workspace, shorter, [*WEEKS, *DAYS])
    before = _ids(workspace)
    refresh(workspace, SOURCE, WEEKS)
    assert not set(_ids(workspace, "symbol = 'A'")) & set(before)
    assert _samplings(workspace) == {"daily"}


def test_without_stored_days_a_run_is_that_of_a_refresh(workspace: Workspace) -> None:
    refresh(workspace, SOURCE, WEEKS)
    run = backtest_once(
        workspace, SOURCE, signal="ema_9_21", asset="A", tf="1W", terms=RunTerms(SimulationConfig())
    )
    assert run["run_id"] in _ids(workspace, "symbol = 'A'")
    assert _samplings(workspace) == {"bars"}


def test_a_sweep_finds_what_a_run_computes(workspace: Workspace) -> None:
    refresh(workspace, SOURCE, DAYS)
    spec = SweepSpec.model_validate(
        {
            "symbol": "A",
            "timeframe": "1W",
            "strategy": "ema_crossover",
            "params": {"fast": [2, 3], "slow": [5, 8]},
            "start": "2024-01-01",
        }
    )
    result, found = execution.swept(workspace, load_settings(bars=""), spec, SOURCE)
    assert _samplings(workspace) == {"daily"}
    (stored,) = rows(workspace, f"SELECT m.* {OF_WEEKS}")
    best = found.table.loc[tuple(found.best.values())]
    for name in ("sharpe", "value_at_risk_95", "kurtosis", "max_drawdown", "beta"):
        assert best[name] == stored[name]
    assert str(stored["run_id"]) in map(str, result.run_ids)
    frames = [resample(BARS, timeframe(tf)).frame("A") for tf in ("1W", "1D")]
    again = explore(
        frames[0],
        "ema_crossover",
        {"fast": [2, 3], "slow": [5, 8]},
        daily=frames[1],
        timeframe="1W",
        start=date(2024, 1, 1),
    )
    pd.testing.assert_frame_equal(again.table, found.table, check_exact=True)
    n_obs = distinct(workspace, "SELECT n_obs FROM trials")
    assert min(n_obs) > 600


def test_a_walk_forward_is_marked_where_it_is_out_of_sample(workspace: Workspace) -> None:
    refresh(workspace, SOURCE, [*WEEKS, *DAYS])
    assert not walk(workspace, WEEKS).failed
    split = "r.split = 'walk_forward'"
    assert distinct(workspace, f"SELECT m.sampling {OF_WEEKS} AND {split}") == {"daily"}
    assert {o.status for o in walk(workspace, WEEKS).outcomes} == {Status.UNCHANGED}
    before = set(_ids(workspace, f"{split} AND symbol = 'A'"))
    spec = WalkForwardSpec.model_validate(
        {
            "symbol": "A",
            "timeframe": "1W",
            "strategy": "ema_crossover",
            "params": {"fast": [2, 3], "slow": [5, 8]},
            "train_days": 200,
            "test_days": 70,
        }
    )
    settings = load_settings(bars="")
    prepared = execution.prepare(workspace, settings, spec, SOURCE)
    row = run_walk_forward(
        workspace,
        prepared,
        strategy=spec.strategy,
        params=spec.params,
        terms=RunTerms(spec.config()),
        plan=plan_of(spec, 1000, 0.6),
    )
    assert row["run_id"] not in before
    _assert_replayed(workspace, _ids(workspace, split))
    assert row["run_id"] in _ids(workspace, split)
    refresh(workspace, _with_day(_tuesday(500), 0.1), [*WEEKS, *DAYS])
    assert {o.status for o in walk(workspace, WEEKS[:1]).outcomes} == {Status.STORED}
    assert not before & set(_ids(workspace, split))


def test_robustness_is_of_the_marks_of_the_run(workspace: Workspace) -> None:
    refresh(workspace, SOURCE, DAYS)
    run = assess_once(
        workspace,
        SOURCE,
        signal="ema_9_21",
        asset="A",
        tf="1W",
        terms=RunTerms(SimulationConfig(stops=StopRules(stop_loss=0.1))),
        draws=50,
    )
    bands = workspace.artifacts.read_table(run["robustness"]["artifact_uri"], "bands.parquet")
    equity = workspace.artifacts.read_table(
        run["artifact_uri"], "equity.parquet", filters=[("run_id", "==", str(run["run_id"]))]
    )
    assert bands["equity"].to_pylist() == equity["equity"].to_pylist()


def test_a_bundle_holds_the_days(workspace: Workspace) -> None:
    refresh(workspace, SOURCE, DAYS)
    run = backtest_once(
        workspace,
        SOURCE,
        signal="ema_9_21",
        asset="A",
        tf="1W",
        terms=RunTerms(SimulationConfig(stops=StopRules(stop_loss=0.05))),
    )
    files = bundle_files(workspace, run["run_id"])  # verifies itself
    days = pq.read_table(io.BytesIO(files["inputs/A-1D.parquet"]))
    assert {"ts", "high", "low", "close"} <= set(days.column_names)
    assert days.num_rows == 900
    trades = pq.read_table(io.BytesIO(files["trades.parquet"]))
    weeks = resample(BARS, timeframe("1W")).frame("A").index
    entered = weeks[trades["entry_bar"].to_numpy()] - pd.Timedelta("6D23:59:59.999")
    assert entered.tolist() == trades["entry_ts"].to_pandas().tolist()


@pytest.mark.parametrize("tf", ["2D", "1M_CAL"])
def test_batches_and_single_runs_are_marked_alike(workspace: Workspace, tf: str) -> None:
    partitions = [Partition(asset, tf) for asset in "AB"]
    refresh(workspace, SOURCE, [*partitions, *DAYS])
    ids = column(workspace, f"SELECT run_id {CURRENT} AND tf = '{tf}' ORDER BY run_id")
    for asset in "AB":
        run = backtest_once(
            workspace,
            SOURCE,
            signal="rsi_14_30_70",
            asset=asset,
            tf=tf,
            terms=RunTerms(SimulationConfig()),
        )
        assert run["run_id"] in ids
    assert column(workspace, f"SELECT run_id {CURRENT} AND tf = '{tf}' ORDER BY run_id") == ids
