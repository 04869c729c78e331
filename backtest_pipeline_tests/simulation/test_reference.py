"""The engine against a bar-by-bar simulator written in plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.orders import NOTHING_PENDING
from backtest_pipeline.simulation.sizing import FixedFractional
from backtest_pipeline.simulation.trades import EXIT_REASONS
from backtest_pipeline_tests.simulation.markets import random_events, random_panel
from backtest_pipeline_tests.simulation.reference import Account, Bar, trade_by_hand

RUNS = 4
LENGTHS = (30, 1, 0, 45, 2)
ALLOWED = {Direction.LONG: 3, Direction.SHORT: 12, Direction.BOTH: 15}


def by_hand(panel: Panel, events: np.ndarray, config: SimulationConfig, column: int) -> Account:
    run, asset = divmod(column, len(panel.assets))
    rows = slice(int(panel.offsets[asset]), int(panel.offsets[asset + 1]))
    prices = np.column_stack([panel[name][rows] for name in ("open", "high", "low", "close")])
    return trade_by_hand(
        [Bar(*bar) for bar in prices.tolist()],
        events[run, rows].tolist(),
        fee=config.costs.fee_bps / 1e4,
        slippage=config.costs.slippage_bps / 1e4,
        fraction=config.sizing.fraction,
        cash=config.initial_cash,
        allowed=ALLOWED[config.direction],
    )


def assert_column_is(result: BatchResult, column: int, hand: Account) -> None:
    panel = result.panel
    run, asset = divmod(column, len(panel.assets))
    first = int(panel.offsets[asset])
    rows = slice(first, int(panel.offsets[asset + 1]))
    largest = max([1.0, *hand.equity])  # money is rounded on the scale that the account had
    np.testing.assert_allclose(
        result.equity[run, rows], hand.equity, rtol=1e-12, atol=1e-12 * largest
    )
    assert result.liquidated[column] == hand.ruined
    assert result.pending[column] == (NOTHING_PENDING if hand.pending is None else hand.pending)
    trades = result.trades.take(np.flatnonzero(result.trades.column == column))
    assert [EXIT_REASONS[i] for i in trades.exit_reason] == [t.reason for t in hand.trades]
    assert trades.side.tolist() == [t.side for t in hand.trades]
    assert trades.number.tolist() == list(range(1, len(trades) + 1))
    assert trades.bars_held.tolist() == [t.bars_held for t in hand.trades]
    assert trades.is_open.tolist() == [t.reason == "end_of_data" for t in hand.trades]
    opens_at = panel.timeframe.period_bounds(panel.ts)[0]
    closes = np.isin(trades.exit_reason, (0, 1))
    exit_row = first + np.array([t.exit_bar for t in hand.trades], np.int64)
    entry_row = first + np.array([t.entry_bar for t in hand.trades], np.int64)
    assert np.array_equal(trades.entry_ts, opens_at[entry_row])
    assert np.array_equal(trades.exit_ts, np.where(closes, opens_at[exit_row], panel.ts[exit_row]))
    for name in ("entry_price", "size", "exit_price", "fees", "slippage_cost", "pnl"):
        by_hand = [getattr(t, name) for t in hand.trades]
        np.testing.assert_allclose(
            getattr(trades, name), by_hand, rtol=1e-12, atol=1e-12 * largest, err_msg=name
        )
    for name, hand_name in (("mae", "worst"), ("mfe", "best")):
        by_hand = [getattr(t, hand_name) for t in hand.trades]
        np.testing.assert_allclose(getattr(trades, name), by_hand, rtol=1e-11, atol=1e-12)
    if len(hand.equity):
        assert result.metrics["exposure"][column] == hand.held / len(hand.equity)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    volatility=st.sampled_from([0.005, 0.05, 0.4]),
    fee_bps=st.sampled_from([0.0, 10.0, 123.4, 2500.0]),
    slippage_bps=st.sampled_from([0.0, 5.0, 77.7, 1500.0]),
    fraction=st.sampled_from([1.0, 0.999, 0.5, 0.013]),
    cash=st.sampled_from([1.0, 10_000.0, 1e9]),
    direction=st.sampled_from(list(Direction)),
)
def test_random_signals_in_random_markets_agree_with_the_simulation_by_hand(
    seed: int,
    volatility: float,
    fee_bps: float,
    slippage_bps: float,
    fraction: float,
    cash: float,
    direction: Direction,
) -> None:
    rng = np.random.default_rng(seed)
    panel = random_panel(rng, LENGTHS, volatility, holes=0.1)
    events = random_events(rng, RUNS, panel)
    config = SimulationConfig(
        CostModel(fee_bps, slippage_bps), FixedFractional(fraction), direction, cash
    )
    result = simulate_batch(panel, events, config)
    for column in range(RUNS * len(panel.assets)):
        assert_column_is(result, column, by_hand(panel, events, config, column))
