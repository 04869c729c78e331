"""Equity, exposure and liquidation of each column, bar by bar, from its fills."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.engine import Fills
from backtest_pipeline.simulation.orders import Orders


@dataclass(frozen=True)
class EquityCurves:
    """The account of each column.

    Attributes:
        equity: float64 `(n_runs, n_rows)`, cash plus position at each bar's close.
        units_after: float64 `(n_fills,)`, the position that each fill left; 0 for the fills that a
            liquidation forestalled.
        bars_in_position: int64 `(n_columns,)`, bars at whose close a position was held.
        fills_done: int64 `(n_columns,)`, end of the column's executed fills; what a liquidated
            column ordered later never happened.
        liquidation_row: int64 `(n_columns,)`, panel row, -1 where there was none.
        liquidation_price: float64 `(n_columns,)`, price at which the equity is zero, NaN else.
    """

    equity: np.ndarray
    units_after: np.ndarray
    bars_in_position: np.ndarray
    fills_done: np.ndarray
    liquidation_row: np.ndarray
    liquidation_price: np.ndarray


@njit(cache=True, nogil=True)
def _walk(
    offsets, open_, high, close, first_fill, fill_row, fill_size, fill_price, fill_fees, fill_flat,
    initial_cash, equity, units_after, bars_in_position, fills_done, liquidation_row,
    liquidation_price,
):  # fmt: skip
    n_runs = equity.shape[0]
    n_assets = len(offsets) - 1
    for run in range(n_runs):
        for asset in range(n_assets):
            c = run * n_assets + asset
            cash, units = initial_cash, 0.0
            f, last = first_fill[c], first_fill[c + 1]
            ruined = False
            for t in range(offsets[asset], offsets[asset + 1]):
                if ruined:
                    equity[run, t] = 0.0
                    continue
                # A gap through zero equity comes before any order that is due at this open.
                ruined = units < 0.0 and cash + units * open_[t] <= 0.0
                while not ruined and f < last and fill_row[f] == t:
                    # A way out of a short that the cash does not pay for is no way out.
                    ruined = units < 0.0 and 0.0 < fill_size[f] < -units * (1.0 - 1e-9)
                    if not ruined:
                        cash -= fill_size[f] * fill_price[f] + fill_fees[f]
                        units = 0.0 if fill_flat[f] else units + fill_size[f]
                        units_after[f] = units
                        f += 1
                ruined = ruined or (units < 0.0 and cash + units * high[t] <= 0.0)
                if ruined:
                    liquidation_row[c] = t
                    liquidation_price[c] = -cash / units
                    equity[run, t] = 0.0
                    continue
                equity[run, t] = cash + units * close[t]
                if units != 0.0:
                    bars_in_position[c] += 1
            fills_done[c] = f


def equity_curves(
    panel: Panel, n_runs: int, orders: Orders, fills: Fills, initial_cash: float
) -> EquityCurves:
    """Mark every column to each bar's close, and end it where its equity is gone.

    A short whose equity reaches zero within a bar (at the bar's high, at its open after a gap, or
    because the costs of an exit eat what is left) is closed at the price at which the equity is
    zero; the column's equity stays zero.
    """
    n_columns = n_runs * len(panel.assets)
    first_fill = np.searchsorted(orders.column[fills.order], np.arange(n_columns + 1))
    curves = EquityCurves(
        equity=np.empty((n_runs, len(panel))),
        units_after=np.zeros(len(fills.order)),
        bars_in_position=np.zeros(n_columns, np.int64),
        fills_done=np.zeros(n_columns, np.int64),
        liquidation_row=np.full(n_columns, -1, np.int64),
        liquidation_price=np.full(n_columns, np.nan),
    )
    _walk(
        panel.offsets,
        panel["open"],
        panel["high"],
        panel["close"],
        first_fill,
        orders.row[fills.order],
        fills.size,
        fills.price,
        fills.fees,
        orders.target[fills.order] == 0,
        initial_cash,
        curves.equity,
        curves.units_after,
        curves.bars_in_position,
        curves.fills_done,
        curves.liquidation_row,
        curves.liquidation_price,
    )
    return curves


@njit(cache=True, nogil=True)
def drawdowns(equity: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Equity over its running maximum, less 1.

    Args:
        equity: float64 `(n_runs, n_rows)`.
        offsets: int64 `(n_assets + 1,)`; the maximum begins anew with each asset.
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
    """Returns by UTC calendar month of many columns, sorted by column, then month.

    Attributes:
        column: int64 `(n,)`.
        month: datetime64[M] `(n,)`.
        value: float64 `(n,)`, fraction; 0 where there was no equity left to earn on.
    """

    column: np.ndarray
    month: np.ndarray
    value: np.ndarray


def monthly_returns(panel: Panel, equity: np.ndarray) -> MonthlyReturns:
    """Equity at each month's last bar over that of the month before; the first over the start."""
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
