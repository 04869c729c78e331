"""The trade log of a batch."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.engine import END_OF_DATA, EXIT_REASONS, STOP_KINDS

_STOP_NAMES = np.array([*STOP_KINDS, None], object)  # NO_STOP is the last


@dataclass(frozen=True)
class Trades:
    """Trades sorted by column, then entry; all arrays are `(n_trades,)`.

    Attributes:
        column: int64, `run * n_assets + asset`.
        number: int64, 1, 2, 3 ... within the column.
        entry_bar: int64, position, among the asset's bars, of the bar at whose open it was entered.
        entry_ts, exit_ts: int64, microseconds since 1970 UTC: the open time for a fill at the open;
            the close stamp of the last bar for an exit inside a bar, or an open trade.
        entry_price, exit_price: after slippage; the last close for an open trade.
        side: int8, 1 long, -1 short.
        size: units, positive.
        fees: both sides, quote currency.
        slippage_cost: difference between fills and their reference prices, quote currency.
        funding: funding paid, quote currency; negative if received.
        pnl: after fees and funding, quote currency; an open trade is marked to the last close.
        pnl_pct: pnl as a fraction of the entry's notional.
        mae, mfe: maximum adverse and favourable excursion, fractions of the entry price.
        bars_held: number of bars at whose close the position was open.
        entry_stop, exit_stop: the stop that the price would meet first, as set at the entry and
            as it stood at the exit; NaN without one.
        entry_stop_kind, exit_stop_kind: int8, index into STOP_KINDS, or NO_STOP.
        exit_reason: int8, index into EXIT_REASONS.
        is_open: bool.
        entry_after_gap: bool, whether bars are missing just before the entry's bar.
        exit_after_gap: bool, whether it was held through missing bars and left right after them.
        held_across_gap: bool, whether bars are missing between its entry and its exit or last mark.
    """

    column: np.ndarray
    number: np.ndarray
    entry_bar: np.ndarray
    entry_ts: np.ndarray
    exit_ts: np.ndarray
    entry_price: np.ndarray
    exit_price: np.ndarray
    side: np.ndarray
    size: np.ndarray
    fees: np.ndarray
    slippage_cost: np.ndarray
    funding: np.ndarray
    pnl: np.ndarray
    pnl_pct: np.ndarray
    mae: np.ndarray
    mfe: np.ndarray
    bars_held: np.ndarray
    entry_stop: np.ndarray
    entry_stop_kind: np.ndarray
    exit_stop: np.ndarray
    exit_stop_kind: np.ndarray
    exit_reason: np.ndarray
    is_open: np.ndarray
    entry_after_gap: np.ndarray
    exit_after_gap: np.ndarray
    held_across_gap: np.ndarray

    def __len__(self) -> int:
        return len(self.column)

    def take(self, rows: np.ndarray | slice) -> Trades:
        """The trades at these positions."""
        return Trades(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def trade_log(panel: Panel, records: np.ndarray) -> Trades:
    """Trades from the engine's TRADE records, which may be in any order."""
    records = records[np.lexsort((records["entry_row"], records["column"]))]
    side = np.sign(records["units"]).astype(np.int8)
    size = np.abs(records["units"])
    entry, exit_ = records["entry_price"], records["exit_price"]
    fees, funding = records["fees"], records["funding"]
    pnl = side * size * (exit_ - entry) - fees - funding
    down, up = records["lowest"] / entry - 1.0, records["highest"] / entry - 1.0
    opens_at = panel.timeframe.period_bounds(panel.ts)[0]
    column, row = records["column"], records["exit_row"]
    is_open = records["reason"] == END_OF_DATA
    exit_after_gap, held_across_gap = _through_holes(panel, records)
    return Trades(
        column=column,
        number=np.arange(len(column)) - np.searchsorted(column, column) + 1,
        entry_bar=records["entry_row"] - panel.offsets[column % len(panel.assets)],
        entry_ts=opens_at[records["entry_row"]],
        exit_ts=np.where(records["at_open"], opens_at[row], panel.ts[row]),
        entry_price=entry,
        exit_price=exit_,
        side=side,
        size=size,
        fees=fees,
        slippage_cost=records["slippage_cost"],
        funding=funding,
        pnl=pnl,
        pnl_pct=pnl / (entry * size),
        # Not -down: nothing lost is 0, not -0.
        mae=np.where(side > 0, down, 0.0 - up),
        mfe=np.where(side > 0, up, 0.0 - down),
        bars_held=records["bars_held"],
        entry_stop=records["entry_stop"],
        entry_stop_kind=records["entry_stop_kind"],
        exit_stop=records["exit_stop"],
        exit_stop_kind=records["exit_stop_kind"],
        exit_reason=records["reason"],
        is_open=is_open,
        entry_after_gap=_follows_hole(panel)[records["entry_row"]],
        exit_after_gap=exit_after_gap & ~is_open,
        held_across_gap=held_across_gap,
    )


def _follows_hole(panel: Panel) -> np.ndarray:
    """For each row whether bars of the asset are missing before it; not so of its first."""
    start, end = panel.timeframe.period_bounds(panel.ts)
    follows = np.append(False, start[1:] > end[:-1])[: len(start)]
    follows[panel.offsets[:-1][panel.lengths > 0]] = False
    return follows


def _through_holes(panel: Panel, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each trade ended right after a hole that it was held through, and was in any."""
    start, end = panel.timeframe.period_bounds(panel.ts)
    follows = _follows_hole(panel)
    entry, exit_ = records["entry_row"], records["exit_row"]
    segment = panel.segment_of_row
    # A position that has no bar when its book is liquidated ends with a bar of another asset.
    last = np.where(segment[exit_] == segment[entry], exit_, entry + records["bars_held"] - 1)
    at_end = np.where(last == exit_, follows[last] & (last > entry), start[exit_] > end[last])
    holes = np.cumsum(follows)
    return at_end, at_end | (holes[last] > holes[entry])


def trade_columns(trades: Trades) -> dict[str, np.ndarray]:
    """Columns of the trade log: names instead of codes, stamps still as integers."""
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
        "funding": trades.funding,
        "pnl": trades.pnl,
        "pnl_pct": trades.pnl_pct,
        "mae": trades.mae,
        "mfe": trades.mfe,
        "bars_held": trades.bars_held,
        "entry_stop": trades.entry_stop,
        "entry_stop_kind": _STOP_NAMES[trades.entry_stop_kind],
        "exit_stop": trades.exit_stop,
        "exit_stop_kind": _STOP_NAMES[trades.exit_stop_kind],
        "exit_reason": np.array(EXIT_REASONS, object)[trades.exit_reason],
        "is_open": trades.is_open,
        "entry_after_gap": trades.entry_after_gap,
        "exit_after_gap": trades.exit_after_gap,
        "held_across_gap": trades.held_across_gap,
    }
