"""The same run with fills anywhere in their bars: how much hangs on getting the open."""

from __future__ import annotations

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.draws import Purpose, blocks, generator, require_draws
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.trades import Trades


def filled_at_open(panel: Panel, trades: Trades) -> np.ndarray:
    """Rows of one asset's bars at whose open its run filled, ascending."""
    entry = np.searchsorted(panel.ts, trades.entry_ts)
    exit_ = np.searchsorted(panel.ts, trades.exit_ts)
    # What ends within a bar, or not at all, carries that bar's close stamp.
    at_open = panel.ts[exit_] != trades.exit_ts
    return np.union1d(entry, exit_[at_open])


def random_fill_returns(
    panel: Panel,
    events: np.ndarray,
    config: SimulationConfig,
    trades: Trades,
    draws: int,
    seed: int,
) -> np.ndarray:
    """Total returns of the run with the fills at opens drawn from their bars.

    Each bar at whose open the run filled opens at a price drawn uniformly between its low and its
    high instead; slippage and fees come on top, sizes and stop levels follow from the price drawn.
    Fills within a bar (stops, targets, a liquidation) stay where they are.

    Args:
        panel: bars of one asset.
        events: uint8 `(1, n_rows)`, the run's signals.
        config: as the run had it.
        trades: the run's.
        draws: runs.
        seed: of the random numbers.

    Returns:
        float64 `(draws,)`, fractions.

    Raises:
        InvalidInput: without draws.
    """
    require_draws(draws, seed)
    rows = filled_at_open(panel, trades)
    low, high = panel["low"][rows], panel["high"][rows]
    found = []
    for block in blocks(draws, len(panel)):
        repeated = _side_by_side(panel, len(block))
        opens = repeated["open"].reshape(len(block), len(panel))
        for i, draw in enumerate(block):
            share = generator(seed, Purpose.FILLS, draw).random(len(rows))
            # The sum of two products could leave the bar by a rounding.
            opens[i, rows] = np.clip(low + share * (high - low), low, high)
        batch = simulate_batch(repeated, np.tile(events, len(block)), config)
        found.append(batch.metrics["total_return"])
    return np.concatenate(found)


def _side_by_side(panel: Panel, n: int) -> Panel:
    """The panel's only asset `n` times, each on rows of its own."""
    return Panel(
        panel.timeframe,
        panel.assets * n,
        np.arange(n + 1) * len(panel),
        np.tile(panel.ts, n),
        {name: np.tile(column, n) for name, column in panel.columns.items()},
    )
