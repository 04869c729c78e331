"""Fills anywhere in their bars."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.robustness.random_fills import due_fills, random_fill_returns
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.research.runs import FREE, random_run, run_of


def test_one_fill_is_drawn_from_the_range_of_its_bar() -> None:
    from scipy import stats

    opens = [100.0] * 6
    run = run_of(
        opens,
        {1: LONG_ENTRY, 3: LONG_EXIT},
        highs=[100, 100, 120, 100, 100, 130],
        lows=[100, 100, 80, 100, 100, 70],
    )
    trades = run.simulated().trades
    assert due_fills(run.panel, trades).tolist() == [2, 4]
    prices = 100 / (1 + random_fill_returns(run, trades, 500, 0))
    assert stats.kstest((prices - 80) / 40, "uniform").pvalue > 0.01


def test_bars_without_a_range_leave_the_run_as_it_is() -> None:
    opens = [100.0, 101, 104, 103, 107, 108]
    run = run_of(opens, {0: LONG_ENTRY, 3: LONG_EXIT})
    flat = run.panel.with_columns(dict.fromkeys(("high", "low", "close"), run.panel["open"]))
    still = type(run)(flat, run.events, run.config)
    result = still.simulated()
    found = random_fill_returns(still, result.trades, 20, 0)
    np.testing.assert_array_equal(found, result.metrics["total_return"][0])


@given(st.integers(0, 10_000))
def test_every_draw_is_a_run_that_the_engine_accepts(seed: int) -> None:
    run = random_run(np.random.default_rng(seed), 60)
    found = random_fill_returns(run, run.simulated().trades, 3, seed)
    assert np.all(found >= -1)


def test_stops_keep_their_own_prices() -> None:
    config = SimulationConfig(FREE, stops=StopRules(stop_loss=0.05))
    lows = [100.0, 100, 100, 60, 100]
    run = run_of([100.0] * 5, {1: LONG_ENTRY}, config, lows=lows)
    trades = run.simulated().trades
    assert due_fills(run.panel, trades).tolist() == [2]
    # The entry's bar has no range, so that all draws are stopped where the run was.
    np.testing.assert_allclose(random_fill_returns(run, trades, 10, 0), -0.05)


def test_an_open_position_has_one_fill() -> None:
    run = run_of([100.0, 101, 102, 103], {1: LONG_ENTRY})
    assert due_fills(run.panel, run.simulated().trades).tolist() == [2]


def test_seeds_decide_the_fills() -> None:
    run = random_run(np.random.default_rng(4), 100)
    trades = run.simulated().trades
    first = random_fill_returns(run, trades, 20, 3)
    np.testing.assert_array_equal(random_fill_returns(run, trades, 7, 3), first[:7])
    assert not np.array_equal(random_fill_returns(run, trades, 20, 4), first)
    with pytest.raises(InvalidInput, match="draws must be"):
        random_fill_returns(run, trades, 0, 3)
