"""The same run with fills anywhere in their bars: how much hangs on getting the open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.robustness.draws import Purpose, generator, require_draws
from backtest_pipeline.research.robustness.repeat import RunInputs
from backtest_pipeline.simulation.engine import REVERSAL, SIGNAL, TIME_STOP
from backtest_pipeline.simulation.trades import Trades

_DUE = (SIGNAL, REVERSAL, TIME_STOP)


def due_fills(panel: Panel, trades: Trades) -> np.ndarray:
    """Rows of one asset's bars at whose open a fill of its run was due, ascending."""
    exits = trades.exit_ts[np.isin(trades.exit_reason, _DUE)]
    return np.union1d(trades.entry_bar, np.searchsorted(panel.ts, exits))


def random_fill_returns(run: RunInputs, trades: Trades, draws: int, seed: int) -> np.ndarray:
    """Total returns of the run with the fills at opens drawn from their bars.

    Each bar at whose open an entry, or an exit by signal or time, was due opens at a price drawn
    uniformly between its low and its high instead; slippage and fees come on top, sizes and stop
    levels follow from the price drawn. Stops, targets and liquidations keep their own prices.

    Args:
        run: the run.
        trades: what it traded.
        draws: how often it is repeated.
        seed: of the random numbers.

    Returns:
        float64 `(draws,)`, fractions.

    Raises:
        InvalidInput: without draws.
    """
    require_draws(draws, seed)
    rows = due_fills(run.panel, trades)
    low, high = run.panel["low"][rows], run.panel["high"][rows]
    returns = np.empty(draws)
    for draw in range(draws):
        share = generator(seed, Purpose.FILLS, draw).random(len(rows))
        opens = run.panel["open"].copy()
        # The sum could leave the bar by a rounding.
        opens[rows] = np.clip(low + share * (high - low), low, high)
        returns[draw] = replace(run, panel=run.panel.with_columns({"open": opens})).total_return
    return returns
