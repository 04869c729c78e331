"""Small files of daily bars, good ones and damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

PRICES = ["open", "high", "low", "close"]


def daily_bars(n: int = 90, symbol: str = "AAA") -> pd.DataFrame:
    """Bars of one asset from 2024-01-01 on, whose price swings."""
    close = 100 + 10 * np.sin(np.arange(n) / 5)
    return pd.DataFrame(
        {
            "symbol": symbol,
            "ts": pd.date_range("2024-01-01", periods=n, freq="D", tz="UTC"),
            "open": np.append(100.0, close[:-1]),
            "high": 120.0,
            "low": 80.0,
            "close": close,
            "volume": 1.0,
        }
    )


def write(bars: pd.DataFrame, path: Path) -> Path:
    """The bars as a CSV file."""
    bars.to_csv(path, index=False)
    return path


def put(bars: pd.DataFrame, column: str, value: float, rows: slice = slice(5, 6)) -> pd.DataFrame:
    """The bars with a value in some rows of a column."""
    damaged = bars.copy()
    damaged.iloc[rows, bars.columns.get_indexer([column])] = value
    return damaged
