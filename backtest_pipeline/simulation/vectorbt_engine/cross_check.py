"""Cross-check: the same orders through vectorbt's Rust engine.

This project's accounts also handle what vectorbt cannot (funding, leverage, lots, liquidation,
shared cash that does not depend on the order of assets). A run that uses none of that must get the
same fills and the same cash from vectorbt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.batch import BatchResult
from backtest_pipeline.simulation.columns import entry_fractions, with_sizing_columns
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.vectorbt_engine.library import vectorbt_library
from backtest_pipeline.trading.sizing import Sizing


@dataclass(frozen=True)
class EngineComparison:
    """Final equity and sizes of a batch, here and in vectorbt.

    Attributes:
        columns: int64 `(n,)`, columns compared: those with trades and without a liquidation.
        ours, theirs: float64 `(n,)`, final equity here and in vectorbt.
        worst_size: largest relative difference in the size of a fill.
    """

    columns: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray
    worst_size: float

    @property
    def worst_equity(self) -> float:
        """Largest relative difference in final equity."""
        return float(np.max(np.abs(self.theirs / self.ours - 1.0), initial=0.0))


def compare_with_vectorbt(
    result: BatchResult, config: SimulationConfig, sizings: Sequence[Sizing] | None = None
) -> EngineComparison:
    """Run the orders of a batch through vectorbt, which sizes, fills and charges them itself.

    Args:
        result: the batch.
        config: assumptions of the batch.
        sizings: the sizing of each run; that of `config` where not given.

    Raises:
        InvalidInput: for assumptions that vectorbt does not support.
    """
    _require_plain(config)
    trades, n_assets = result.trades, len(result.panel.assets)
    keep = ~result.liquidated[trades.column]
    trades = trades.take(keep)
    sizings = sizings or [config.rules.sizing] * len(result.equity)
    distinct = list(dict.fromkeys(sizings))
    panel = result.panel
    for one in distinct:
        panel = with_sizing_columns(panel, one, config.delay_bars)
    fractions = np.stack(
        [entry_fractions(panel, one, 1, config.max_leverage, config.delay_bars) for one in distinct]
    )
    of_run = np.array([distinct.index(one) for one in sizings], np.int64)
    entry_row = panel.offsets[trades.column % n_assets] + trades.entry_bar
    fraction = fractions[of_run[trades.column // n_assets], entry_row]
    target = np.column_stack([trades.side * fraction, np.zeros(len(trades))])
    slipped = 1.0 - trades.side * config.costs.slippage_bps / 1e4
    # An open trade is marked to market, not sold, so its last price carries no slippage.
    exit_price = np.where(trades.is_open, trades.exit_price, trades.exit_price / slipped)
    price = np.column_stack([panel["open"][entry_row], exit_price])
    target[trades.is_open, 1] = np.nan
    columns, ours_size = np.unique(trades.column), trades.size
    cash, sizes = _replay(trades.column, target, price, config)
    last = panel.offsets[1:][columns % n_assets] - 1
    return EngineComparison(
        columns=columns,
        ours=result.equity[columns // n_assets, last],
        theirs=cash,
        worst_size=float(np.max(np.abs(sizes / ours_size - 1.0), initial=0.0)),
    )


def _require_plain(config: SimulationConfig) -> None:
    plain = SimulationConfig(initial_cash=config.initial_cash)
    for name in ("lot_size", "min_notional"):
        if getattr(config, name) != getattr(plain, name):
            raise InvalidInput(f"vectorbt does not support {name}; compare a run without it")
    if config.costs.funding_bps_day != 0 or config.max_leverage > 1:
        raise InvalidInput(
            "vectorbt does not support funding or leverage; compare a run without them"
        )


def _replay(
    column: np.ndarray, target: np.ndarray, price: np.ndarray, config: SimulationConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Final equity of each column and size of each trade's entry in vectorbt.

    Row k of its matrices is the k-th order of each column; bars between orders are left out.
    """
    vbt = vectorbt_library()
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
    # After a column's last order its price stays constant: nothing is held then.
    ends = 2 * np.bincount(slot) - 1
    close = np.where(np.isnan(prices), prices[ends, np.arange(shape[1])], prices)
    portfolio: Any = vbt.Portfolio.from_orders(
        close,
        size=sizes,
        size_type=SizeType.TargetPercent,
        direction=Direction.Both,
        price=prices,
        val_price=np.inf,  # size fractions are of the equity at the fill's own price
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
