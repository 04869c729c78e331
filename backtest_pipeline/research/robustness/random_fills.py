"""The same run with fills at random prices within their bars: how much depends on the open."""

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
    """Rows at whose open the run had a fill, on its only asset, ascending."""
    exits = trades.exit_ts[np.isin(trades.exit_reason, _DUE)]
    return np.union1d(trades.entry_bar, np.searchsorted(panel.ts, exits))


def random_fill_returns(run: RunInputs, trades: Trades, draws: int, seed: int) -> np.ndarray:
    """Total returns of the run with fills at random prices instead of the open.

    The open of each bar with an entry, or with an exit by signal or time, is replaced by a uniform
    random price between its low and high. Slippage and fees are added; sizes and stop levels follow
    from the random price. Stops, targets and liquidations fill at their own prices.

    Args:
        run: the run.
        trades: its trades.
        draws: number of repetitions.
        seed: random seed.

    Returns:
        float64 `(draws,)`, fractions.

    Raises:
        InvalidInput: for a number of draws or a seed out of range.
    """
    require_draws(draws, seed)
    rows = due_fills(run.panel, trades)
    low, high = run.panel["low"][rows], run.panel["high"][rows]
    returns = np.empty(draws)
    for draw in range(draws):
        share = generator(seed, Purpose.FILLS, draw).random(len(rows))
        opens = run.panel["open"].copy()
        # Rounding must not push the price out of the bar.
        opens[rows] = np.clip(low + share * (high - low), low, high)
        returns[draw] = replace(run, panel=run.panel.with_columns({"open": opens})).total_return
    return returns
