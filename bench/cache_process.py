"""A process of its own that reads a cache: `python -m bench.cache_process WORK FOLDER`."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def read_once(root: Path) -> None:
    """Print the seconds of a first read."""
    begin = time.perf_counter()
    from backtest_pipeline.sources.cache import BarCache

    cache = BarCache(root)
    (series,) = cache.series()
    cache.read(series)
    print(time.perf_counter() - begin)


def read_for_ever(root: Path) -> None:
    """Print a line after the first read, and go on reading."""
    from backtest_pipeline.sources.cache import BarCache

    cache = BarCache(root)
    (series,) = cache.series()
    cache.read(series)
    print("reading", flush=True)
    while True:
        cache.read(series)


if __name__ == "__main__":
    {work.__name__: work for work in (read_once, read_for_ever)}[sys.argv[1]](Path(sys.argv[2]))
