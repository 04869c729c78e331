"""Stamps that are written as text: ISO 8601 and its relatives, dates in words, epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.timeframes import DAY_US

if TYPE_CHECKING:
    from backtest_pipeline.sources.stamps import StampReading

_MISSING = ("", "nan", "null", "none", "nat", "n/a", "na", "#n/a")
_DATES = ("%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%b %d, %Y", "%d %b %Y", "%d-%b-%Y")
_TIMES = ("", " %H:%M:%S", " %H:%M")
_FORMATS = (
    *(date + time for date in _DATES for time in _TIMES),
    *("%Y-%m-%d %I-%p", "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %I:%M %p"),
    *("%Y%m%d %H%M%S", "%Y%m%d %H:%M:%S", "%Y%m%d %H:%M"),
)
# The day and the month change places; where all rows can be read both ways, nobody can say.
_TWO_READINGS = tuple(
    (f"%m{sep}%d{sep}%Y{time}", f"%d{sep}%m{sep}%Y{time}")
    for sep in "/-"
    for time in (*_TIMES, " %I:%M:%S %p", " %I:%M %p")
)


def without_missing(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """The text with what stands for nothing as null."""
    missing = pc.call_function(
        "is_in",
        [pc.call_function("utf8_lower", [text])],
        pc.SetLookupOptions(value_set=pa.array(_MISSING)),
    )
    return pc.call_function("if_else", [missing, pa.scalar(None, pa.string()), text])


def parsed_stamps(text: pa.ChunkedArray, reading: StampReading) -> pa.ChunkedArray:
    """Text without missing rows as numbers, or as timestamps with a zone or without one.

    Raises:
        BarsError: for what is no stamp, and for what can be read in two ways.
    """
    if reading.format is not None:
        stamps = _strptime(text, reading.format)
        if stamps.null_count:
            raise _unreadable(text, stamps, reading, f"not of the format {reading.format!r}")
        return stamps
    if _all_match(text, r"^[0-9]+(\.0*)?$"):
        return _substituted(text, r"\.0*$", "").cast(pa.int64())
    if _all_match(text, r"^[0-9]+\.[0-9]+$"):
        return text.cast(pa.float64())
    if _all_match(text, r"^[0-9](\.[0-9]+)?[eE]\+?[0-9]+$"):
        return _rounded(text, reading)
    text = _substituted(text, r"\s*(?:[+-]00:?00)?\s*(?:UTC|GMT|Z|z)$", "Z")
    text = _substituted(text, r"\s+([+-][0-9]{2}:?[0-9]{2})$", r"\1")
    zoned = _matches(text, r"(?:Z|[0-9:.]{5}[+-][0-9]{2}(?::?[0-9]{2})?)$")
    if zoned.any() and not zoned.all():
        row = int((~zoned).argmax())
        raise BarsError(
            f"{reading.where}: {zoned.sum():,} stamps carry a time zone and {(~zoned).sum():,} "
            f"do not, such as {text[row]} in {reading.line(row)}; write them all with one"
        )
    try:
        return text.cast(pa.timestamp("ns", tz="UTC" if zoned.all() else None))
    except pa.ArrowException as reason:
        return _by_format(_substituted(text, "Z$", ""), reading, str(reason), bool(zoned.all()))


def _by_format(
    text: pa.ChunkedArray, reading: StampReading, reason: str, zoned: bool
) -> pa.ChunkedArray:
    best: pa.ChunkedArray | None = None
    for pattern in _FORMATS:
        stamps = _strptime(text, pattern)
        if not stamps.null_count:
            return _utc(stamps, zoned)
        if best is None or stamps.null_count < best.null_count:
            best = stamps
    for pair in _TWO_READINGS:
        read = [stamps for p in pair if not (stamps := _strptime(text, p)).null_count]
        if len(read) == 2 and not read[0].equals(read[1]):
            row = int((read[0].to_numpy() != read[1].to_numpy()).argmax())
            days = [str(stamps[row])[:10] for stamps in read]
            raise BarsError(
                f"{reading.where}: the stamp {text[row]} in {reading.line(row)} may be {days[0]} "
                f"or {days[1]}; say which in bars.toml beside the file: stamp_format = "
                f'"{pair[0]}" or stamp_format = "{pair[1]}"'
            )
        if read:
            return _utc(read[0], zoned)
    assert best is not None  # noqa: S101  (there are formats)
    raise _unreadable(text, best, reading, reason)


def _utc(stamps: pa.ChunkedArray, zoned: bool) -> pa.ChunkedArray:
    if not zoned:
        return stamps
    return pc.call_function("assume_timezone", [stamps], pc.AssumeTimezoneOptions("UTC"))


def _unreadable(
    text: pa.ChunkedArray, tried: pa.ChunkedArray, reading: StampReading, reason: str
) -> BarsError:
    row = int(tried.is_null().to_numpy(zero_copy_only=False).argmax())
    return BarsError(
        f"{reading.where}: the stamp {text[row]} in {reading.line(row)} cannot be read "
        f"({reason}); write ISO 8601 with a zone, such as 2024-01-31T00:00:00Z, or say how they "
        'are written in bars.toml beside the file, such as stamp_format = "%d/%m/%Y %H:%M"'
    )


def _rounded(text: pa.ChunkedArray, reading: StampReading) -> pa.ChunkedArray:
    """Epochs as spreadsheets show them, `1.70407E+12`: days where each can mean one only."""
    values = text.cast(pa.float64()).to_numpy()
    mantissa = pc.call_function("binary_length", [_substituted(text, r"[eE].*$", "")]).to_numpy()
    digits = np.maximum(mantissa - 2, 0)
    step = 10.0 ** (np.floor(np.log10(values)) - digits)
    per_day = np.select(
        [values < 1e11, values < 1e14, values < 1e17], [86400.0, 864e5, 864e8], 864e11
    )
    exact = step <= per_day / 86400
    day = np.rint(values / per_day)
    if not exact.all():
        off = (np.abs(values - day * per_day) > step / 2) | (step > per_day / 2)
        if off.any():
            row = int(off.argmax())
            raise BarsError(
                f"{reading.where}: the stamp {text[row]} in {reading.line(row)} was rounded, and "
                "the bar's time is lost; export stamps as whole numbers"
            )
        return pa.chunked_array([pa.array(day.astype(np.int64) * DAY_US)]).cast(
            pa.timestamp("us", tz="UTC")
        )
    return pa.chunked_array([pa.array(np.rint(values).astype(np.int64))])


def _strptime(text: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    options = pc.StrptimeOptions(format=pattern, unit="us", error_is_null=True)
    return pc.call_function("strptime", [text], options)


def _matches(text: pa.ChunkedArray, pattern: str) -> np.ndarray:
    found = pc.call_function(
        "match_substring_regex", [text], pc.MatchSubstringOptions(pattern=pattern)
    )
    return found.to_numpy()


def _all_match(text: pa.ChunkedArray, pattern: str) -> bool:
    return bool(_matches(text, pattern).all())


def _substituted(text: pa.ChunkedArray, pattern: str, by: str) -> pa.ChunkedArray:
    options = pc.ReplaceSubstringOptions(pattern=pattern, replacement=by)
    return pc.call_function("replace_substring_regex", [text], options)
