"""Finished runs as a `vectorbt.Portfolio`, from the orders that were filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import Panel, utc_index
from backtest_pipeline.simulation.vectorbt_engine.library import vectorbt_library


def portfolio_of_trades(
    panel: Panel, trades: Mapping[str, np.ndarray], *, fee: float, initial_cash: float
) -> Any:
    """A Portfolio that fills the orders of one run at the prices that they were filled at.

    Slippage is in those prices, and fees and funding are fees of the orders: funding is paid at the
    exit, so that the equity while it accrues is a little too high. There is one row for each bar,
    stamped with its close, and one more, stamped with its open, for a bar that a trade begins and
    ends in.

    Args:
        panel: the bars of the run; one asset.
        trades: float64 or bool `(n_trades,)` in the order of their entries: entry_ts and exit_ts
            (microseconds since 1970 UTC), side (1 or -1), size, entry_price, exit_price, fees,
            funding and is_open.
        fee: fraction of the notional that each fill paid; says which part of `fees` the entry was.
        initial_cash: in the quote currency.

    Returns:
        `vectorbt.Portfolio` with one column, named as the asset.

    Raises:
        ConfigurationError: where vectorbt is missing or of another version.
    """
    vbt = vectorbt_library()
    opens_at = panel.timeframe.period_bounds(panel.ts)[0]
    entry, exit_ = np.searchsorted(panel.ts, np.stack([trades["entry_ts"], trades["exit_ts"]]))
    closed = ~trades["is_open"].astype(bool)
    at_once = closed & (entry == exit_)
    twice = np.zeros(len(panel), bool)
    twice[entry[at_once]] = True
    # The row of each bar, and the row before it where a bar has two.
    row = np.arange(len(panel)) + np.cumsum(twice)
    ts = np.zeros(len(panel) + int(twice.sum()), np.int64)
    close = np.zeros(len(ts))
    ts[row], close[row] = panel.ts, panel["close"]
    ts[row[twice] - 1], close[row[twice] - 1] = opens_at[twice], panel["open"][twice]

    of_entry = trades["size"] * trades["entry_price"] * fee
    paid = trades["fees"] - of_entry + trades["funding"]
    opened = row[entry] - twice[entry]
    is_open_fill = (trades["exit_ts"] == opens_at[np.minimum(exit_, len(panel) - 1)]) & ~at_once
    left = (row[exit_] - (twice[exit_] & is_open_fill))[closed]
    size, price, fees = (np.zeros(len(ts)) for _ in range(3))
    # What closes and what opens at the same open is one order, at the same price.
    np.add.at(size, left, -(trades["side"] * trades["size"])[closed])
    np.add.at(size, opened, trades["side"] * trades["size"])
    np.add.at(fees, left, paid[closed])
    np.add.at(fees, opened, np.where(closed, of_entry, of_entry + paid))
    price[left] = trades["exit_price"][closed]
    price[opened] = trades["entry_price"]
    ordered = size != 0
    name = panel.assets[0]
    return vbt.Portfolio.from_orders(
        pd.Series(close, utc_index(ts), name=name),
        size=np.where(ordered, size, np.nan),
        price=np.where(ordered, price, np.nan),
        fixed_fees=np.where(ordered, fees, 0.0),
        init_cash=initial_cash,
        min_size=0.0,
        freq=pd.Timedelta(days=panel.timeframe.days),
        engine="rust",
    )
