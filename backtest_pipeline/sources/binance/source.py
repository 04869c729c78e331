"""Binance as a source of bars: the cache, brought up to date where the exchange can be asked."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import BarsError, SourceUnavailable
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, Timeframe
from backtest_pipeline.market.validation import Reason, RowIssue, validate_bars
from backtest_pipeline.sources.base import AssetInfo, SourceBars
from backtest_pipeline.sources.binance.client import BinanceClient
from backtest_pipeline.sources.binance.klines import timeframe_of
from backtest_pipeline.sources.binance.pull import pull
from backtest_pipeline.sources.cache import BarCache, Held, Series, open_times
from backtest_pipeline.sources.choose import ExchangeAccess
from backtest_pipeline.sources.spans import Span
from backtest_pipeline.sources.stamps import from_open
from backtest_pipeline.sources.tickers import ticker_of, told_apart

EXCHANGE = "binance"
_DEFAULT_INTERVAL = "1d"
_AT_ONCE = 4
_log = logging.getLogger(__name__)


def open_source(access: ExchangeAccess, intervals: str, named: Sequence[str]) -> BinanceBars:
    """The source that `binance:1h,1d` means; raises UnknownName for an interval it does not have.

    Args:
        access: how the exchange is asked, and where its bars are kept.
        intervals: separated by commas; daily bars where empty.
        named: the assets that are wanted by name.
    """
    return BinanceBars(
        BinanceClient(access.binance_url),
        access.cache(),
        [
            timeframe_of(interval.strip())
            for interval in (intervals or _DEFAULT_INTERVAL).split(",")
        ],
        named,
    )


@dataclass(frozen=True)
class _Latest:
    """A series as it is used: its bars, and what is missing of them and why, if anything is.

    `hit` tells whether the cache had all of it.
    """

    series: Series
    bars: pa.Table
    hit: bool
    issues: tuple[RowIssue, ...] = ()


class BinanceBars:
    """The whole history of symbols of Binance's spot market, up to the last finished bar.

    Bars come from the cache. What it lacks is asked for, and nothing is asked where it lacks
    nothing. Where the exchange cannot be reached, the cached bars are used: a warning says until
    when they go, and the missing ones are counted as `not_fetched`.
    """

    name = EXCHANGE
    synthetic = False

    def __init__(
        self,
        client: BinanceClient,
        cache: BarCache | None,
        timeframes: Sequence[Timeframe],
        named: Sequence[str] = (),
    ) -> None:
        """Nothing is asked or read yet.

        Args:
            client: the exchange.
            cache: where bars are kept; None to ask for all of them at every read.
            timeframes: those whose bars are asked for.
            named: symbols that are wanted, whether they are cached or not.
        """
        self._client = client
        self._cache = cache
        self._timeframes = tuple(timeframes)
        self._named = tuple(named)

    def symbols(self) -> tuple[str, ...]:
        """The symbols that are cached or wanted by name, sorted; not the thousands that there are.

        Raises:
            UnknownName: for a wanted one that the exchange does not have.
        """
        cached = self._cache.series() if self._cache else []
        known = {
            series.symbol
            for series in cached
            if series.exchange == EXCHANGE and series.timeframe in self._timeframes
        }
        for symbol in sorted(set(self._named) - known):
            self._client.require_listed(ticker_of(symbol, known))
        return tuple(sorted(known.union(self._named)))

    def states(self, assets: Sequence[str]) -> dict[str, str]:
        """What is cached of each asset, where that is all up to the last finished bar."""
        if self._cache is None:
            return {}
        now, held = _now_us(), {}
        for asset in assets:
            series = [Series(EXCHANGE, ticker_of(asset, ()), tf) for tf in self._timeframes]
            if all(self._cache.is_complete(s, _until_last_bar(s, now)) for s in series):
                names = [self._cache.content(s) for s in series]
                held[asset] = blake2b(repr(names).encode(), digest_size=16).hexdigest()
        return held

    def read(self, assets: Sequence[str] | None = None) -> SourceBars:
        """The bars of any symbols of the exchange, or of all in `symbols`.

        Raises:
            UnknownName: for a symbol that the exchange does not have.
            SourceUnavailable: where it cannot be reached, and nothing is cached of a symbol.
        """
        asked = self.symbols() if assets is None else assets
        wanted = sorted({ticker_of(asset, ()) for asset in asked})
        with self._cache_for_one_read() as cache, ThreadPoolExecutor(_AT_ONCE) as pool:
            reading = _Reading(self._client, cache)
            by_timeframe = {
                tf: list(pool.map(reading.latest, [Series(EXCHANGE, s, tf) for s in wanted]))
                for tf in self._timeframes
            }
            cache.evict()
        panels, issues = {}, []
        for tf, found in by_timeframe.items():
            panel, remarks = validate_bars(_panel(tf, found), _now_us())
            if len(panel):
                panels[tf.name] = panel
            issues += [*remarks, *(issue for latest in found for issue in latest.issues)]
        infos = {s: AssetInfo(s, s, "crypto", None, synthetic=False) for s in wanted}
        newest = {tf: int(panel.ts.max()) for tf, panel in panels.items()}
        told = told_apart(panels, issues, infos, assets, newest, EXCHANGE)
        if self._cache is None:
            return told
        looked_up = [latest.hit for found in by_timeframe.values() for latest in found]
        hits = sum(looked_up)
        return replace(told, hits=hits, misses=len(looked_up) - hits)

    @contextmanager
    def _cache_for_one_read(self) -> Iterator[BarCache]:
        if self._cache is not None:
            yield self._cache
            return
        with tempfile.TemporaryDirectory(prefix="bars-") as folder:
            yield BarCache(Path(folder))


class _Reading:
    """One read of many series: after the first failure to reach the exchange, none is asked."""

    def __init__(self, client: BinanceClient, cache: BarCache) -> None:
        self._client = client
        self._cache = cache
        self._failure: SourceUnavailable | None = None

    @cached_property
    def _exchange_now_us(self) -> int:
        return self._client.now_us()

    def latest(self, series: Series) -> _Latest:
        """The series up to the last bar that is finished by this computer's clock."""
        wanted = _until_last_bar(series, _now_us())
        held = self._cache.look_up(series, wanted)
        if not held.missing(wanted):
            return _Latest(series, held.bars, hit=True)
        try:
            if self._failure is None:
                return _Latest(series, self._completed(series, held, wanted), hit=False)
        except SourceUnavailable as failure:
            self._failure = failure
            held = self._cache.read(series)  # some pages may have come
        assert self._failure is not None  # noqa: S101  (or the pull has returned)
        if not len(held.bars):
            raise SourceUnavailable(f"{series}: nothing is cached; {self._failure}")
        issues = _not_fetched(series, held, wanted, self._failure)
        return _Latest(series, held.bars, hit=False, issues=issues)

    def _completed(self, series: Series, held: Held, wanted: Span) -> pa.Table:
        """The bars with those that the exchange has besides."""
        pulled = pull(self._client, self._cache, series, wanted, now_us=self._exchange_now_us)
        now_held = self._cache.read(series)
        if any(now_held.missing(span) for span in (*held.covered, *pulled.covered)):
            raise BarsError(f"{series}: cached bars were damaged or removed meanwhile; try again")
        return now_held.bars


def _not_fetched(
    series: Series, held: Held, wanted: Span, why: SourceUnavailable
) -> tuple[RowIssue, ...]:
    """The bars that are missing since the first one, counted; and a warning."""
    length, opens = series.length_us, open_times(held.bars)
    _log.warning(
        "%s is taken from the cache, with bars until %s UTC: %s",
        series,
        np.datetime64(int(opens[-1]) + length, "us").astype("M8[s]").item(),
        why,
    )
    missing = held.missing(Span(int(opens[0]), wanted.end))
    rows = sum(-(-(span.end - span.start) // length) for span in missing)
    if not rows:
        return ()
    first, last = missing[0].start + length, missing[-1].end
    return (
        RowIssue(
            series.symbol,
            series.timeframe.name,
            Reason.NOT_FETCHED,
            rows,
            first - CLOSE_STAMP_US,
            last - CLOSE_STAMP_US,
        ),
    )


def _panel(timeframe: Timeframe, found: Sequence[_Latest]) -> Panel:
    """The bars of many series, with close stamps."""
    table = pa.concat_tables([latest.bars for latest in found]) if found else None
    lengths = [len(latest.bars) for latest in found]
    opens = open_times(table) if table is not None else np.empty(0, np.int64)
    return Panel(
        timeframe,
        tuple(latest.series.symbol for latest in found),
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        from_open(opens, timeframe),
        {name: table[name].to_numpy() if table is not None else np.empty(0) for name in OHLCV},
    )


def _until_last_bar(series: Series, now_us: int) -> Span:
    """From the beginning to the end of the last bar that is over."""
    return Span(0, now_us // series.length_us * series.length_us)


def _now_us() -> int:
    return time.time_ns() // 1000
