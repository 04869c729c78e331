"""Bars into the cache from files, and cached bars held against what an exchange says today."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.panel import OHLCV
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US
from backtest_pipeline.market.validation import RowIssue
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.sources.cache import BarCache, Held, Series, open_times
from backtest_pipeline.sources.segments import BARS
from backtest_pipeline.sources.spans import Span


@dataclass(frozen=True)
class Kept:
    """What became of a series of a file.

    Attributes:
        series: which.
        bars: sound bars in the file.
        added: those that the cache did not have.
        differing: those that it had with other numbers; the cache's stay.
        issues: what was wrong with the file's rows.
    """

    series: Series
    bars: int
    added: int
    differing: int
    issues: tuple[RowIssue, ...]


def keep(cache: BarCache, exchange: str, source: BarSource) -> list[Kept]:
    """Add to the cache what a source has and the cache lacks.

    A file does not say whether a bar that it lacks was ever there: its holes stay unknown, and an
    exchange can still be asked for them.

    Raises:
        BarsError: where the file cannot be read, or the cache cannot be written.
        InvalidInput: for a symbol that cannot be part of a path.
    """
    read = source.read()
    return [
        _keep(
            cache,
            Series(exchange, asset, panel.timeframe),
            _table(
                panel.ts[panel.rows_of(asset)],
                [panel[name][panel.rows_of(asset)] for name in OHLCV],
                panel.timeframe.length_us or 0,
            ),
            tuple(i for i in read.issues if (i.asset, i.timeframe) == (asset, name)),
        )
        for name, panel in read.panels.items()
        for asset in panel.assets
    ]


def _table(ts: np.ndarray, columns: Sequence[np.ndarray], length: int) -> pa.Table:
    return pa.table([ts + CLOSE_STAMP_US - length, *columns], schema=BARS)


def _keep(cache: BarCache, series: Series, bars: pa.Table, issues: tuple[RowIssue, ...]) -> Kept:
    held = cache.read(series)
    opens = open_times(bars)
    added = 0
    for run in _runs(opens, series.length_us):
        for span in held.missing(run):
            first, end = np.searchsorted(opens, span)
            cache.put(series, span, bars.slice(first, end - first))
            added += int(end - first)
    cache.tidy(series)
    return Kept(series, len(bars), added, len(differing(held, bars)), issues)


def _runs(opens: np.ndarray, length: int) -> Iterator[Span]:
    """Stretches of neighbouring bars."""
    if len(opens):
        for run in np.split(opens, np.flatnonzero(np.diff(opens) != length) + 1):
            yield Span(int(run[0]), int(run[-1]) + length)


def differing(held: Held, bars: pa.Table) -> np.ndarray:
    """Open times (int64) of the bars that are there twice, and not with the same numbers."""
    both, here, there = np.intersect1d(
        open_times(held.bars), open_times(bars), assume_unique=True, return_indices=True
    )
    unequal = np.zeros(len(both), bool)
    for name in OHLCV:
        unequal |= held.bars[name].to_numpy()[here] != bars[name].to_numpy()[there]
    return both[unequal]


def changed(held: Held, other: Held) -> np.ndarray:
    """Open times of the bars that only one has, or that differ, where both know what there is."""
    ours, theirs = open_times(held.bars), open_times(other.bars)
    lone = np.setxor1d(ours, theirs)
    known = [
        not held.missing(Span(at, at + 1)) and not other.missing(Span(at, at + 1))
        for at in lone.tolist()
    ]
    return np.union1d(differing(held, other.bars), lone[np.array(known, bool)])
