"""The trade log of a batch."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numba import njit

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.engine import Fills
from backtest_pipeline.simulation.equity import EquityCurves
from backtest_pipeline.simulation.orders import Orders

EXIT_REASONS = ("signal", "reversal", "liquidation", "end_of_data")
SIGNAL, REVERSAL, LIQUIDATION, END_OF_DATA = range(4)


@dataclass(frozen=True)
class Trades:
    """Trades sorted by column, then entry; all arrays are `(n_trades,)`.

    Attributes:
        column: int64, `run * n_assets + asset`.
        number: int64, 1, 2, 3 ... within the column.
        entry_ts, exit_ts: int64 microseconds UTC. The open of the bar that filled; for
            a liquidation or an open trade the close stamp of its last bar.
        entry_price, exit_price: after slippage; the last close where the trade is open.
        side: int8, 1 long, -1 short.
        size: units, positive.
        fees: both sides, quote currency.
        slippage_cost: what the fills lost against the bars' opens, quote currency.
        pnl: after fees, quote currency; an open trade is marked to the last close.
        pnl_pct: pnl as a fraction of the entry's notional.
        mae, mfe: worst and best excursion, as fractions of the entry price, seen for the side.
        bars_held: bars at whose close the position was held.
        exit_reason: int8, index into EXIT_REASONS.
        is_open: bool.
        entry_after_gap: bool, the entry's bar came after a hole in the data.
    """

    column: np.ndarray
    number: np.ndarray
    entry_ts: np.ndarray
    exit_ts: np.ndarray
    entry_price: np.ndarray
    exit_price: np.ndarray
    side: np.ndarray
    size: np.ndarray
    fees: np.ndarray
    slippage_cost: np.ndarray
    pnl: np.ndarray
    pnl_pct: np.ndarray
    mae: np.ndarray
    mfe: np.ndarray
    bars_held: np.ndarray
    exit_reason: np.ndarray
    is_open: np.ndarray
    entry_after_gap: np.ndarray

    def __len__(self) -> int:
        return len(self.column)

    def take(self, rows: np.ndarray | slice) -> Trades:
        """The trades at these positions."""
        return Trades(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@njit(cache=True, nogil=True)
def _excursions(low, high, first, last, entry_price, exit_price, side, mae, mfe):
    for i in range(len(first)):
        lowest = min(entry_price[i], exit_price[i])
        highest = max(entry_price[i], exit_price[i])
        for t in range(first[i], last[i]):
            lowest = min(lowest, low[t])
            highest = max(highest, high[t])
        down = lowest / entry_price[i] - 1.0
        up = highest / entry_price[i] - 1.0
        # Not -down: nothing lost is 0, not -0.
        mae[i], mfe[i] = (down, up) if side[i] > 0 else (0.0 - up, 0.0 - down)


def trade_log(panel: Panel, orders: Orders, fills: Fills, curves: EquityCurves) -> Trades:
    """Match fills to trades: each fill that leaves a position opens one, the next fill ends it."""
    entry, exit_, closed = _match(orders, fills, curves)
    column = orders.column[fills.order[entry]]
    liquidated = ~closed & (curves.liquidation_row[column] >= 0)
    is_open = ~closed & ~liquidated

    last_row = panel.offsets[column % len(panel.assets) + 1] - 1
    entry_row, exit_row = orders.row[fills.order[entry]], orders.row[fills.order[exit_]]
    exit_row = np.where(
        closed, exit_row, np.where(liquidated, curves.liquidation_row[column], last_row)
    )
    # Bars whose whole range the position saw: up to the bar before an exit at the open.
    seen_until = np.where(is_open, last_row + 1, exit_row)

    units, entry_price = curves.units_after[entry], fills.price[entry]
    side, size = np.sign(units).astype(np.int8), np.abs(units)
    exit_price = np.where(
        closed,
        fills.price[exit_],
        np.where(liquidated, curves.liquidation_price[column], panel["close"][last_row]),
    )
    # A reversal is one fill; its fee belongs to two trades.
    fees = fills.fees[entry] * (size / np.abs(fills.size[entry])) + np.where(
        closed, fills.fees[exit_] * (size / np.abs(fills.size[exit_])), 0.0
    )
    pnl = side * size * (exit_price - entry_price) - fees
    entry_slippage = np.abs(entry_price - panel["open"][entry_row])
    exit_slippage = np.where(closed, np.abs(exit_price - panel["open"][exit_row]), 0.0)

    mae, mfe = np.empty(len(side)), np.empty(len(side))
    _excursions(
        panel["low"], panel["high"], entry_row, seen_until, entry_price, exit_price, side, mae, mfe
    )
    reversed_ = closed & (orders.target[fills.order[exit_]] != 0)
    reason = np.select(
        [is_open, liquidated, reversed_], [END_OF_DATA, LIQUIDATION, REVERSAL], SIGNAL
    )
    opens_at = panel.timeframe.period_bounds(panel.ts)[0]
    first_of_column = np.searchsorted(column, column)
    return Trades(
        column=column,
        number=np.arange(len(column)) - first_of_column + 1,
        entry_ts=opens_at[entry_row],
        exit_ts=np.where(closed, opens_at[exit_row], panel.ts[exit_row]),
        entry_price=entry_price,
        exit_price=exit_price,
        side=side,
        size=size,
        fees=fees,
        slippage_cost=size * (entry_slippage + exit_slippage),
        pnl=pnl,
        pnl_pct=pnl / (entry_price * size),
        mae=mae,
        mfe=mfe,
        bars_held=seen_until - entry_row,
        exit_reason=reason.astype(np.int8),
        is_open=is_open,
        entry_after_gap=_follows_hole(panel, entry_row),
    )


def _match(
    orders: Orders, fills: Fills, curves: EquityCurves
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each trade its entry fill, its exit fill, and whether there is such an exit.

    Where there is none, the exit fill is the entry fill.
    """
    column = orders.column[fills.order]
    entry = np.flatnonzero(curves.units_after)
    following = np.minimum(entry + 1, len(column) - 1)
    closed = (
        (following > entry)
        & (column[following] == column[entry])
        & (following < curves.fills_done[column[entry]])
    )
    return entry, np.where(closed, following, entry), closed


def _follows_hole(panel: Panel, rows: np.ndarray) -> np.ndarray:
    """Whether bars are missing before these rows; none of them is an asset's first."""
    start = panel.timeframe.period_bounds(panel.ts[rows])[0]
    return start > panel.timeframe.period_bounds(panel.ts[rows - 1])[1]


def trade_columns(trades: Trades) -> dict[str, np.ndarray]:
    """The log as it is shown and stored: names instead of codes, stamps still as numbers."""
    return {
        "trade_no": trades.number,
        "entry_ts": trades.entry_ts,
        "exit_ts": trades.exit_ts,
        "entry_price": trades.entry_price,
        "exit_price": trades.exit_price,
        "direction": np.where(trades.side > 0, "long", "short").astype(object),
        "size": trades.size,
        "fees": trades.fees,
        "slippage_cost": trades.slippage_cost,
        "pnl": trades.pnl,
        "pnl_pct": trades.pnl_pct,
        "mae": trades.mae,
        "mfe": trades.mfe,
        "bars_held": trades.bars_held,
        "exit_reason": np.array(EXIT_REASONS, object)[trades.exit_reason],
        "is_open": trades.is_open,
        "entry_after_gap": trades.entry_after_gap,
    }
