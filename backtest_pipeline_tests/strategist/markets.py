"""Small markets that strategists plan on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US, timeframe

_FREQUENCIES = {"1D": "D", "4H": "4h", "1H": "h"}
FIRST_US = int(pd.Timestamp("2022-01-01", tz="UTC").value // 1000)


def of_closes(closes: Mapping[str, Sequence[float] | np.ndarray], tf: str = "1D") -> Panel:
    """A market of these closes, each bar one percent around its body, from 2022 on."""
    frames = {}
    for symbol, values in closes.items():
        close = np.asarray(values, float)
        opened = np.append(close[0], close[:-1])
        start = pd.Timestamp("2022-01-01", tz="UTC") + pd.Timedelta(1, _FREQUENCIES[tf].lstrip("4"))
        if tf == "4H":
            start = pd.Timestamp("2022-01-01 04:00", tz="UTC")
        index = pd.date_range(start, periods=len(close), freq=_FREQUENCIES[tf])
        frames[symbol] = pd.DataFrame(
            {
                "open": opened,
                "high": np.maximum(opened, close) * 1.01,
                "low": np.minimum(opened, close) * 0.99,
                "close": close,
                "volume": 1.0,
            },
            index=index - pd.Timedelta(1, "ms"),
        )
    return Panel.stack(timeframe(tf), frames)


def random_market(n_symbols: int, n_bars: int, seed: int = 1, tf: str = "1D") -> Panel:
    """Random walks whose drift and volatility change from time to time."""
    rng = np.random.default_rng(seed)
    n_states = n_bars // 60 + 1
    closes = {}
    for number in range(n_symbols):
        drift = np.repeat(rng.normal(0, 0.008, n_states), 60)[:n_bars]
        wild = np.repeat(rng.uniform(0.01, 0.05, n_states), 60)[:n_bars]
        closes[f"S-{number}"] = 100 * np.exp(np.cumsum(drift + wild * rng.normal(size=n_bars)))
    return of_closes(closes, tf)


def up_to(panel: Panel, day: int) -> Panel:
    """The bars of the first days alone."""
    return panel.take(panel.ts < FIRST_US + day * DAY_US)
