"""A second opinion: the same orders through vectorbt's Rust engine.

The accounts of this project also do what vectorbt cannot (funding, leverage, lots, liquidation,
shared cash that does not depend on the order of assets). Where a run uses none of that, vectorbt
has to come to the same fills and the same cash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.columns import entry_fractions, with_config_columns
from backtest_pipeline.simulation.config import SimulationConfig


@dataclass(frozen=True)
class Opinion:
    """What vectorbt makes of the orders of each column that it can follow.

    Attributes:
        columns: int64 `(n,)`, columns with trades and without a liquidation.
        ours, theirs: float64 `(n,)`, equity at the end.
        worst_size: largest relative difference of a fill's size.
    """

    columns: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray
    worst_size: float

    @property
    def worst_equity(self) -> float:
        """Largest relative difference of a final equity."""
        return float(np.max(np.abs(self.theirs / self.ours - 1.0), initial=0.0))


def vectorbt_opinion(result: BatchResult, config: SimulationConfig) -> Opinion:
    """Replay the trades' orders in vectorbt, which sizes, fills and charges them anew.

    Raises:
        InvalidInput: for assumptions that vectorbt does not know.
    """
    _require_plain(config)
    trades, n_assets = result.trades, len(result.panel.assets)
    keep = ~result.liquidated[trades.column]
    trades = trades.take(keep)
    panel = with_config_columns(result.panel, config)
    fractions = entry_fractions(panel, config.sizing, 1, config.max_leverage, config.delay_bars)
    entry_row = panel.offsets[trades.column % n_assets] + trades.entry_bar
    target = np.column_stack([trades.side * fractions[entry_row], np.zeros(len(trades))])
    slipped = 1.0 - trades.side * config.costs.slippage_bps / 1e4
    # An open trade is marked, not sold: its last price is as it stands.
    leaves = np.where(trades.is_open, trades.exit_price, trades.exit_price / slipped)
    price = np.column_stack([panel["open"][entry_row], leaves])
    target[trades.is_open, 1] = np.nan
    columns, ours_size = np.unique(trades.column), trades.size
    cash, sizes = _replay(trades.column, target, price, config)
    last = panel.offsets[1:][columns % n_assets] - 1
    return Opinion(
        columns=columns,
        ours=result.equity[columns // n_assets, last],
        theirs=cash,
        worst_size=float(np.max(np.abs(sizes / ours_size - 1.0), initial=0.0)),
    )


def _require_plain(config: SimulationConfig) -> None:
    plain = SimulationConfig(initial_cash=config.initial_cash)
    for name in ("lot_size", "min_notional"):
        if getattr(config, name) != getattr(plain, name):
            raise InvalidInput(f"vectorbt gives no second opinion on a run with {name}")
    if config.costs.funding_bps_day != 0 or config.max_leverage > 1:
        raise InvalidInput("vectorbt gives no second opinion on a run with funding or leverage")


def _replay(
    column: np.ndarray, target: np.ndarray, price: np.ndarray, config: SimulationConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Final equity of each column and size of each trade's entry, by vectorbt.

    Row k of its matrices is the k-th order of each column: what lies between two orders is not
    its business.
    """
    import vectorbt as vbt
    from vectorbt.portfolio.enums import Direction, SizeType

    if len(column) == 0:
        return np.empty(0), np.empty(0)
    slot = np.unique(column, return_inverse=True)[1]
    rank = np.arange(len(column)) - np.searchsorted(column, column)
    shape = 2 * (int(rank.max()) + 1), int(slot.max()) + 1
    sizes, prices = np.full(shape, np.nan), np.full(shape, np.nan)
    for leg in (0, 1):
        sizes[2 * rank + leg, slot] = target[:, leg]
        prices[2 * rank + leg, slot] = price[:, leg]
    # After a column's last order its price stands still: nothing is valued there.
    ends = 2 * np.bincount(slot) - 1
    close = np.where(np.isnan(prices), prices[ends, np.arange(shape[1])], prices)
    portfolio: Any = vbt.Portfolio.from_orders(
        close,
        size=sizes,
        size_type=SizeType.TargetPercent,
        direction=Direction.Both,
        price=prices,
        val_price=np.inf,  # a fraction is a fraction of the equity at the fill's own price
        fees=config.costs.fee_bps / 1e4,
        slippage=config.costs.slippage_bps / 1e4,
        init_cash=config.initial_cash,
        min_size=0.0,  # the default of 1e-8 units would drop small orders, exits included
        cash_sharing=False,
        max_orders=sizes.size,
        freq="1D",
        engine="rust",
    )
    filled = portfolio.orders.records_arr
    size_at = np.zeros(shape)
    size_at[filled["idx"], filled["col"]] = filled["size"]
    return portfolio.final_value().to_numpy(), size_at[2 * rank, slot]
