"""The vectorbt boundary: orders in, fills out.

vectorbt is given each column's sequence of orders, not its bars: row k of its matrices is the
k-th order of each column. Sizes, cash limits, fees and slippage are its work; what lies between
two orders is not its business. So the cost grows with the
orders and not with the bars, and several orders may fall on one bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import Orders


@dataclass(frozen=True)
class Fills:
    """What the engine made of a batch's orders.

    Attributes:
        order: int64, the position in `Orders` of each fill, ascending.
        size: float64, units bought (positive) or sold (negative).
        price: float64, fill price after slippage.
        fees: float64, in the quote currency.
    """

    order: np.ndarray
    size: np.ndarray
    price: np.ndarray
    fees: np.ndarray


@cache
def engine_identity() -> tuple[str, str]:
    """Name and version of the engine, part of a run's identity."""
    return "vectorbt[rust]", f"{version('vectorbt')}+rust.{version('vectorbt-rust')}"


def fill_orders(
    orders: Orders,
    price: np.ndarray,
    config: SimulationConfig,
    fraction: np.ndarray,
) -> Fills:
    """Fill orders with vectorbt's Rust engine.

    Args:
        orders: the orders; none at all is fine.
        price: float64 `(n_orders,)`, price before slippage.
        config: costs and starting cash.
        fraction: float64 `(n_orders,)`, fraction of the equity at the fill that a side uses.
    """
    import vectorbt as vbt
    from vectorbt.portfolio.enums import Direction as VbtDirection
    from vectorbt.portfolio.enums import OrderSide, SizeType

    if len(orders.row) == 0:
        none = np.empty(0)
        return Fills(np.empty(0, np.int64), none, none, none)

    # Columns without an order have no row here, so that the matrix holds only what trades.
    counts = np.diff(orders.offsets)
    used = np.flatnonzero(counts)
    depth, width = int(counts.max()), len(used)
    rank = np.arange(len(orders.row)) - np.repeat(orders.offsets[used], counts[used])
    slot = np.repeat(np.arange(width), counts[used])

    size_matrix = np.full((depth, width), np.nan)
    price_matrix = np.full((depth, width), np.nan)
    order_at = np.full((depth, width), -1, np.int64)
    size_matrix[rank, slot] = orders.target * fraction
    price_matrix[rank, slot] = price
    order_at[rank, slot] = np.arange(len(orders.row))
    # After a column's last order its price stands still: nothing is valued there.
    last = price_matrix[counts[used] - 1, np.arange(width)]
    close_matrix = np.where(np.isnan(price_matrix), last, price_matrix)

    portfolio: Any = vbt.Portfolio.from_orders(
        close_matrix,
        size=size_matrix,
        size_type=SizeType.TargetPercent,
        direction=VbtDirection.Both,
        price=price_matrix,
        val_price=np.inf,  # a fraction is a fraction of the equity at the fill's own price
        fees=config.costs.fee_bps / 1e4,
        slippage=config.costs.slippage_bps / 1e4,
        init_cash=config.initial_cash,
        min_size=0.0,  # the default of 1e-8 units would drop small orders, exits included
        cash_sharing=False,
        max_orders=len(orders.row),
        freq="1D",
        engine="rust",
    )
    filled = portfolio.orders.records_arr
    order = order_at[filled["idx"], filled["col"]]
    by_order = np.argsort(order, kind="stable")
    signed = np.where(filled["side"] == OrderSide.Buy, filled["size"], -filled["size"])
    return Fills(
        order=order[by_order],
        size=signed[by_order],
        price=filled["price"][by_order],
        fees=filled["fees"][by_order],
    )
