"""When a file's bars begin and end: stamps to UTC, the timeframe, and the close stamp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.timeframes import (
    CLOSE_STAMP_US,
    DAY_US,
    MICROSECONDS,
    TIMEFRAMES,
    Timeframe,
)

BY_LENGTH = {
    length: tf
    for tf in reversed(TIMEFRAMES.values())
    if not tf.is_calendar and (length := tf.length_us) is not None
}
CLOSE_TICK_US = 1_000_000  # files say 23:59:59 or 23:59:59.999 for the close of a day
_DISTANCES_TO_TELL = 2  # a single distance may be a gap
_EARLIEST_EPOCH_S = 100_000_000  # 1973; smaller numbers are row numbers or dates like 20240131


def utc_stamps(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """A column of stamps as int64 microseconds since 1970 UTC.

    Stamps with a zone are converted. Numbers are seconds, milliseconds, microseconds or
    nanoseconds since 1970 UTC, told apart row by row by their size. Dates are UTC days; so are
    stamps without a zone that all lie on midnight or in a day's last second, for that is how
    exports of daily bars write a date. Any other stamp without a zone could mean local time.

    Raises:
        BarsError: for stamps without a zone, missing ones, and what is no stamp at all.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        raise BarsError(f"{where}: {column.null_count} of {len(column)} rows have no stamp")
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = _parse(column)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            return _from_epoch(column.cast(pa.int64()).to_numpy(), where)
        stamps = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    except pa.ArrowException as reason:
        raise BarsError(
            f"{where}: the stamps, the first of them {column[0]}, cannot be read ({reason}); "
            "write ISO 8601 with a zone, such as 2024-01-31T00:00:00Z"
        ) from reason
    ts = stamps.cast(pa.int64()).to_numpy()
    if stamps.type.tz is None:
        _require_days(ts, where)
    return ts


def _parse(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as numbers, stamps with a zone, or stamps without one, after its first row."""
    text = pc.call_function("utf8_trim_whitespace", [column])
    first = text[0].as_py()
    if first.isdigit():
        return text.cast(pa.int64())
    has_zone = first.endswith("Z") or "+" in first or first.rfind("-") > len("2024-01-31")
    return text.cast(pa.timestamp("ns", tz="UTC" if has_zone else None))


def _from_epoch(numbers: np.ndarray, where: str) -> np.ndarray:
    if numbers.min() < _EARLIEST_EPOCH_S:
        raise BarsError(
            f"{where}: {numbers.min()} is not a time since 1970 in s, ms, us or ns; "
            "write ISO 8601 with a zone, such as 2024-01-31T00:00:00Z"
        )
    seconds, milliseconds, microseconds = numbers < 10**11, numbers < 10**14, numbers < 10**17
    return np.select(
        [seconds, milliseconds, microseconds],
        [numbers * 1_000_000, numbers * 1_000, numbers],
        numbers // 1_000,
    )


def _require_days(ts: np.ndarray, where: str) -> None:
    second_of_day = ts % DAY_US
    intraday = (second_of_day != 0) & (second_of_day < DAY_US - CLOSE_TICK_US)
    if intraday.any():
        stamp = ts[intraday][0].astype("M8[us]").astype("M8[s]")
        raise BarsError(
            f"{where}: stamps without a time zone, such as {stamp}; say which it is: append Z "
            "to the text, or .dt.tz_localize('UTC') before the file is written"
        )


def timeframes_of(
    symbol_of_row: np.ndarray, ts: np.ndarray, symbols: Sequence[str], where: str
) -> list[Timeframe]:
    """The timeframe of each symbol: the most frequent distance between its stamps.

    A symbol with too few rows to tell takes the most frequent one of the file.

    Raises:
        BarsError: where the distance is no timeframe, or a single stamp tells none.
    """
    order = np.lexsort((ts, symbol_of_row))
    owner, distance = symbol_of_row[order][1:], np.diff(ts[order])
    within = (owner == symbol_of_row[order][:-1]) & (distance > 0)
    owner, distance = owner[within], distance[within]
    if len(distance) == 0:
        raise BarsError(
            f"{where}: one stamp does not tell how long a bar is; bring two bars of an asset"
        )
    spacing = np.full(len(symbols), _modes(np.zeros_like(owner), distance)[1][0])
    judged, mode = _modes(owner, distance)
    tells = np.bincount(owner)[judged] >= _DISTANCES_TO_TELL
    spacing[judged[tells]] = mode[tells]
    for symbol, length in zip(symbols, spacing.tolist(), strict=True):
        if length not in BY_LENGTH:
            raise BarsError(
                f"{where}: bars of {symbol} are {length / MICROSECONDS['MIN']:g} minutes apart, "
                f"which is no base timeframe; known: {', '.join(_base_names())}"
            )
    return [BY_LENGTH[length] for length in spacing.tolist()]


def _base_names() -> list[str]:
    return [BY_LENGTH[length].name for length in sorted(BY_LENGTH)]


def _modes(owner: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The owners, and for each its most frequent distance (the shorter one of equals)."""
    distances, rank = np.unique(distance, return_inverse=True)
    pair, count = np.unique(owner * len(distances) + rank, return_counts=True)
    owners, rank = np.divmod(pair, len(distances))
    order = np.lexsort((-rank, count, owners))
    last = np.append(np.diff(owners[order]) != 0, True)
    return owners[order][last], distances[rank[order][last]]


def from_open(ts: np.ndarray, tf: Timeframe) -> np.ndarray:
    """Close stamps of bars that are stamped where they begin."""
    return ts + (tf.length_us or 0) - CLOSE_STAMP_US


def from_close(ts: np.ndarray, tf: Timeframe) -> np.ndarray:
    """Close stamps of bars that are stamped at their end, or up to a second before it.

    Stamps farther from the grid stay as they are, for the validation to count.
    """
    end = tf.period_bounds(ts - 1)[1]
    return np.where(end - ts <= CLOSE_TICK_US, end - CLOSE_STAMP_US, ts)


def stamped_at_close(
    ts: np.ndarray, symbol_of_row: np.ndarray, tf: Timeframe, symbols: int
) -> np.ndarray:
    """For each symbol whether more of its stamps lie just before the grid than on it."""
    start, end = tf.period_bounds(ts)
    opens = np.bincount(symbol_of_row[ts == start], minlength=symbols)
    closes = np.bincount(symbol_of_row[end - ts <= CLOSE_TICK_US], minlength=symbols)
    return closes > opens
