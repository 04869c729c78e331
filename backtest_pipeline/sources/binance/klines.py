"""What `GET /api/v3/klines` is asked and how its answer is read.

Source: rest-api.md of github.com/binance/binance-spot-api-docs. A kline is a list of twelve:
open time (ms), open, high, low, close, volume (strings), close time, and five that are not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.timeframes import Timeframe, timeframe
from backtest_pipeline.sources.segments import BARS
from backtest_pipeline.sources.spans import Span

PAGE = 1000
"""Bars that one request brings at most."""

INTERVALS = {
    tf.name.lower(): tf
    for tf in map(timeframe, ("1m", "5m", "15m", "30m", "1H", "4H", "12H", "1D"))
}
"""The intervals of the exchange that are timeframes here; the others can be made of these."""

_NUMBERS = 6
_FIELDS = 11
_LATEST_MS = 10**14  # the year 5138; microseconds are beyond


class BadAnswer(Exception):
    """An answer that is no page of klines; the next one may be."""


def interval_of(timeframe: Timeframe) -> str:
    """What the exchange calls a timeframe."""
    return next(interval for interval, tf in INTERVALS.items() if tf == timeframe)


def timeframe_of(interval: str) -> Timeframe:
    """The timeframe of an interval, spelled as the exchange does (1h) or as here (1H).

    Raises:
        UnknownName: for any other, with the nearest ones.
    """
    names = {**INTERVALS, **{tf.name: tf for tf in INTERVALS.values()}}
    if interval not in names:
        raise UnknownName("interval", interval, INTERVALS)
    return names[interval]


def parse_page(answer: Any, asked: Span) -> pa.Table:
    """The bars of a page, schema `BARS`.

    Args:
        answer: decoded JSON.
        asked: the span that was asked for, microseconds.

    Raises:
        BadAnswer: for what is no list of klines, strictly ascending, within the span.
    """
    if not isinstance(answer, list) or len(answer) > PAGE:
        raise BadAnswer("the answer is no page of klines")
    rows = np.array([_numbers(row) for row in answer]).reshape(-1, _NUMBERS)
    opens = np.array([row[0] for row in answer], np.int64) * 1000
    if len(opens) and (opens[0] < asked.start or opens[-1] >= asked.end):
        raise BadAnswer("the answer has bars that were not asked for")
    if (np.diff(opens) <= 0).any():
        raise BadAnswer("the bars of the answer are not in order, or repeated")
    return pa.table([opens, *rows[:, 1:].T], schema=BARS)


def _numbers(row: Any) -> Sequence[float]:
    if not isinstance(row, list) or len(row) < _FIELDS or type(row[0]) is not int:
        raise BadAnswer("the answer has a row that is no kline")
    if not 0 <= row[0] < _LATEST_MS:
        raise BadAnswer(f"the answer has a kline of {row[0]}, which is no time in milliseconds")
    try:
        numbers = [float(field) for field in row[:_NUMBERS]]
    except (TypeError, ValueError):
        raise BadAnswer(f"the kline of {row[0]} has something that is no number") from None
    if not all(map(math.isfinite, numbers)):
        raise BadAnswer(f"the kline of {row[0]} has a number that is not finite")
    return numbers
