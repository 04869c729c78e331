"""The orders of finished runs, filled and charged by vectorbt's Rust engine.

The account decides what is ordered, and when; it also knows what vectorbt cannot hold (cooldowns,
trailing stops by true range, liquidation). Given the same orders, vectorbt has to come to the same
sizes, fees and cash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from backtest_pipeline.simulation.vectorbt_engine.library import vectorbt_library

_CELLS = 2_000_000  # of each matrix that vectorbt is given: 16 MB


@dataclass(frozen=True)
class Orders:
    """The trades of runs as orders; arrays `(n_trades,)`, by column and then by time.

    Attributes:
        column: int64, the run, from 0.
        side: 1 long, -1 short.
        size: float64, units that were filled.
        fraction: float64, of the equity, that the entry is to use; NaN where `size` is the order.
        entry_price, exit_price: float64, fills after slippage; the last close where it is open.
        is_open: bool, marked to market and not closed.
    """

    column: np.ndarray
    side: np.ndarray
    size: np.ndarray
    fraction: np.ndarray
    entry_price: np.ndarray
    exit_price: np.ndarray
    is_open: np.ndarray

    def take(self, rows: np.ndarray) -> Orders:
        """The orders at these positions."""
        return Orders(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class Filled:
    """What vectorbt made of orders; arrays `(n_runs,)`.

    Attributes:
        equity: float64, at the end.
        size_difference: float64, the largest relative difference of a fill's size.
    """

    equity: np.ndarray
    size_difference: np.ndarray


def fill_orders(
    orders: Orders, n_runs: int, *, fee: float, slippage: float, initial_cash: float
) -> Filled:
    """Fill the orders of runs in vectorbt, each run in a portfolio of its own.

    Args:
        orders: of all runs, which share the costs and the starting cash.
        n_runs: number of runs; one without orders keeps its cash.
        fee, slippage: fractions of the notional, and of the price.
        initial_cash: in the quote currency.

    Raises:
        ConfigurationError: where vectorbt is missing or of another version.

    Examples:
        >>> bought = [np.array([value]) for value in (0, 1, 2.0, np.nan, 100.0, 110.0, True)]
        >>> bought = Orders(*bought)
        >>> fill_orders(bought, 1, fee=0.0, slippage=0.0, initial_cash=1000.0).equity.tolist()
        [1020.0]
    """
    filled = Filled(np.full(n_runs, initial_cash), np.zeros(n_runs))
    n_orders = np.bincount(orders.column, minlength=n_runs)
    for runs in _parts(n_orders):
        position = np.full(n_runs, -1)
        position[runs] = np.arange(len(runs))
        own = orders.take(np.flatnonzero(position[orders.column] >= 0))
        equity, sizes = _fill(own, position[own.column], fee, slippage, initial_cash)
        filled.equity[runs] = equity
        np.maximum.at(filled.size_difference, own.column, np.abs(sizes / own.size - 1.0))
    return filled


def _parts(n_orders: np.ndarray) -> Iterator[np.ndarray]:
    """Runs with orders, in parts of about as many orders each."""
    runs = np.argsort(n_orders, kind="stable")
    runs = runs[n_orders[runs] > 0]
    while len(runs):
        cells = 2 * n_orders[runs] * np.arange(1, len(runs) + 1)  # the last run has the most
        at_once = max(1, int(np.searchsorted(cells, _CELLS)))
        yield runs[:at_once]
        runs = runs[at_once:]


def _fill(
    orders: Orders, column: np.ndarray, fee: float, slippage: float, initial_cash: float
) -> tuple[np.ndarray, np.ndarray]:
    """Final equity of each column, and the size of each entry.

    Row k of the matrices is the k-th order of each column; bars between orders are left out.
    """
    vbt = vectorbt_library()
    from vectorbt.portfolio.enums import Direction, SizeType

    order = np.lexsort((np.arange(len(column)), column))
    first = np.searchsorted(column[order], column[order])
    rank = np.empty(len(column), np.int64)
    rank[order] = np.arange(len(column)) - first
    shape = 2 * (int(rank.max()) + 1), int(column.max()) + 1
    by_fraction = ~np.isnan(orders.fraction)
    wanted = orders.side * np.where(by_fraction, orders.fraction, orders.size)
    sizes, prices = np.full(shape, np.nan), np.full(shape, np.nan)
    types = np.full(shape, int(SizeType.TargetAmount))
    sizes[2 * rank, column] = wanted
    sizes[2 * rank + 1, column] = np.where(orders.is_open, np.nan, 0.0)
    types[2 * rank, column] = np.where(by_fraction, SizeType.TargetPercent, SizeType.TargetAmount)
    # An open trade is marked to market, not sold, so its last price carries no slippage.
    bought, sold = 1.0 + orders.side * slippage, 1.0 - orders.side * slippage
    prices[2 * rank, column] = orders.entry_price / bought
    prices[2 * rank + 1, column] = orders.exit_price / np.where(orders.is_open, 1.0, sold)
    # After a column's last order its price stays constant: nothing is held then.
    ends = 2 * np.bincount(column) - 1
    close = np.where(np.isnan(prices), prices[ends, np.arange(shape[1])], prices)
    portfolio: Any = vbt.Portfolio.from_orders(
        close,
        size=sizes,
        size_type=types,
        direction=Direction.Both,
        price=prices,
        val_price=np.inf,  # size fractions are of the equity at the fill's own price
        fees=fee,
        slippage=slippage,
        init_cash=initial_cash,
        min_size=0.0,  # the default of 1e-8 units would drop small orders, exits included
        cash_sharing=False,
        max_orders=sizes.size,
        freq="1D",  # it is asked for no statistics
        engine="rust",
    )
    records = portfolio.orders.records_arr
    size_at = np.zeros(shape)
    size_at[records["idx"], records["col"]] = records["size"]
    return portfolio.final_value().to_numpy(), size_at[2 * rank, column]


def known_fraction(config: Mapping[str, Any]) -> float:
    """The fraction of equity that every entry of a stored run uses; NaN where it differs by entry.

    Args:
        config: the run's configuration as it is stored.

    Examples:
        >>> sizing = {"mode": "fixed", "fraction": 0.5}
        >>> known_fraction({"sizing": sizing, "max_leverage": 1.0, "lot_size": 0.0})
        0.5
    """
    sizing = config["sizing"]
    whole_units = isinstance(config["lot_size"], Mapping) or config["lot_size"]
    if sizing is None or config["max_leverage"] != 1 or whole_units:
        return float("nan")
    if sizing["mode"] == "fixed":
        return float(sizing["fraction"])
    if sizing["mode"] == "equal":
        return 1.0 / (sizing["n_assets"] or 1)
    return float("nan")


def why_not_followed(config: Mapping[str, Any]) -> str | None:
    """Why vectorbt cannot fill the orders of a stored run; None where it can.

    Args:
        config: the run's configuration as it is stored.
    """
    if config.get("engine", "account") != "account":
        return "vectorbt simulated it itself"
    if config["funding"] or config["costs"]["funding_bps_day"]:
        return "funding"
    return "max_leverage above 1" if config["max_leverage"] > 1 else None
