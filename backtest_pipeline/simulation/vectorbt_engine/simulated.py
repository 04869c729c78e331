"""Runs that vectorbt's Portfolio simulates: the same inputs and the same kind of result.

vectorbt's `from_signals` fills an order within one row, looks at stops only in later rows, and
lets a stop override what is due at the open. So each bar is laid out as four rows:

    exits       what is due at the open closes, at the open
    entries     what is due at the open is entered, at the open
    the open    a stop or target that the open has passed fills there
    the range   a stop, then a target, within low..high

The first two rows have no prices that a stop could meet. The range follows the entry, so a stop
counts from the entry's bar on, as it does in the account.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.engine import (
    END_OF_DATA,
    NO_REST,
    NOTHING_PENDING,
    REFUSAL,
    TRADE,
    UNSIZED,
    WITHOUT_STOP,
    Simulated,
    decide_all,
)
from backtest_pipeline.simulation.vectorbt_engine.due import Due, due_at_opens
from backtest_pipeline.simulation.vectorbt_engine.library import vectorbt_library
from backtest_pipeline.simulation.vectorbt_engine.trades_of_orders import (
    EXITS,
    RANGE,
    ROWS,
    require_solvent,
    trades_of_orders,
)

if TYPE_CHECKING:
    from backtest_pipeline.simulation.inputs import AccountInputs

_CELLS = 2_000_000  # of each array of a batch: 16 MB


def simulate_with_vectorbt(inputs: AccountInputs, panel: Panel) -> Simulated:
    """Simulate every run on each asset of the panel, each column in a portfolio of its own.

    Args:
        inputs: what accounts would trade over, of assumptions that
            `held_by_vectorbt.require_held_by_vectorbt` accepts.
        panel: the bars.

    Raises:
        InvalidInput: for a short whose loss takes all of the equity, which vectorbt lets fall
            below zero and come back.
        ConfigurationError: where vectorbt is missing or of another version.
    """
    n_runs, n_assets = len(inputs.events), len(panel.assets)
    longest = int(panel.lengths.max(initial=0))
    at_once = max(1, _CELLS // max(1, ROWS * longest * n_assets))
    parts = [
        _simulated(inputs, panel, range(first, min(first + at_once, n_runs)), longest)
        for first in range(0, n_runs if longest else 0, at_once)
    ]
    n_columns = n_runs * n_assets
    if not parts:
        parts = [(np.empty((n_runs, 0)), np.zeros(0, TRADE), np.zeros(0, REFUSAL))]
    trades = np.concatenate([trades for _, trades, _ in parts])
    held = trades[trades["reason"] == END_OF_DATA]
    side = np.zeros(n_columns, np.int8)
    side[held["column"]] = np.sign(held["units"])
    return Simulated(
        equity=np.concatenate([equity for equity, _, _ in parts]),
        trades=trades,
        refusals=np.concatenate([refusals for _, _, refusals in parts]),
        side=side,
        next_side=_next_sides(inputs.events, panel, side),
        rests=np.full(n_columns, NO_REST, np.int64),
        ruined=np.zeros(n_columns, np.bool_),
    )


def _next_sides(events: np.ndarray, panel: Panel, side: np.ndarray) -> np.ndarray:
    last = np.maximum(panel.offsets[1:] - 1, 0)
    seen = events[:, last] if events.shape[1] else np.zeros((len(events), len(last)), np.uint8)
    seen = np.where(panel.lengths > 0, seen, np.uint8(0)).ravel()
    rests = np.full(len(side), NO_REST, np.int64)
    wanted = decide_all(side, seen, rests, np.tile(last, len(events)))
    return np.where(wanted == NOTHING_PENDING, side, wanted).astype(np.int8)


def _simulated(
    inputs: AccountInputs, panel: Panel, runs: range, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equity, trades and refusals of some of the runs; columns are run by run."""
    n_assets = len(panel.assets)
    bar = np.arange(longest)[:, None]
    exists = np.tile(bar < panel.lengths, (1, len(runs)))
    # Rows of the panel; bars after an asset's last repeat it, and have no prices and no events.
    row = np.minimum(panel.offsets[:-1] + bar, np.maximum(panel.offsets[1:] - 1, 0))
    row = np.tile(row, (1, len(runs)))
    run = np.repeat(np.array(runs), n_assets)
    wanted = due_at_opens(inputs, row, run, exists)
    portfolio = _portfolio(inputs, row, exists, wanted)
    cash = _each_row(portfolio.cash(), longest)
    units = _each_row(portfolio.assets(), longest)
    close = np.where(exists, inputs.bars["close"][row], 0.0)
    worth = cash[:, RANGE] + units[:, RANGE] * close
    equity = np.empty((len(runs), len(panel)))
    for column in range(len(run)):
        r, asset = divmod(column, n_assets)
        rows = slice(panel.offsets[asset], panel.offsets[asset + 1])
        equity[r, rows] = worth[: rows.stop - rows.start, column]
    first_column = runs.start * n_assets
    trades = trades_of_orders(
        portfolio.orders.records_arr, inputs, panel, row, wanted, first_column
    )
    require_solvent(trades, inputs, panel, cash, first_column)
    flat = units[:, EXITS] == 0.0
    refusals = _refusals(inputs, row, wanted, flat, cash[:, EXITS], first_column)
    return equity, trades, refusals


def _each_row(values: Any, longest: int) -> np.ndarray:
    """A frame of the portfolio as float64 `(n_bars, 4, n_columns)`."""
    return np.asarray(values, np.float64).reshape(longest, ROWS, -1)


def _portfolio(inputs: AccountInputs, row: np.ndarray, exists: np.ndarray, wanted: Due) -> Any:
    vbt = vectorbt_library()
    from vectorbt.portfolio.enums import SizeType, StopEntryPrice, StopExitPrice

    bars, rules = inputs.bars, inputs.rules[0]
    fee, slippage = float(rules["fee"]), float(rules["slippage"])
    n_bars, n_columns = row.shape

    def laid_out(fill: Any, **of_rows: Any) -> np.ndarray:
        """Four rows a bar; those that are not given are filled."""
        out = np.full((n_bars, ROWS, n_columns), fill)
        for name, values in of_rows.items():
            out[:, ("exits", "entries", "opens", "range").index(name)] = values
        return out.reshape(n_bars * ROWS, n_columns)

    def prices(name: str) -> np.ndarray:
        return np.where(exists, bars[name][row], np.nan)

    # All that is worth 1 buys 1 / (fill price and fee); to hold `fraction` of the equity at the
    # open, spend so much of it. A short may exceed it: what is sold pays for its own fee.
    most = float(rules["max_leverage"])
    long_share = np.minimum(wanted.fraction * (1 + fee) * (1 + slippage), most)
    short_share = wanted.fraction * (1 + fee) * (1 - slippage)
    share = np.where(wanted.short_entry, short_share, long_share)
    share = np.where(wanted.lacks_distance, np.nan, share)
    open_, close = prices("open"), prices("close")
    n_due = int(np.count_nonzero(wanted.long_entry | wanted.short_entry))
    return vbt.Portfolio.from_signals(
        laid_out(np.nan, range=close),
        entries=laid_out(False, entries=wanted.long_entry),
        exits=laid_out(False, exits=wanted.long_exit),
        short_entries=laid_out(False, entries=wanted.short_entry),
        short_exits=laid_out(False, exits=wanted.short_exit),
        size=laid_out(np.nan, entries=share),
        size_type=SizeType.Percent,
        price=laid_out(np.nan, exits=open_, entries=open_, opens=open_, range=open_),
        fees=fee,
        slippage=slippage,
        min_size=0.0,  # the default of 1e-8 units would drop small orders, exits included
        accumulate=False,
        open=laid_out(np.nan, opens=open_, range=open_),
        # An open that has passed a level fills there; nothing else of that row is a price.
        high=laid_out(np.nan, opens=np.where(exists, -np.inf, np.nan), range=prices("high")),
        low=laid_out(np.nan, opens=np.where(exists, np.inf, np.nan), range=prices("low")),
        sl_stop=laid_out(np.nan, entries=wanted.stop),
        sl_trail=laid_out(False, entries=wanted.trails),
        tp_stop=laid_out(np.nan, entries=wanted.target),
        stop_entry_price=StopEntryPrice.FillPrice,
        stop_exit_price=StopExitPrice.StopMarket,
        init_cash=float(rules["initial_cash"]),
        cash_sharing=False,
        max_orders=max(1, 2 * n_due),
        freq="1D",  # it is asked for no statistics
        engine="rust",
    )


def _refusals(
    inputs: AccountInputs,
    row: np.ndarray,
    wanted: Due,
    flat: np.ndarray,
    cash: np.ndarray,
    first_column: int,
) -> np.ndarray:
    """REFUSAL records of entries without a size, or without a place for their stop."""
    unsized = np.isnan(wanted.fraction)
    due = (wanted.long_entry | wanted.short_entry) & flat & (unsized | wanted.lacks_distance)
    column, bar = np.nonzero(due.T)
    refusals = np.zeros(len(column), REFUSAL)
    side = np.where(wanted.long_entry[bar, column], 1, -1)
    at = row[bar, column]
    refusals["column"], refusals["row"] = first_column + column, at
    refusals["side"] = side
    refusals["units"] = (
        side * wanted.fraction[bar, column] * cash[bar, column] / inputs.bars["open"][at]
    )
    refusals["cause"] = np.where(unsized[bar, column], UNSIZED, WITHOUT_STOP)
    refusals["value"] = refusals["bound"] = np.nan
    return refusals
