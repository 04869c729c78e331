"""When a file's bars begin and end: stamps to UTC, and the close stamp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, Timeframe
from backtest_pipeline.sources.stamp_text import parsed_stamps, without_missing

CLOSE_TICK_US = 1_000_000  # files say 23:59:59 or 23:59:59.999 for the close of a day
_EARLIEST_EPOCH_S = 100_000_000  # 1973; smaller numbers are row numbers or dates like 20240131


@dataclass(frozen=True)
class StampReading:
    """How stamps are to be read.

    Attributes:
        where: the file, for messages.
        first_line: of the first row; None where the format has no lines.
        tz: IANA zone of stamps that carry none; None where nobody has said it.
        format: how text is written, in the codes of strftime.
        days: whether stamps that carry a zone are the midnights of days in `tz`.
    """

    where: str
    first_line: int | None = None
    tz: str | None = None
    format: str | None = None
    days: bool = False

    def line(self, row: int) -> str:
        return f"row {row + 1}" if self.first_line is None else f"line {self.first_line + row}"


def utc_stamps(
    column: pa.ChunkedArray, reading: StampReading, time_of_day: pa.ChunkedArray | None = None
) -> np.ndarray:
    """A column of stamps as int64 microseconds since 1970 UTC.

    Stamps with a zone are converted. Numbers are seconds, milliseconds, microseconds or
    nanoseconds since 1970 UTC, told apart row by row by their size. Dates are UTC days; so are
    stamps without a zone that all lie on midnight or in a day's last second, for that is how
    exports of daily bars write a date. Any other stamp without a zone could mean local time, so
    that the zone has to be stated.

    Args:
        column: text in plain `string`, numbers, dates or timestamps.
        reading: what is known of them.
        time_of_day: text of the time, where `column` holds the dates only.

    Raises:
        BarsError: for stamps without a zone, missing ones, and what is no stamp at all.
    """
    where = reading.where
    if time_of_day is not None and pa.types.is_string(time_of_day.type):
        column = pc.call_function(
            "binary_join_element_wise",
            [column.cast(pa.string()), time_of_day, pa.scalar(" ")],
        )
    if pa.types.is_string(column.type):
        column = without_missing(column)
    if column.null_count:
        row = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        raise BarsError(
            f"{where}: {column.null_count} of {len(column)} rows have no stamp, "
            f"the first of them in {reading.line(row)}; remove these rows"
        )
    try:
        if pa.types.is_string(column.type):
            column = parsed_stamps(column, reading)
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return _from_epoch(_whole(column), where)
        stamps = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
    except pa.ArrowException as reason:
        raise BarsError(
            f"{where}: the stamps, the first of them {column[0]}, cannot be read ({reason}); "
            "write ISO 8601 with a zone, such as 2024-01-31T00:00:00Z"
        ) from reason
    if stamps.type.tz is None:
        ts = stamps.cast(pa.int64()).to_numpy()
        return ts if _are_days(ts) else _of_zone(stamps, reading)
    if reading.days:
        local = stamps.cast(pa.timestamp("us", tz=reading.tz))
        wall = pc.call_function("local_timestamp", [local]).cast(pa.int64()).to_numpy()
        if _are_days(wall):
            return wall
    return stamps.cast(pa.int64()).to_numpy()


def _whole(column: pa.ChunkedArray) -> np.ndarray:
    """Epochs as integers; those with a fraction, in seconds, as microseconds."""
    if not pa.types.is_integer(column.type):
        values = column.cast(pa.float64()).to_numpy()
        if (values != np.floor(values)).any() and values.max() < 10**11:
            return np.rint(values * 1e6).astype(np.int64)
        column = pa.chunked_array([pa.array(values)])
    return column.cast(pa.int64()).to_numpy()


def _from_epoch(numbers: np.ndarray, where: str) -> np.ndarray:
    if not len(numbers):
        return numbers
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


def _are_days(ts: np.ndarray) -> bool:
    second_of_day = ts % DAY_US
    return not ((second_of_day != 0) & (second_of_day < DAY_US - CLOSE_TICK_US)).any()


def _of_zone(stamps: pa.ChunkedArray, reading: StampReading) -> np.ndarray:
    """Stamps without a zone as UTC, by the zone that is stated."""
    if reading.tz is not None:
        options = {"timezone": reading.tz, "ambiguous": "raise", "nonexistent": "raise"}
        try:
            zoned = pc.call_function(
                "assume_timezone", [stamps], pc.AssumeTimezoneOptions(**options)
            )
        except pa.ArrowException as reason:
            raise BarsError(
                f"{reading.where}: {reason}: the clocks were changed, so the hour is there twice "
                "or not at all; export in UTC"
            ) from reason
        return zoned.cast(pa.int64()).to_numpy()
    ts = stamps.cast(pa.int64()).to_numpy()
    second_of_day = ts % DAY_US
    row = int(((second_of_day != 0) & (second_of_day < DAY_US - CLOSE_TICK_US)).argmax())
    stamp = ts[row].astype("M8[us]").astype("M8[s]")
    raise BarsError(
        f"{reading.where}: stamps without a time zone, such as {stamp} in {reading.line(row)}, "
        f"which may be {stamp}Z or local time (in New York {stamp + np.timedelta64(5, 'h')}Z or "
        'an hour earlier); say which it is: tz = "UTC" or tz = "America/New_York" in '
        "bars.toml beside the file, or append Z to the text, or .dt.tz_localize('UTC') before the "
        "file is written"
    )


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
