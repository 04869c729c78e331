"""The stitched run of a walk-forward: its folds one after the other, and what is carried."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.research.validation.schedule import (
    Schedule,
    tasks_of,
    untested_bars,
)
from backtest_pipeline.research.validation.walk_forward import (
    Chosen,
    choose,
    stitched,
    trade_stitched,
)
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.trades import EXIT_REASONS, STOP_KINDS
from backtest_pipeline.simulation.windows import conditions_by_params
from backtest_pipeline.strategies.grid import parameter_space
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.research.validation.walks import EMA, market, question
from backtest_pipeline_tests.simulation.markets import random_panel


def test_the_stitched_run_is_its_folds_one_after_the_other() -> None:
    panel, tasks = market(5, (500,))
    free = question(config=SimulationConfig(costs=CostModel(0.0, 0.0)), flat_starts=True)
    chosen = choose(panel, tasks, free)
    batch = trade_stitched([stitched(panel, tasks, chosen, free)], free.config)
    bars = batch.panel
    first, last = tasks[0].windows(panel)[1], tasks[-1].windows(panel)[1]
    np.testing.assert_array_equal(bars.ts, panel.ts[first.start : last.stop])
    # From one window's last close to the open at which it is closed the position is still held.
    chained = 1.0
    for task, choice in zip(tasks, chosen, strict=True):
        at = task.windows(panel)[1].start - first.start
        closed_at_open = 1.0
        leaving = (batch.trades.exit_ts > bars.ts[at - 1]) & (batch.trades.exit_ts < bars.ts[at])
        if at and leaving.any():
            side = batch.trades.side[leaving][0]
            before = bars["close"][at - 1]
            held = batch.equity[0, at - 1]
            units = batch.trades.size[leaving][0]
            closed_at_open = 1 + side * units * (bars["open"][at] - before) / held
        chained *= closed_at_open * (1 + choice.test["total_return"])
    assert batch.equity[0, -1] / batch.equity[0, 0] == pytest.approx(chained, rel=1e-9)


@given(st.integers(0, 10_000), st.integers(0, 2))
@settings(max_examples=8, deadline=None)
def test_a_rule_that_never_changes_is_carried_from_window_to_window(seed: int, late: int) -> None:
    """Stitched, a long earns on every bar but the first what it earns in a run over all of them."""
    panel, tasks = market(seed, (500, 350))
    config = SimulationConfig(costs=CostModel(0.0, 0.0), direction=Direction.LONG, delay_bars=late)
    asked = question(space=parameter_space(EMA, {"fast": [3], "slow": [8]}), config=config)
    tested = stitched(panel, tasks, choose(panel, tasks, asked), asked)
    batch = trade_stitched([tested], config)
    whole = simulate_batch(
        panel, conditions_by_params(panel, EMA, [{"fast": 3, "slow": 8}]), config
    )
    for asset in panel.assets:
        own = tested.bars.rows_of(asset)
        rows = np.searchsorted(panel.ts[panel.rows_of(asset)], tested.bars.ts[own])
        held = whole.equity[0, panel.rows_of(asset)][rows]
        stitched_equity = batch.equity[0, own]
        assert stitched_equity[0] == config.initial_cash
        # The first is entered at an open, and was held from the close before in the whole run.
        ours, theirs = stitched_equity[2:] / stitched_equity[1:-1], held[2:] / held[1:-1]
        same = np.isclose(ours, theirs, rtol=1e-9, atol=0)
        # What the choice decided before a window, and is late, is not seen in it.
        assert same.all() if late == 0 else same.mean() > 0.5


def test_a_trailing_stop_of_the_choice_ends_what_was_carried() -> None:
    """A breakout's own stop is the account's in every fold, with the multiple that was chosen."""
    panel, tasks = market(3, (600,))
    space = parameter_space(strategy_of("atr_breakout"), {"trail_mult": [1.0, 4.0]})
    asked = question(space=space)
    tested = stitched(panel, tasks, choose(panel, tasks, asked), asked)
    chosen = {rule.stops.trailing_atr for rule in tested.rules.distinct}
    assert chosen <= {1.0, 4.0}
    trades = trade_stitched([tested], asked.config).trades
    assert (trades.entry_stop_kind == STOP_KINDS.index("trailing_stop")).all()
    assert (trades.exit_reason == EXIT_REASONS.index("trailing_stop")).sum() > len(trades) / 2


@given(st.integers(0, 10_000), st.integers(0, 2))
@settings(max_examples=8)
def test_with_flat_starts_no_position_crosses_into_the_next_window(seed: int, late: int) -> None:
    panel, tasks = market(seed, (400,))
    asked = question(config=SimulationConfig(delay_bars=late), flat_starts=True)
    tested = stitched(panel, tasks, choose(panel, tasks, asked), asked)
    bars, trades = tested.bars, trade_stitched([tested], asked.config).trades
    first = tasks[0].windows(panel)[1].start
    for task in tasks[1:]:
        at = task.windows(panel)[1].start - first
        opens = bars.timeframe.period_bounds(bars.ts)[0]
        # Whoever was in before the window is out at its first open, and enters later at most.
        assert not np.any((trades.entry_ts < opens[at]) & (trades.exit_ts > opens[at]))
        assert not np.any((trades.entry_ts >= opens[at]) & (trades.entry_ts <= opens[at + late]))


def test_a_fold_without_a_choice_trades_nothing() -> None:
    panel, tasks = market(5, (300,))
    nothing = Chosen(None, math.nan, 6, {}, {})
    tested = stitched(panel, tasks, [nothing] * len(tasks), question())
    batch = trade_stitched([tested], SimulationConfig())
    assert len(batch.trades) == 0
    flat = panel.with_columns(
        {n: np.full(len(panel), 5.0) for n in ("open", "high", "low", "close")}
    )
    (found, *_) = choose(flat, tasks, question())
    assert found.combination is None
    assert found.n_combinations == 5


@pytest.mark.parametrize("delay", [0, 2])
def test_nothing_is_held_over_bars_that_no_fold_tests(delay: int) -> None:
    panel = random_panel(np.random.default_rng(5), (500,))
    (asset,) = panel.assets
    config = SimulationConfig(delay_bars=delay)
    asked = question(space=parameter_space(EMA, {"fast": [2], "slow": [6]}), config=config)
    tasks, left_out = tasks_of(panel, asset, Schedule(120, 40, step=60))
    assert left_out == ()
    assert untested_bars(tasks) == 20 * (len(tasks) - 1) > 0
    tested = stitched(panel, tasks, choose(panel, tasks, asked), asked)
    batch = trade_stitched([tested], config)
    ends = panel.ts[[task.fold.test[-1] for task in tasks]]
    assert len(batch.trades) > len(tasks)
    entered, left = (
        np.searchsorted(ends, ts) for ts in (batch.trades.entry_ts, batch.trades.exit_ts)
    )
    np.testing.assert_array_equal(entered, left)
