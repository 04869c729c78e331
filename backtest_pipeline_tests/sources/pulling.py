"""Pulls the whole of a series, as a function and as a process that may be killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.sources.binance.client import BinanceClient, RequestRetry
from backtest_pipeline.sources.binance.pull import Pulled, pull
from backtest_pipeline.sources.cache import BarCache, Series
from backtest_pipeline.sources.spans import Span

CALM = RequestRetry(attempts=6, seconds=60, first_wait_s=0.001)
BRISK = RequestRetry(attempts=6, seconds=60, first_wait_s=0.001, silence_s=1.0, answer_s=30)
"""Waits no longer than a second for an exchange that is silent."""
FAR = 4 * 10**15  # 2096


def series_of(symbol: str, tf: str) -> Series:
    return Series("binance", symbol, timeframe(tf))


def pull_all(
    url: str,
    cache: BarCache,
    series: Series,
    *,
    again: bool = False,
    start: int = 0,
    retry: RequestRetry = CALM,
) -> Pulled:
    """All finished bars of a series, by the exchange's clock."""
    client = BinanceClient(url, retry)
    span = Span(start, FAR)
    return pull(client, cache, series, span, now_us=client.now_us(), again=again)


def pulling(url: str, folder: Path, series: Series) -> subprocess.Popen[bytes]:
    """A process that does the same."""
    arguments = [url, str(folder), series.symbol, series.timeframe.name]
    return subprocess.Popen([sys.executable, "-m", __name__, *arguments])


if __name__ == "__main__":
    pull_all(sys.argv[1], BarCache(Path(sys.argv[2])), series_of(*sys.argv[3:]))
