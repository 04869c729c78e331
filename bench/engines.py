"""The same run in other engines: plain vectorbt, backtesting.py, and a bare compiled loop."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numba import njit

from backtest_pipeline.market.features.rolling import ema
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT

FEE = 0.001
CASH = 1e9  # so much that backtesting.py's whole units make no difference


@dataclass(frozen=True)
class Column:
    """One strategy on one asset: bars, and entry and exit signals at their close."""

    bars: pd.DataFrame
    entries: pd.Series
    exits: pd.Series


def columns_of(panel: Panel, events: np.ndarray) -> list[Column]:
    """The signals of every run on every asset, run by run."""
    columns = []
    for row in events:
        for asset in panel.assets:
            bars, bits = panel.frame(asset), row[panel.rows_of(asset)]
            entries = pd.Series((bits & LONG_ENTRY) > 0, bars.index)
            columns.append(Column(bars, entries, pd.Series((bits & LONG_EXIT) > 0, bars.index)))
    return columns


def plain_vectorbt(column: Column) -> float:
    """Total return by `Portfolio.from_signals`, with its statistics."""
    import vectorbt as vbt

    portfolio: Any = vbt.Portfolio.from_signals(
        column.bars["close"],
        column.entries.shift(1, fill_value=False),
        column.exits.shift(1, fill_value=False),
        price=column.bars["open"],
        fees=FEE,
        init_cash=CASH,
        freq="1D",
    )
    return portfolio.stats()["Total Return [%]"] / 100


def backtesting_py(column: Column) -> float:
    """Total return by `Backtest.run`, which comes with its statistics."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # it draws a progress bar
        warnings.simplefilter("ignore")  # remarks on notebooks and on open trades
        from backtesting import Backtest, Strategy

        class Precomputed(Strategy):
            def init(self) -> None:
                self.entries = column.entries.to_numpy()
                self.exits = column.exits.to_numpy()

            def next(self) -> None:
                bar = len(self.data) - 1
                if self.exits[bar]:
                    self.position.close()
                if self.entries[bar]:
                    self.buy()

        frame = column.bars.rename(columns=str.capitalize)
        frame.index = pd.DatetimeIndex(column.bars.index).tz_localize(None)
        stats: Any = Backtest(frame, Precomputed, cash=CASH, commission=FEE).run()
        return stats["Return [%]"] / 100


def ema_cross_by_backtesting_py(panel: Panel, fast: int, slow: int) -> float:
    """Total return of an EMA crossover as its users write one, of a panel with one asset."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # it draws a progress bar
        warnings.simplefilter("ignore")  # remarks on notebooks and on open trades
        from backtesting import Backtest, Strategy
        from backtesting.lib import crossover

        class EmaCross(Strategy):
            def init(self) -> None:
                close = np.asarray(self.data.Close)
                self.fast: Any = self.I(ema, close, panel.offsets, fast)
                self.slow: Any = self.I(ema, close, panel.offsets, slow)

            def next(self) -> None:
                if crossover(self.fast, self.slow):
                    self.buy()
                elif crossover(self.slow, self.fast):
                    self.position.close()

        bars = panel.frame(panel.assets[0])
        frame = bars.rename(columns=str.capitalize)
        frame.index = pd.DatetimeIndex(bars.index).tz_localize(None)
        stats: Any = Backtest(frame, EmaCross, cash=CASH, commission=FEE).run()
        return stats["Return [%]"] / 100


def bare_loop(panel: Panel, events: np.ndarray) -> np.ndarray:
    """Total returns of all columns by a compiled loop over fills and equity: the limit."""
    return _returns(events, panel["open"], panel["close"], panel.offsets)


@njit(cache=True)
def _returns(events, open_, close, offsets):
    n_assets = len(offsets) - 1
    returns = np.empty(events.shape[0] * n_assets)
    equity = np.empty(len(open_))
    for run in range(events.shape[0]):
        for a in range(n_assets):
            cash, units = CASH, 0.0
            for t in range(offsets[a], offsets[a + 1]):
                if t > offsets[a]:
                    signal = events[run, t - 1]
                    if units > 0 and signal & LONG_EXIT:
                        cash, units = units * open_[t] * (1 - FEE), 0.0
                    elif units == 0 and signal & LONG_ENTRY:
                        cash, units = 0.0, cash / (open_[t] * (1 + FEE))
                equity[t] = cash + units * close[t]
            returns[run * n_assets + a] = equity[offsets[a + 1] - 1] / CASH - 1
    return returns
