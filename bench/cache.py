"""The cache of exchange bars: warm and cold reads, imports, several processes at once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.sources.cache import BarCache, Series
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline.sources.keep import keep
from backtest_pipeline.sources.segments import BARS
from backtest_pipeline.sources.spans import Span
from bench.clock import Seconds
from bench.harness import Report, Table, interleaved, median

_HOURLY = Series("binance", "BTCUSDT", timeframe("1H"))
_HOUR = _HOURLY.length_us
_PAGE = 1000


def run(*, quick: bool) -> Report:
    """Measure on hourly bars; a few for a quick run."""
    n_bars, n_long, repeats = (1000, 2000, 3) if quick else (5000, 60_000, 200)
    with tempfile.TemporaryDirectory(prefix="btb-") as folder:
        tables = [_reads(Path(folder), n_bars, repeats), _imports(Path(folder), n_long)]
    return Report(
        "The cache of exchange bars",
        "Hourly bars of one symbol in Parquet segments, read through DuckDB in memory. A file is "
        "hashed once in each process.",
        tables,
    )


def _reads(folder: Path, n_bars: int, repeats: int) -> Table:
    merged, pages = BarCache(folder / "merged"), BarCache(folder / "pages")
    bars = _random_bars(n_bars)
    merged.put(_HOURLY, Span(0, n_bars * _HOUR), bars)
    for first in range(0, n_bars, _PAGE):
        span = Span(first * _HOUR, (first + _PAGE) * _HOUR)
        pages.put(_HOURLY, span, bars.slice(first, _PAGE))
    names = (f"{n_bars:,} bars in one file", f"{n_bars:,} bars in pages of {_PAGE:,}")
    caches = dict(zip(names, (merged, pages), strict=True))
    for cache in caches.values():
        assert len(cache.read(_HOURLY).bars) == n_bars
    taken = interleaved(
        {name: lambda cache=cache: cache.read(_HOURLY) for name, cache in caches.items()}, repeats
    )
    rows = [_row(name, times) for name, times in taken.items()]
    with _reading(merged.root):
        beside = interleaved({"beside": lambda: merged.read(_HOURLY)}, repeats)["beside"]
    rows.append(_row(f"{names[0]}, another process reads them too", beside))
    fresh = [_first_read(merged.root) for _ in range(3)]
    rows.append(["first read of a process, imports of DuckDB and Arrow included", *_ms(fresh)])
    return Table("Reading", ["what", "median ms", "fastest ms"], rows)


def _imports(folder: Path, n_bars: int) -> Table:
    file = folder / "BTCUSDT.parquet"
    opens = pa.array(np.arange(n_bars) * _HOUR, pa.timestamp("us", "UTC"))
    pq.write_table(_random_bars(n_bars).drop(["open_time"]).append_column("ts", opens), file)
    begin = time.perf_counter()
    (kept,) = keep(BarCache(folder / "imported"), "binance", FileBars(file))
    seconds = time.perf_counter() - begin
    assert kept.added == n_bars
    row = [f"{n_bars:,} bars from a Parquet file, validated", 1e3 * seconds, n_bars / seconds]
    return Table("Importing", ["what", "ms", "bars a second"], [row])


def _row(name: str, taken: list[Seconds]) -> list[str | float | int]:
    return [name, 1e3 * median(taken).wall, 1e3 * min(times.wall for times in taken)]


def _ms(seconds: list[float]) -> tuple[float, float]:
    return 1e3 * float(np.median(seconds)), 1e3 * min(seconds)


@contextmanager
def _reading(root: Path) -> Iterator[None]:
    """Keep another process reading while the `with` body runs."""
    reader = _process("read_for_ever", root)
    try:
        assert reader.stdout is not None
        reader.stdout.readline()
        yield
    finally:
        reader.kill()
        reader.communicate()


def _first_read(root: Path) -> float:
    seconds, _ = _process("read_once", root).communicate()
    return float(seconds)


def _process(work: str, root: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "bench.cache_process", work, str(root)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def _random_bars(n: int) -> pa.Table:
    random = np.random.default_rng(7)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, n)))
    open_ = np.concatenate(([100.0], close[:-1]))
    return pa.table(
        [
            np.arange(n) * _HOUR,
            open_,
            np.maximum(open_, close) * 1.01,
            np.minimum(open_, close) * 0.99,
            close,
            random.uniform(1, 1000, n),
        ],
        schema=BARS,
    )
