"""Bars of a longer timeframe from finer bars, complete bars only."""

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
    """OHLCV bars of `target` and `gap_bars`, from bars of the same or a finer timeframe.

    A bar is made where its period began no earlier than the asset's first base bar and is over:
    the base bar that closes it is there, or a later one is. So an asset that was delisted in
    mid-period has no bar for it, and later base bars never change an earlier bar. Base bars may
    be missing inside a bar; `gap_bars` (float64) counts those missing in (previous bar's close,
    this close], for the asset's first bar those missing inside it. A volume that is unknown in
    one base bar is unknown (NaN) in the sum.

    Args:
        base: validated bars: sorted, unique, close stamps on the grid of their timeframe.
        target: the timeframe wanted; with the base's own, bars pass through unchanged.

    Returns:
        A panel of the same assets (some maybe empty), stamped `period end - 1 ms`.

    Raises:
        InvalidInput: where bars of the base timeframe do not fill the target's periods.
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
    """Base bars missing since the previous bar's close, or the start of an asset's first bar."""
    since = bars.timeframe.period_bounds(bars.ts)[0] - CLOSE_STAMP_US
    segment = bars.segment_of_row
    follows = np.flatnonzero(segment[1:] == segment[:-1]) + 1
    since[follows] = bars.ts[follows - 1]
    return ((bars.ts - since) // base_length - present).astype(np.float64)


def divides(base: Timeframe, target: Timeframe) -> bool:
    """Whether each period of `target` is filled exactly by whole bars of `base`."""
    if base.length_us is None:
        return False
    if target.length_us is not None:
        atom = target.length_us
    else:  # periods of varying length still begin at a week or at a day
        atom = MICROSECONDS["W"] if target.unit == "W" else DAY_US
    epoch = np.zeros(1, np.int64)
    shift = int(target.period_bounds(epoch)[0][0] - base.period_bounds(epoch)[0][0])
    return atom % base.length_us == 0 and shift % base.length_us == 0


def coarsest_base(target: Timeframe, bases: Iterable[Timeframe]) -> Timeframe:
    """The longest of `bases` that `target` can be built from.

    Raises:
        InvalidInput: where none of them divides the target.
    """
    known = tuple(bases)
    fitting = [base for base in known if divides(base, target)]
    if not fitting:
        names = ", ".join(base.name for base in known) or "none"
        raise InvalidInput(
            f"{target.name} cannot be built from the base timeframes at hand ({names}); "
            "bring bars that divide its periods, 1D or finer"
        )
    return max(fitting, key=base_length_us)


def _require_divides(base: Timeframe, target: Timeframe) -> None:
    if not divides(base, target):
        raise InvalidInput(
            f"{target.name} cannot be built from {base.name}: whole {base.name} bars do not "
            "fill its periods; bring finer bars"
        )
