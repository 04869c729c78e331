"""Drawdowns, monthly returns and position values of each column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.compiled import compiled
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.marks import Marks
from backtest_pipeline.simulation.trades import Trades


@compiled
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


def monthly_returns(marks: Marks, equity: np.ndarray) -> MonthlyReturns:
    """Monthly returns of each column; those of the first month are from the starting equity.

    Args:
        marks: when the equity is marked.
        equity: float64 `(n_runs, n_marks)`.
    """
    month = marks.ts.view("M8[us]").astype("M8[M]")
    segment = marks.segment
    new_segment = np.diff(segment, append=-1) != 0
    is_last = new_segment | (np.diff(month.astype(np.int64), append=0) != 0)
    last = np.flatnonzero(is_last)
    first_of_asset = np.diff(segment[last], prepend=-1) != 0
    before = np.where(first_of_asset, marks.offsets[segment[last]], np.roll(last, 1))
    start, end = equity[:, before], equity[:, last]
    value = np.divide(end, start, out=np.ones_like(end), where=start > 0) - 1.0
    n_runs, n_assets = equity.shape[0], len(marks.offsets) - 1
    column = (np.arange(n_runs) * n_assets)[:, None] + segment[last]
    return MonthlyReturns(column.ravel(), np.tile(month[last], n_runs), value.ravel())


def position_values(
    panel: Panel, marks: Marks, trades: Trades, held: np.ndarray, n_runs: int
) -> np.ndarray:
    """Value of each column's position at each mark, float64 `(n_runs, n_marks)`.

    Positive for a long, negative for a short, in the quote currency; arguments as
    `simulation.marks.marked_equity` takes them.
    """
    values = np.zeros((n_runs, len(marks)))
    run = trades.column // max(len(panel.assets), 1)
    _fill_positions(values, run, held, trades.side * trades.size, marks.close(panel))
    return values


@compiled
def _fill_positions(values, run, held, units, close):
    for i in range(len(run)):
        for m in range(held[i, 0], held[i, 1]):
            values[run[i], m] += units[i] * close[m]  # a position may end in parts
