"""The ledger of trials: what counts as one trial, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput, StoreError
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.ranking.ledger import trials_of, window_of
from backtest_pipeline.pipeline.runs.identity import RunTerms, Stretch, Window
from backtest_pipeline.research.robustness.bootstrap import daily_equity
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.metrics.significance import sharpe_moments
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.run_tables.trials import record_trials
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.pipeline.markets import daily_panel
from backtest_pipeline_tests.sql import count, rows

CONFIG = SimulationConfig()
VERSIONS = {"A": "a1", "B": "b1"}


def batch_of(n_runs: int, lengths: Mapping[str, int], seed: int = 3) -> BatchResult:
    """Runs that enter and leave at random."""
    panel = daily_panel(lengths)
    rng = np.random.default_rng(seed)
    bits = np.array([0, 1, 2, 4, 8], np.uint8)
    events = rng.choice(bits, size=(n_runs, len(panel)), p=[0.8, 0.05, 0.05, 0.05, 0.05])
    return simulate_batch(panel, events, CONFIG)


def ema(n: int, first: int = 2) -> list[dict[str, int]]:
    return [{"fast": first + i, "slow": 200} for i in range(n)]


def entries(
    batch: BatchResult,
    params: Sequence[Mapping[str, Any]],
    terms: RunTerms | None = None,
    versions: Mapping[str, str] | None = None,
    **changes: Any,
) -> pa.Table:
    return trials_of(
        batch,
        params,
        dataset_versions=versions or VERSIONS,
        terms=terms or RunTerms(CONFIG),
        **{"strategy": "ema_crossover", "source": "sweep", **changes},
    )


def record(database: Database, *tables: pa.Table) -> list[int]:
    """How many trials of each table were new; one transaction."""
    with database.arrow() as connection, connection.cursor() as cursor:
        return [record_trials(cursor, table) for table in tables]


def test_every_configuration_is_entered_once_whoever_asks(database: Database) -> None:
    batch = batch_of(3, {"A": 60, "B": 40})
    again = entries(batch, ema(3), source="run")
    assert record(database, entries(batch, ema(3)), again) == [6, 0]
    assert record(database, entries(batch, ema(3, first=4))) == [4]  # one was there, on two assets
    assert count(database, "trials") == 10
    with database.begin() as connection:
        by_source = "SELECT source, count(*) FROM trials GROUP BY source"
        assert connection.execute(sa.text(by_source)).all() == [("sweep", 10)]


def test_what_is_left_out_counts_as_its_default(database: Database) -> None:
    batch = batch_of(1, {"A": 40})
    told = [{"slow": 200, "cooldown_bars": 0, "fast": 2, "rsi_min_long": None}]
    assert record(database, entries(batch, ema(1)), entries(batch, told)) == [1, 0]


def test_rules_of_the_strategy_count_as_if_the_run_named_them() -> None:
    """A sweep leaves them to the strategy, while a run on demand hands them over as its own."""
    batch, params = batch_of(2, {"A": 40}), [{"trail_mult": 2.0}, {"trail_mult": 3.0}]
    swept = entries(batch, params, strategy="atr_breakout")
    for row, multiple in enumerate((2.0, 3.0)):
        stops = StopRules(trailing_atr=multiple)
        named = RunTerms(SimulationConfig(stops=stops))
        run = entries(batch_of(1, {"A": 40}), params[row : row + 1], named, strategy="atr_breakout")
        assert run["trial_id"].to_pylist() == swept["trial_id"].to_pylist()[row : row + 1]
    rested = [{"fast": 2, "slow": 200, "cooldown_bars": 3}]
    named = RunTerms(SimulationConfig(cooldown_bars=3))
    batch = batch_of(1, {"A": 40})
    assert entries(batch, rested)["trial_id"] == entries(batch, rested, named)["trial_id"]


@pytest.mark.parametrize(
    "other",
    [
        {"terms": RunTerms(CONFIG, Window(date(2020, 1, 1)))},
        {"terms": RunTerms(SimulationConfig(CostModel(fee_bps=7.0)))},
        {"terms": RunTerms(SimulationConfig(direction=Direction.LONG))},
        {"windows": [Window(None, date(2030, 1, 1))]},
        {"strategy": "of_a_strategist"},
    ],
    ids=["window", "costs", "direction", "window of the asset", "strategy"],
)
def test_what_changes_the_question_makes_another_trial_and_configuration(
    other: dict[str, Any],
) -> None:
    batch = batch_of(1, {"A": 40})
    usual, changed = entries(batch, ema(1)), entries(batch, ema(1), **other)
    for name in ("trial_id", "configuration_id"):
        assert usual[name] != changed[name]


def test_bars_of_whole_days_are_the_window_of_these_days_and_others_are_a_stretch() -> None:
    panel = daily_panel({"A": 10, "B": 10})
    ts = panel.ts[panel.rows_of("B")] // DAY_US * DAY_US
    half_days = np.sort(np.concatenate([ts, ts + DAY_US // 2]))
    panel = Panel(panel.timeframe, ("B",), np.array([0, 20]), half_days, {})
    first, end = date(2025, 12, 23), date(2025, 12, 25)
    at = half_days[2:6].tolist()
    assert window_of(panel, "B", at[0], at[3]) == Window(first, end)
    assert window_of(panel, "B", at[1], at[3]) == Stretch(first, end, at[1], at[3])
    assert window_of(panel, "B", at[0], at[2]) == Stretch(first, end, at[0], at[2])


def test_the_benchmark_is_no_part_of_a_trial() -> None:
    batch = batch_of(1, {"A": 40})
    assert entries(batch, ema(1)) == entries(batch, ema(1), RunTerms(CONFIG, benchmark="B"))


def test_other_rows_make_another_trial_of_the_same_configuration() -> None:
    batch = batch_of(1, {"A": 40})
    usual, changed = (entries(batch, ema(1), versions={"A": version}) for version in ("a1", "a2"))
    assert usual["trial_id"] != changed["trial_id"]
    assert usual["configuration_id"] == changed["configuration_id"]


def test_parameters_that_the_strategy_does_not_take_are_refused() -> None:
    with pytest.raises(InvalidInput, match="did you mean fast"):
        entries(batch_of(1, {"A": 40}), [{"fats": 5, "slow": 9}])


def test_an_unknown_source_is_refused_and_leaves_nothing(database: Database) -> None:
    table = entries(batch_of(1, {"A": 40}), ema(1), source="hearsay")
    with pytest.raises(StoreError, match="trials_source_check"):
        record(database, table)
    assert count(database, "trials") == 0


def test_an_entry_holds_what_the_daily_returns_come_to(database: Database) -> None:
    batch = batch_of(2, {"A": 300, "B": 90})
    record(database, entries(batch, ema(2)))
    trials = rows(database, "SELECT * FROM trials")
    assert len(trials) == 4
    for row in trials:
        run, asset = row["params"]["fast"] - 2, "AB".index(row["symbol"])
        bars = slice(*batch.panel.offsets[asset : asset + 2])
        equity = batch.equity[run, bars]
        returns = daily_equity(batch.panel.ts[bars], equity).returns
        moments = sharpe_moments(returns[:, None])
        assert row["n_obs"] == len(returns)
        assert row["sharpe"] == pytest.approx(moments.sharpe[0])
        assert row["skew"] == pytest.approx(moments.skew[0])
        assert row["kurtosis"] == pytest.approx(moments.kurtosis[0])
        assert row["total_return"] == pytest.approx(equity[-1] / equity[0] - 1)


def test_weeks_are_those_that_pandas_ends_on_sunday() -> None:
    batch = batch_of(2, {"A": 100, "B": 33})
    table = entries(batch, ema(2)).to_pylist()
    for column, row in enumerate(table):
        run, asset = divmod(column, 2)
        bars = slice(*batch.panel.offsets[asset : asset + 2])
        days = pd.to_datetime(batch.panel.ts[bars] // DAY_US, unit="D")
        equity = pd.Series(batch.equity[run, bars], days)
        ends = equity.resample("W-SUN").last()
        before = ends.shift(1).fillna(equity.iloc[0])
        np.testing.assert_allclose(row["weekly_returns"], ends / before - 1, atol=1e-7)
        assert pd.Timestamp(row["first_week"]) == ends.index[0] - pd.Timedelta(days=6)


def test_many_who_try_the_same_at_once_count_it_once(database: Database) -> None:
    batch = batch_of(60, {"A": 60, "B": 40})
    table = entries(batch, ema(60))
    shuffled = [table.take(np.random.default_rng(i).permutation(len(table))) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        added = list(pool.map(lambda part: record(database, part)[0], shuffled))
    assert sum(added) == count(database, "trials") == 120


def test_no_trials_are_nothing_to_record(database: Database) -> None:
    assert record(database, entries(batch_of(1, {"A": 40}), ema(1)).slice(0, 0)) == [0]
