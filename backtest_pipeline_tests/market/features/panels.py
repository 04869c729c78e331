"""Bars to build features of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US, timeframe


def random_bars(lengths: Sequence[int], seed: int = 0, tf: str = "1D") -> Panel:
    """Random walks, one asset for each length, with holes marked here and there."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    close = 100 * np.exp(0.04 * rng.standard_normal(rows).cumsum())
    open_ = close * np.exp(0.02 * rng.standard_normal(rows))
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * (1 + 0.02 * rng.random(rows)),
        "low": np.minimum(open_, close) * (1 - 0.02 * rng.random(rows)),
        "close": close,
        "volume": rng.random(rows),
        "gap_bars": rng.integers(0, 50, rows) // 49.0,
    }
    ts = np.concatenate([np.arange(n, dtype=np.int64) * DAY_US for n in lengths] or [offsets[:0]])
    return Panel(timeframe(tf), tuple(f"A{i}" for i in range(len(lengths))), offsets, ts, columns)


def bars_of(close: ArrayLike, tf: str = "1D") -> Panel:
    """One asset whose bars have no height: open, high and low equal the close."""
    price = np.asarray(close, np.float64)
    columns = {name: price.copy() for name in ("open", "high", "low", "close")}
    columns["volume"] = np.ones(len(price))
    offsets = np.array([0, len(price)], np.int64)
    return Panel(timeframe(tf), ("A0",), offsets, np.arange(len(price)) * DAY_US, columns)


def head(panel: Panel, rows: int) -> Panel:
    """The first `rows` rows of each asset."""
    age = np.arange(len(panel)) - np.repeat(panel.offsets[:-1], panel.lengths)
    return panel.take(age < rows)


def differing_columns(left: Panel, right: Panel) -> list[str]:
    """Names of the columns that are not the same bits."""
    assert left.columns.keys() == right.columns.keys()
    return [name for name in left.columns if left[name].tobytes() != right[name].tobytes()]


def with_holes(bars: Panel, seed: int, share: float) -> Panel:
    """The bars with some prices unknown."""
    rng = np.random.default_rng(seed)
    return bars.with_columns(
        {
            name: np.where(rng.random(len(bars)) < share, np.nan, bars[name])
            for name in ("open", "high", "low", "close")
        }
    )
