"""Drawdowns, monthly returns and position values of each column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.trades import Trades


@njit(cache=True, nogil=True)
def drawdowns(equity: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Drawdown: equity over its running maximum, minus 1; float64 `(n_runs, n_rows)`.

    Args:
        equity: float64 `(n_runs, n_rows)`.
        offsets: int64 `(n_assets + 1,)`; the maximum restarts with each asset.
    """
    out = np.empty_like(equity)
    for run in range(equity.shape[0]):
        for a in range(len(offsets) - 1):
            peak = -np.inf
            for t in range(offsets[a], offsets[a + 1]):
                peak = max(peak, equity[run, t])
                out[run, t] = equity[run, t] / peak - 1.0
    return out


@dataclass(frozen=True)
class MonthlyReturns:
    """Returns of many columns by UTC calendar month, sorted by column, then month.

    Attributes:
        column: int64 `(n,)`.
        month: datetime64[M] `(n,)`.
        value: float64 `(n,)`, fraction; 0 after a total loss.
    """

    column: np.ndarray
    month: np.ndarray
    value: np.ndarray


def monthly_returns(panel: Panel, equity: np.ndarray) -> MonthlyReturns:
    """Monthly returns of each column; those of the first month are from the starting equity."""
    month = panel.ts.view("M8[us]").astype("M8[M]")
    segment = panel.segment_of_row
    new_segment = np.diff(segment, append=-1) != 0
    is_last = new_segment | (np.diff(month.astype(np.int64), append=0) != 0)
    last = np.flatnonzero(is_last)
    first_of_asset = np.diff(segment[last], prepend=-1) != 0
    before = np.where(first_of_asset, panel.offsets[segment[last]], np.roll(last, 1))
    start, end = equity[:, before], equity[:, last]
    value = np.divide(end, start, out=np.ones_like(end), where=start > 0) - 1.0
    n_runs, n_assets = equity.shape[0], len(panel.assets)
    column = (np.arange(n_runs) * n_assets)[:, None] + segment[last]
    return MonthlyReturns(column.ravel(), np.tile(month[last], n_runs), value.ravel())


def position_values(panel: Panel, trades: Trades, n_runs: int) -> np.ndarray:
    """Value of each column's position at each bar's close, float64 `(n_runs, n_rows)`.

    Positive for a long, negative for a short, in the quote currency.
    """
    values = np.zeros((n_runs, len(panel)))
    run, asset = np.divmod(trades.column, len(panel.assets))
    entry_row = panel.offsets[asset] + trades.entry_bar
    units = trades.side * trades.size
    _fill_positions(values, run, entry_row, trades.bars_held, units, panel["close"])
    return values


@njit(cache=True, nogil=True)
def _fill_positions(values, run, entry_row, bars_held, units, close):
    for i in range(len(run)):
        for t in range(entry_row[i], entry_row[i] + bars_held[i]):
            values[run[i], t] = units[i] * close[t]
