"""Hours to put into a cache; as a program, one of several writers of one series."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.sources.cache import BarCache, Series
from backtest_pipeline.sources.segments import BARS
from backtest_pipeline.sources.spans import Span

BTC = Series("binance", "BTCUSDT", timeframe("1H"))
HOUR = BTC.length_us


def span(start: int, end: int) -> Span:
    return Span(start * HOUR, end * HOUR)


def hours(*numbers: int, price: float = 1.0) -> pa.Table:
    """A bar for each hour since 1970, whose close tells which it is, and at what price."""
    n = len(numbers)
    flat = [np.full(n, price)] * 3
    return pa.table(
        [np.array(numbers, np.int64) * HOUR, *flat, price + np.array(numbers, float), np.ones(n)],
        schema=BARS,
    )


def write_every_second(cache: BarCache, first: int, n: int = 12) -> None:
    """Put hours one by one, and read and merge after each."""
    for i in range(first, first + 2 * n, 2):
        cache.put(BTC, span(i, i + 1), hours(i))
        cache.read(BTC)
        cache.tidy(BTC)


if __name__ == "__main__":
    write_every_second(BarCache(Path(sys.argv[1]), most_segments=5), int(sys.argv[2]))
