"""When the equity of a run is marked: at each bar's close, and between the closes of bars longer
than a day at the end of each UTC day whose daily bar is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backtest_pipeline.market.compiled import compiled
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US
from backtest_pipeline.simulation.engine import LIQUIDATION, TAKE_PROFIT
from backtest_pipeline.simulation.funding import FundingRates, funding_of_bars
from backtest_pipeline.simulation.trades import Trades
from backtest_pipeline.trading.costs import CostModel

DAILY = "1D"
"""The timeframe of the bars that mark days."""
MARK_COLUMNS = ("high", "low", "close")
"""The columns of daily bars that marks are made from."""
_ROUNDING = 1e-9
_AT_CLOSE = -1  # of no daily bar
_MS = 1_000
_ASSET = 1 << 42  # more milliseconds than any timestamp has


@dataclass(frozen=True)
class Marks:
    """The instants at which the runs of a panel are marked, those of an asset in order of time.

    The first mark of an asset is its first bar's close, the last its last bar's close, and every
    bar's close is one.

    Attributes:
        ts: int64 `(n_marks,)`, microseconds since 1970 UTC.
        offsets: int64 `(n_assets + 1,)`, first mark of each asset, then the number of marks.
        row: int64 `(n_marks,)`, row of the panel's bar that the mark lies in, or closes.
        days: the daily bars that end between two closes.
        day: int64 `(n_marks,)`, row of `days`, or -1 at a bar's close.
    """

    ts: np.ndarray
    offsets: np.ndarray
    row: np.ndarray
    days: Panel
    day: np.ndarray

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def lengths(self) -> np.ndarray:
        """Number of marks of each asset, int64 `(n_assets,)`."""
        return np.diff(self.offsets)

    @property
    def segment(self) -> np.ndarray:
        """Position of each mark's asset, int64 `(n_marks,)`."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths)

    @property
    def is_daily(self) -> np.ndarray:
        """Whether days are marked between the closes of an asset's bars, bool `(n_assets,)`."""
        between = np.concatenate(([0], np.cumsum(self.day != _AT_CLOSE)))
        return np.diff(between[self.offsets]) > 0

    def close(self, panel: Panel) -> np.ndarray:
        """Price of the asset at each mark, float64 `(n_marks,)`."""
        prices = panel["close"][self.row]
        between = self.day != _AT_CLOSE
        prices[between] = self.days["close"][self.day[between]]
        return prices


def marks_of(panel: Panel, daily: Panel | None = None) -> Marks:
    """The marks of a panel's runs.

    An asset is marked daily where its bars are stamped on the last day of their periods, each of
    them but the first has a daily bar that ends before its own close, and none of these leaves the
    range of its bar; otherwise at its bars' closes alone. Daily bars that lie in no bar, because
    one is missing, mark nothing.

    Args:
        panel: bars, each asset once where `daily` is given.
        daily: MARK_COLUMNS of daily bars, of any of the panel's assets and any days; not
            looked at where the panel's bars are not longer than a day.

    Examples:
        >>> from backtest_pipeline import load_bars
        >>> from backtest_pipeline.simulation.pandas_objects.frames import bars_panel
        >>> weeks, days = (
        ...     bars_panel(load_bars(asset="S-ALPHA", timeframe=tf), tf) for tf in ("1W", "1D")
        ... )
        >>> (len(marks_of(weeks, days)) - 1) / (len(weeks) - 1)
        7.0
    """
    if daily is None or panel.timeframe.days <= 1 or not len(daily):
        nothing = Panel(panel.timeframe, (), np.zeros(1, np.int64), panel.ts[:0],
                        {name: np.zeros(0) for name in MARK_COLUMNS})  # fmt: skip
        at_close = np.full(len(panel), _AT_CLOSE, np.int64)
        return Marks(panel.ts, panel.offsets, np.arange(len(panel)), nothing, at_close)
    daily = daily.select([asset for asset in panel.assets if asset in set(daily.assets)])
    daily = replace(daily, ts=daily.timeframe.period_bounds(daily.ts)[1] - CLOSE_STAMP_US)
    row, within = _bars_around(panel, daily)
    segment = panel.segment_of_row
    n_days = np.bincount(row[within], minlength=len(panel))
    n_days[panel.offsets[:-1][panel.lengths > 0]] = 1  # before the first close nothing is held
    unfit = np.zeros(len(panel.assets), bool)
    closing = panel.timeframe.period_bounds(panel.ts)[1] - panel.ts <= DAY_US
    unfit[segment[(n_days == 0) | ~closing]] = True
    outside = (daily["low"] < panel["low"][row] * (1 - _ROUNDING)) | (
        daily["high"] > panel["high"][row] * (1 + _ROUNDING)
    )
    unfit[segment[row[within & outside]]] = True
    fit = within & ~unfit[segment[row]]
    days, row = daily.take(fit), row[fit]
    ts = np.concatenate([panel.ts, days.ts])
    rows = np.concatenate([np.arange(len(panel)), row])
    day = np.concatenate([np.full(len(panel), _AT_CLOSE), np.arange(len(days))])
    order = np.lexsort((ts, segment[rows]))
    lengths = np.bincount(segment[rows], minlength=len(panel.assets))
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return Marks(ts[order], offsets, rows[order], days, day[order])


def _bars_around(panel: Panel, daily: Panel) -> tuple[np.ndarray, np.ndarray]:
    """The row of the bar before whose close each daily bar ends, int64, and whether it lies in
    that bar, which is not its asset's first; bool."""
    position = {asset: i for i, asset in enumerate(panel.assets)}
    of_daily = np.array([position[asset] for asset in daily.assets], np.int64)
    asset = of_daily[daily.segment_of_row]
    closes = panel.segment_of_row * _ASSET + panel.ts // _MS
    row = np.searchsorted(closes, asset * _ASSET + daily.ts // _MS, side="right")
    row = np.minimum(row, max(len(panel) - 1, 0))
    starts = panel.timeframe.period_bounds(panel.ts)[0]
    day_starts = daily.timeframe.period_bounds(daily.ts)[0]
    within = (panel.segment_of_row[row] == asset) & (daily.ts < panel.ts[row])
    return row, within & (day_starts >= starts[row]) & (row > panel.offsets[asset])


def held_marks(panel: Panel, marks: Marks, trades: Trades, slippage: float) -> np.ndarray:
    """From which mark on, and up to which, each trade is held, int64 `(n_trades, 2)`, half-open.

    A trade that ends within a bar ends on the day whose low or high first reaches its exit, and is
    over at that day's end.

    Args:
        panel, marks: the bars and their marks.
        trades: trades on them.
        slippage: fraction of the price by which fills were worse than the level that was reached.
    """
    first_mark = np.searchsorted(marks.row, np.arange(len(panel) + 1))
    asset = trades.column % max(len(panel.assets), 1)
    entry_row = panel.offsets[asset] + trades.entry_bar
    exit_row = entry_row + trades.bars_held
    held = np.empty((len(trades), 2), np.int64)
    held[:, 0] = first_mark[entry_row]
    held[:, 1] = np.where(trades.is_open, marks.offsets[asset + 1], first_mark[exit_row])
    inside = np.flatnonzero(~trades.is_open & (exit_row < panel.offsets[asset + 1]))
    inside = inside[trades.exit_ts[inside] == panel.ts[exit_row[inside]]]
    # A liquidation fills where the account is worth nothing, without slippage.
    fill = np.where(trades.exit_reason == LIQUIDATION, 0.0, trades.side * slippage)
    level = trades.exit_price / (1.0 - fill)
    towards = np.where(trades.exit_reason == TAKE_PROFIT, trades.side, -trades.side)
    _until_reached(
        held, inside, first_mark, exit_row, level, towards, marks.day, marks.days["low"],
        marks.days["high"],
    )  # fmt: skip
    return held


@compiled
def _until_reached(held, inside, first_mark, exit_row, level, towards, day, low, high):
    for i in inside:
        m = first_mark[exit_row[i]]
        while day[m] != _AT_CLOSE:  # at the bar's close it is over
            if towards[i] > 0 and high[day[m]] >= level[i] * (1.0 - _ROUNDING):
                break
            if towards[i] < 0 and low[day[m]] <= level[i] * (1.0 + _ROUNDING):
                break
            m += 1
        held[i, 1] = m


def marked_equity(
    panel: Panel,
    marks: Marks,
    equity: np.ndarray,
    trades: Trades,
    held: np.ndarray,
    costs: CostModel,
    funding: FundingRates | None = None,
) -> np.ndarray:
    """Equity at each mark, float64 `(n_runs, n_marks)`; at a bar's close exactly that of the bar.

    Between two closes a position is worth its units at the day's close, less the funding due by
    then, which is charged day by day at each day's close; the bar's close settles the difference to
    what the engine charges for the whole bar. An account is never worth less than nothing.

    Args:
        panel, marks: the bars and their marks.
        equity: float64 `(n_runs, n_rows)`, at the bars' closes.
        trades: trades of all runs.
        held: as `held_marks` returns it.
        costs, funding: those of the runs.

    Raises:
        InvalidInput: for an asset whose days the funding rates do not cover.
    """
    if not len(marks.days):
        return equity
    marked = np.take(equity, marks.row, axis=1)  # always in C order, as the kernel is compiled for
    of_bars, in_holes = funding_of_bars(panel, costs.funding_bps_day, funding)
    of_days = funding_of_bars(marks.days, costs.funding_bps_day, funding)[0]
    run, units = trades.column // len(panel.assets), trades.side * trades.size
    entry_row = marks.row[held[:, 0]]
    exit_row = marks.row[np.minimum(held[:, 1], len(marks) - 1)]
    exit_fee = trades.fees - trades.size * trades.entry_price * costs.fee_bps / 1e4
    # What was charged before the exit's bar, and for the hole before it.
    paid = np.concatenate(([0.0], np.cumsum(panel["close"] * of_bars)))
    paid_in_holes = np.cumsum(panel["open"] * in_holes)
    before = paid[exit_row] - paid[entry_row] + paid_in_holes[exit_row] - paid_in_holes[entry_row]
    _mark_days(
        marked, run, held, np.where(trades.is_open, -1, exit_row), units,
        np.ascontiguousarray(trades.exit_price), exit_fee, trades.funding - units * before,
        marks.row, marks.day, np.require(panel["close"], requirements=["C", "W"]),
        marks.days["close"], of_bars, of_days,
    )  # fmt: skip
    return marked


@compiled
def _mark_days(
    marked, run, held, exit_row, units, exit_price, exit_fee, exit_funding, row, day, close,
    day_close, funding, day_funding,
):  # fmt: skip
    """Mark each day back from its bar's close: what the rest of the bar earned is taken off."""
    for i in range(len(run)):
        paid = 0.0  # funding of the bar at hand, up to the day
        for m in range(held[i, 0], held[i, 1]):
            if day[m] == _AT_CLOSE:
                paid = 0.0
                continue
            bar = row[m]
            price, owed, fee = close[bar], units[i] * close[bar] * funding[bar], 0.0
            if bar == exit_row[i]:
                price, owed, fee = exit_price[i], exit_funding[i], exit_fee[i]
            paid += units[i] * day_close[day[m]] * day_funding[day[m]]
            rest = units[i] * (price - day_close[day[m]]) - fee - (owed - paid)
            marked[run[i], m] = max(marked[run[i], m] - rest, 0.0)
