"""Trades of the orders that vectorbt filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.engine import (
    END_OF_DATA,
    NO_STOP,
    REVERSAL,
    SIGNAL,
    STOP_LOSS,
    TAKE_PROFIT,
    TRADE,
    TRAILING_STOP,
)
from backtest_pipeline.simulation.vectorbt_engine.due import Due

if TYPE_CHECKING:
    from backtest_pipeline.simulation.inputs import AccountInputs

EXITS, ENTRIES, OPEN, RANGE = range(4)
"""The four rows that a bar is laid out as, see `simulated`."""
ROWS = 4
_SAME = 1e-12


def trades_of_orders(
    orders: np.ndarray,
    inputs: AccountInputs,
    panel: Panel,
    row: np.ndarray,
    wanted: Due,
    first_column: int,
) -> np.ndarray:
    """TRADE records of vectorbt's orders: an entry and the exit that closes all of it, in turn."""
    bars, slippage = inputs.bars, float(inputs.rules[0]["slippage"])
    orders = orders[np.lexsort((orders["idx"], orders["col"]))]
    rank = np.arange(len(orders)) - np.searchsorted(orders["col"], orders["col"])
    is_entry = rank % 2 == 0
    entry = orders[is_entry]
    closed = np.zeros(len(entry), bool)
    follows = np.flatnonzero(is_entry) + 1
    inside = follows < len(orders)
    closed[inside] = orders["col"][follows[inside]] == entry["col"][inside]
    exit_ = orders[follows[closed]]
    column = entry["col"].astype(np.int64)
    trades = np.zeros(len(entry), TRADE)
    side = np.where(entry["side"] == 0, 1, -1)
    last = panel.offsets[1:][column % len(panel.assets)] - 1
    exit_bar, exit_kind = np.divmod(exit_["idx"], ROWS)
    entry_bar = entry["idx"] // ROWS
    trades["column"] = first_column + column
    trades["entry_row"] = row[entry_bar, column]
    trades["exit_row"] = last
    trades["exit_row"][closed] = row[exit_bar, column[closed]]
    trades["entry_price"], trades["exit_price"] = entry["price"], bars["close"][last]
    trades["exit_price"][closed] = exit_["price"]
    trades["units"] = side * entry["size"]
    trades["fees"] = entry["fees"]
    trades["fees"][closed] += exit_["fees"]
    trades["slippage_cost"] = entry["size"] * np.abs(
        entry["price"] - bars["open"][trades["entry_row"]]
    )
    base = exit_["price"] / (1.0 - side[closed] * slippage)
    trades["slippage_cost"][closed] += entry["size"][closed] * np.abs(exit_["price"] - base)
    trades["bars_held"] = trades["exit_row"] - trades["entry_row"] + ~closed
    _add_excursions(trades, bars)
    _add_stops(trades, side, wanted, entry_bar, column, inputs)
    trades["reason"] = END_OF_DATA
    due = (wanted.short_entry, wanted.long_entry)
    reverses = np.where(
        side[closed] > 0, due[0][exit_bar, column[closed]], due[1][exit_bar, column[closed]]
    )
    target = trades["entry_price"] * (1.0 + side * wanted.target[entry_bar, column])
    at_target = side[closed] * base >= side[closed] * target[closed] * (1 - side[closed] * _SAME)
    stop = np.where(trades["exit_stop_kind"] == 1, TRAILING_STOP, STOP_LOSS)[closed]
    within = np.where(at_target, TAKE_PROFIT, stop)
    at_signal = np.where(reverses, REVERSAL, SIGNAL)
    trades["reason"][closed] = np.where(exit_kind == EXITS, at_signal, within)
    opens = bars["open"][trades["exit_row"][closed]]
    trades["at_open"][closed] = (exit_kind < RANGE) | (np.abs(base / opens - 1.0) < _SAME)
    return trades


def _add_excursions(trades: np.ndarray, bars: np.ndarray) -> None:
    """The lowest and highest price of each trade, from its fills and the bars that it lasted."""
    first, end = trades["entry_row"], trades["entry_row"] + trades["bars_held"]
    fills = np.stack([trades["entry_price"], trades["exit_price"]])
    low, high = np.append(bars["low"], np.inf), np.append(bars["high"], -np.inf)
    bounds = np.column_stack([first, np.maximum(end, first)]).ravel()
    lows, highs = (
        (np.minimum.reduceat(low, bounds)[::2], np.maximum.reduceat(high, bounds)[::2])
        if len(trades)
        else (np.empty(0), np.empty(0))
    )
    lasted = end > first
    trades["lowest"] = np.minimum(fills.min(axis=0), np.where(lasted, lows, np.inf))
    trades["highest"] = np.maximum(fills.max(axis=0), np.where(lasted, highs, -np.inf))


def _add_stops(
    trades: np.ndarray,
    side: np.ndarray,
    wanted: Due,
    entry_bar: np.ndarray,
    column: np.ndarray,
    inputs: AccountInputs,
) -> None:
    """The stop at the entry and at the exit; a trailing one follows the best price between."""
    distance = wanted.stop[entry_bar, column]
    trails = wanted.trails[entry_bar, column]
    at_entry = trades["entry_price"] * (1.0 - side * distance)
    kind = np.where(np.isnan(distance), NO_STOP, np.where(trails, 1, 0))
    trades["entry_stop"] = trades["exit_stop"] = at_entry
    trades["entry_stop_kind"] = trades["exit_stop_kind"] = kind
    high, low = inputs.bars["high"], inputs.bars["low"]
    best = np.where(
        side > 0,
        _best_before(trades, high, np.maximum),
        _best_before(trades, low, np.minimum),
    )
    trades["exit_stop"][trails] = (best * (1.0 - side * distance))[trails]


def _best_before(trades: np.ndarray, prices: np.ndarray, better: np.ufunc) -> np.ndarray:
    """The best price from the entry's fill to the close before the exit."""
    first, end = trades["entry_row"], trades["entry_row"] + trades["bars_held"]
    best = trades["entry_price"].copy()
    lasted = end > first
    if lasted.any():
        bounds = np.column_stack([first, end])[lasted].ravel()
        padded = np.append(prices, prices[-1])
        best[lasted] = better(best[lasted], better.reduceat(padded, bounds)[::2])
    return best


def require_solvent(
    trades: np.ndarray,
    inputs: AccountInputs,
    panel: Panel,
    cash: np.ndarray,
    first_column: int,
) -> None:
    """Raise InvalidInput for a short that takes all of the equity at its worst price."""
    shorts = trades[trades["units"] < 0]
    if len(shorts) == 0:
        return
    asset = shorts["column"] % len(panel.assets)
    entry_bar = shorts["entry_row"] - panel.offsets[asset]
    proceeds = cash[entry_bar, ENTRIES, shorts["column"] - first_column]
    # `highest` has the whole bars that a short lasted, and its exit. A bar that a target ends may
    # have been higher before.
    worst = np.where(
        shorts["reason"] == TAKE_PROFIT,
        np.maximum(shorts["highest"], inputs.bars["high"][shorts["exit_row"]]),
        shorts["highest"],
    )
    fee = float(inputs.rules[0]["fee"])
    lost = np.flatnonzero(proceeds + shorts["units"] * worst * (1.0 + fee) <= 0.0)
    if len(lost):
        first = shorts[lost[np.argmin(shorts["exit_row"][lost])]]
        name = panel.assets[int(first["column"] % len(panel.assets))]
        day = panel.ts[first["entry_row"]].view("M8[us]").astype("M8[D]")
        raise InvalidInput(
            f"engine vectorbt: {name}|{panel.timeframe.name}: the short of {day} loses all of the "
            "equity, and vectorbt would let it fall below zero and come back; trade "
            "direction=long, use a stop_loss, or simulate it with engine=account, which "
            "liquidates it"
        )
