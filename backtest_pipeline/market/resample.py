"""Resample bars to a longer timeframe; complete bars only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import (
    CLOSE_STAMP_US,
    DAY_US,
    MICROSECONDS,
    Timeframe,
)
from backtest_pipeline.market.validation import base_length_us


def resample(base: Panel, target: Timeframe) -> Panel:
    """OHLCV and `gap_bars` at the target timeframe, from bars of the same or a finer one.

    A period gets a bar if it starts no earlier than the asset's first base bar and is over: the
    base bar that closes it, or a later one, exists. So an asset delisted mid-period has no bar for
    that period, and later base bars never change an earlier bar. Base bars may be missing inside
    a bar: `gap_bars` (float64) counts those missing in (previous close, this close], and for the
    asset's first bar those missing inside it. If one base bar has no volume, the sum is NaN.

    Args:
        base: validated bars: sorted, unique, stamped on the grid of their timeframe.
        target: target timeframe; if it is the base's own, the bars are unchanged.

    Returns:
        A panel of the same assets (some may be empty), stamped `period end - 1 ms`.

    Raises:
        InvalidInput: if the target's periods do not consist of whole base bars.
    """
    _require_divides(base.timeframe, target)
    length = base_length_us(base.timeframe)
    segment = base.segment_of_row
    start, end = target.period_bounds(base.ts)

    first = np.ones(len(base), bool)
    first[1:] = (segment[1:] != segment[:-1]) | (start[1:] != start[:-1])
    opens = np.flatnonzero(first)
    closes = np.append(opens[1:], len(base))[: len(opens)] - 1
    asset = segment[opens]

    listed = base.ts[base.offsets[asset]] + CLOSE_STAMP_US - length
    closed_by_last = base.ts[closes] == end[closes] - CLOSE_STAMP_US
    last_of_asset = closes == base.offsets[asset + 1] - 1
    complete = (start[opens] >= listed) & (closed_by_last | ~last_of_asset)

    bars = Panel(
        timeframe=target,
        assets=base.assets,
        offsets=np.searchsorted(asset, np.arange(len(base.assets) + 1)).astype(np.int64),
        ts=end[opens] - CLOSE_STAMP_US,
        columns={
            "open": base["open"][opens],
            "high": np.maximum.reduceat(base["high"], opens),
            "low": np.minimum.reduceat(base["low"], opens),
            "close": base["close"][closes],
            "volume": np.add.reduceat(base["volume"], opens),
        },
    ).take(complete)
    present = (closes - opens + 1)[complete]
    return bars.with_columns({"gap_bars": _missing(bars, present, length)})


def _missing(bars: Panel, present: np.ndarray, base_length: int) -> np.ndarray:
    """Base bars missing since the previous close, or since the start of an asset's first bar."""
    since = bars.timeframe.period_bounds(bars.ts)[0] - CLOSE_STAMP_US
    segment = bars.segment_of_row
    follows = np.flatnonzero(segment[1:] == segment[:-1]) + 1
    since[follows] = bars.ts[follows - 1]
    return ((bars.ts - since) // base_length - present).astype(np.float64)


def divides(base: Timeframe, target: Timeframe) -> bool:
    """Whether every period of `target` consists of whole bars of `base`."""
    if base.length_us is None:
        return False
    if target.length_us is not None:
        atom = target.length_us
    else:  # periods of varying length still start with a week or a day
        atom = MICROSECONDS["W"] if target.unit == "W" else DAY_US
    epoch = np.zeros(1, np.int64)
    shift = int(target.period_bounds(epoch)[0][0] - base.period_bounds(epoch)[0][0])
    return atom % base.length_us == 0 and shift % base.length_us == 0


def coarsest_base(target: Timeframe, bases: Iterable[Timeframe]) -> Timeframe:
    """The longest of `bases` that `target` can be resampled from.

    Raises:
        InvalidInput: if there is none.
    """
    available = tuple(bases)
    candidates = [base for base in available if divides(base, target)]
    if not candidates:
        names = ", ".join(base.name for base in available) or "none"
        raise InvalidInput(
            f"{target.name} bars cannot be resampled from the source's timeframes ({names}); "
            "add bars that fit its periods a whole number of times"
        )
    return max(candidates, key=base_length_us)


def _require_divides(base: Timeframe, target: Timeframe) -> None:
    if not divides(base, target):
        raise InvalidInput(
            f"{target.name} bars cannot be resampled from {base.name}: a period does not consist "
            f"of whole {base.name} bars; add finer bars"
        )
