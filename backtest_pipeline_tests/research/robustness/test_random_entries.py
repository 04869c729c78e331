"""Matched random entries: where they may lie, and what the null hypothesis makes of runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.robustness.bootstrap import p_value
from backtest_pipeline.research.robustness.random_entries import (
    HoldingTimes,
    holding_times,
    place_trades,
    random_dates,
    random_entry_returns,
)
from backtest_pipeline.research.robustness.repeat import RunInputs
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.trading.sizing import VolatilityScaled
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.research.runs import random_run, run_of, swings
from backtest_pipeline_tests.simulation.markets import random_panel


@st.composite
def holdings(draw: st.DrawFn) -> HoldingTimes:
    sides = draw(st.lists(st.sampled_from([1, -1]), min_size=1, max_size=12))
    bars = draw(st.lists(st.integers(1, 9), min_size=len(sides), max_size=len(sides)))
    found = HoldingTimes(np.array(sides, np.int8), np.array(bars), draw(st.integers(1, 3)), 0)
    return replace(found, end_row=draw(st.integers(0, 30)) - found.free_bars)


@given(holdings(), st.integers(0, 1000))
def test_places_hold_the_same_trades_and_never_overlap(held: HoldingTimes, seed: int) -> None:
    entry, exit_ = random_dates(held, np.random.default_rng(seed))
    assert entry[0] >= held.first_row
    assert exit_[-1] <= held.end_row
    assert np.all(entry[1:] - exit_[:-1] >= held.least_gap[1:])
    for side in (1, -1):
        mine = held.side == side
        assert Counter((exit_ - entry)[mine].tolist()) == Counter(held.bars[mine].tolist())


def test_every_arrangement_is_as_likely_as_any_other() -> None:
    held = HoldingTimes(np.array([1, -1, 1], np.int8), np.array([1, 2, 3]), 1, 10)
    found = Counter(
        tuple(map(tuple, random_dates(held, np.random.default_rng(seed)))) for seed in range(6000)
    )
    # Three free bars in four gaps, (3 + 3 over 3) ways, and two orders of the longs.
    assert len(found) == 20 * 2
    assert stats.chisquare(list(found.values())).pvalue > 0.001


@given(holdings(), st.integers(0, 1000))
def test_the_engine_trades_what_is_placed(held: HoldingTimes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    entry, exit_ = random_dates(held, rng)
    n_rows = held.end_row + int(rng.integers(0, 2))  # the last may stay open
    panel = random_panel(rng, [n_rows], volatility=0.001)
    events = np.zeros((1, n_rows), np.uint8)
    place_trades(entry, exit_, held.side, events[0])
    trades = RunInputs(panel, events, SimulationConfig()).simulated().trades
    again = holding_times(panel, trades, SimulationConfig())
    np.testing.assert_array_equal(again.side, held.side)
    np.testing.assert_array_equal(again.bars, exit_ - entry)
    np.testing.assert_array_equal(trades.entry_bar, entry)


@given(st.integers(0, 10_000))
def test_what_a_run_held_fits_into_its_own_bars(seed: int) -> None:
    run = random_run(np.random.default_rng(seed), 80)
    trades = run.simulated().trades
    if len(trades):
        held = holding_times(run.panel, trades, run.config)
        assert held.free_bars >= 0
        assert held.bars.min() >= 1


def test_a_planted_edge_is_no_luck() -> None:
    run = swings(25, 0.05, SimulationConfig())
    result = run.simulated()
    assert len(result.trades) == 25
    own = float(result.metrics["total_return"][0])
    returns = random_entry_returns(run, result.trades, 300, 0)
    assert np.median(returns) < 0 < own
    assert p_value(own, returns) == 1 / 301


def test_p_values_of_random_entries_on_random_walks_are_uniform() -> None:
    """So no more than one in twenty of them passes for an edge at 5 %."""
    held = HoldingTimes(np.array([1, -1, 1, 1, -1], np.int8), np.array([4, 9, 2, 7, 5]), 1, 90)
    n_rows = held.end_row + 1
    p_values = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        events = np.zeros((1, n_rows), np.uint8)
        place_trades(*random_dates(held, rng), held.side, events[0])
        run = RunInputs(random_panel(rng, [n_rows]), events, SimulationConfig())
        result = run.simulated()
        own = float(result.metrics["total_return"][0])
        p_values.append(p_value(own, random_entry_returns(run, result.trades, 99, seed)))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) <= 0.05) <= 0.1


def test_random_runs_pay_the_costs_of_the_run() -> None:
    events = {0: LONG_ENTRY, 5: LONG_EXIT, 10: SHORT_ENTRY, 14: SHORT_EXIT}
    run = run_of([100.0] * 40, events, SimulationConfig())
    result = run.simulated()
    returns = random_entry_returns(run, result.trades, 50, 0)
    # On flat bars costs are all there is; a reversal is sized after its closing costs.
    np.testing.assert_allclose(returns, result.metrics["total_return"][0], atol=1e-5)


def test_what_ends_in_position_may_end_so_at_random() -> None:
    run = run_of([100.0] * 30, {20: LONG_ENTRY}, SimulationConfig())
    returns = random_entry_returns(run, run.simulated().trades, 300, 0)
    paid_once = returns > -0.002
    assert 0 < paid_once.mean() < 0.15  # one place in 21
    np.testing.assert_allclose(returns[paid_once], run.total_return, rtol=1e-12)


def test_a_run_stopped_in_every_bar_leaves_no_room() -> None:
    # Bought at each second open and stopped within that bar: the null would hold all bars.
    config = SimulationConfig(stops=StopRules(stop_loss=0.01))
    run = run_of(
        [100.0] * 6, {0: LONG_ENTRY, 1: LONG_ENTRY, 2: LONG_ENTRY}, config, lows=[90.0] * 6
    )
    trades = run.simulated().trades
    assert len(trades) == 3
    assert len(random_entry_returns(run, trades, 10, 0)) == 0


def test_no_place_lies_before_the_sizing_knows_the_volatility() -> None:
    config = SimulationConfig(sizing=VolatilityScaled(0.2, 20))
    run = random_run(np.random.default_rng(1), 60, config)
    trades = run.simulated().trades
    held = holding_times(run.panel, trades, config)
    # The 20th return is known at the close of bar 20.
    assert held.first_row == 21 <= trades.entry_bar[0]
    assert held.free_bars >= 0


def test_seeds_decide_the_places() -> None:
    run = random_run(np.random.default_rng(4), 100)
    trades = run.simulated().trades
    first = random_entry_returns(run, trades, 40, 3)
    np.testing.assert_array_equal(random_entry_returns(run, trades, 15, 3), first[:15])
    assert not np.array_equal(random_entry_returns(run, trades, 40, 4), first)
    with pytest.raises(InvalidInput, match="draws must be"):
        random_entry_returns(run, trades, 0, 3)


def test_blocks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = random_run(np.random.default_rng(4), 100)
    trades = run.simulated().trades
    at_once = random_entry_returns(run, trades, 10, 3)
    monkeypatch.setattr("backtest_pipeline.research.robustness.draws._CELLS_AT_ONCE", 300)
    np.testing.assert_array_equal(random_entry_returns(run, trades, 10, 3), at_once)
