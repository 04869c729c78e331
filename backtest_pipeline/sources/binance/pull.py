"""Paging through a series into the cache: every page is kept as soon as it is sure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import SourceUnavailable
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.sources.binance.client import BinanceClient
from backtest_pipeline.sources.binance.klines import PAGE
from backtest_pipeline.sources.cache import BarCache, Series, open_times
from backtest_pipeline.sources.spans import Span, union

REREAD = 10
"""Bars before a missing stretch that are asked for again: the last ones may have been revised."""

_SETTLED_US = DAY_US  # a bar that is not there by then is a hole, and not late
_AGREE_WITHIN = 5

Tell = Callable[[int, int], None]
"""Called with the pages that are done, and those that there are by now."""


def untold(done: int, total: int) -> None:
    """Reports no progress."""


@dataclass(frozen=True)
class Pulled:
    """What a pull brought.

    Attributes:
        pages: that were asked for.
        bars: on these pages.
        covered: what the cache was told of.
    """

    pages: int = 0
    bars: int = 0
    covered: tuple[Span, ...] = ()


def pull(
    client: BinanceClient,
    cache: BarCache,
    series: Series,
    wanted: Span,
    *,
    now_us: int,
    again: bool = False,
    tell: Tell = untold,
) -> Pulled:
    """Ask for what the cache does not know of a span, and for the bars just before it.

    Killed or cut off at any point, the pages that were sure stay, and the next pull goes on there.

    Args:
        client, cache, series: from where, to where, and which bars.
        wanted: open times, microseconds; bars that were not finished at `now_us` are left out.
        now_us: the exchange's clock.
        again: ask for all of it, also for what is known.
        tell: told how far it is.

    Raises:
        UnknownName: where the exchange has no such symbol.
        SourceUnavailable: where it gives no usable answer in time.
        BarsError: where the cache cannot be written.
    """
    length = series.length_us
    finished = Span(wanted.start, min(wanted.end, now_us // length * length))
    missing = [finished] if again else cache.read(series).missing(finished)
    reread = [Span(max(wanted.start, s.start - REREAD * length), s.end) for s in missing]
    pages = bars = 0
    covered: list[Span] = []
    for span in union(reread):
        rest = span
        while rest.start < rest.end:
            page = _sure_page(client, series, rest)
            pages, bars = pages + 1, bars + len(page)
            known = _known_until(page, rest, length, now_us)
            if known > rest.start:
                cache.put(series, Span(rest.start, known), page)
                covered.append(Span(rest.start, known))
            if not len(page):
                break
            rest = Span(known, span.end)
            tell(pages, pages - -(-(rest.end - rest.start) // (PAGE * length)))
    if pages:
        tell(pages, pages)
        cache.tidy(series)
    return Pulled(pages, bars, tuple(union(covered)))


def _sure_page(client: BinanceClient, series: Series, span: Span) -> pa.Table:
    """One page; where it is empty or has a hole, two answers have to agree.

    What is missing on a page will be remembered as missing on the exchange.
    """
    page = client.klines(series.symbol, series.timeframe, span)
    for _ in range(_AGREE_WITHIN):
        if _is_whole(page, span, series.length_us):
            return page
        second = client.klines(series.symbol, series.timeframe, span)
        if second.equals(page):
            return page
        page = second
    raise SourceUnavailable(
        f"binance gives another answer for {series} each time it is asked; try again later"
    )


def _is_whole(page: pa.Table, span: Span, length: int) -> bool:
    """Whether every period has its bar, from the first asked for to the last on the page."""
    opens = open_times(page)
    begins = len(opens) > 0 and opens[0] < span.start + length
    return bool(begins and (np.diff(opens) == length).all())


def _known_until(page: pa.Table, asked: Span, length: int, now_us: int) -> int:
    """Up to where a page says what there is: its last bar, however long the page.

    Only an empty page says that there is nothing more, and then what is missing may be late,
    unless it is long overdue.
    """
    if len(page):
        return int(open_times(page)[-1]) + length
    return min(asked.end, (now_us - _SETTLED_US) // length * length)
