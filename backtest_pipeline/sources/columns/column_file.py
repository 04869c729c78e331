"""A file of a user's own columns: `symbol, ts, <columns>`, and optionally `available_at`.

A row is known from `available_at` on, else from `ts`; a date without a time is known when that UTC
day ends. Of the rows that are known at an instant, the one with the latest `ts` counts.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from backtest_pipeline.market.as_of import TimedValues
from backtest_pipeline.market.errors import BarsError, ColumnsError
from backtest_pipeline.market.features import is_given_by_bars
from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US
from backtest_pipeline.sources.stamp_text import parsed_stamps, without_missing
from backtest_pipeline.sources.stamps import StampReading, utc_stamps

SUFFIXES = (".parquet", ".csv")
_KEYS = ("symbol", "ts")
_AVAILABLE = "available_at"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")
_FILES_KEPT = 8  # parsed files that a process keeps


class FileStamp(NamedTuple):
    """What changes whenever a file does."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Content(NamedTuple):
    """What a file holds.

    Attributes:
        digest: sha256 of its bytes.
        values: its rows.
        overtaken: number of rows left out, because one of a later `ts` was known before.
    """

    digest: str
    values: TimedValues
    overtaken: int


@dataclass(frozen=True)
class ColumnFile:
    """One file, as far as its header says.

    Attributes:
        path: where it lies.
        names: its own columns, sorted.
        stamp: as it was when the header was read.
        max_age_us: the longest time that a row is carried; None for until the next row.
        tz: IANA zone of stamps that carry none.
    """

    path: Path
    names: tuple[str, ...]
    stamp: FileStamp
    max_age_us: int | None = None
    tz: str | None = None

    def content(self) -> Content:
        """Its rows.

        Raises:
            ColumnsError: for a file that cannot be read, with the column and row.
        """
        return _content(self.path, self.stamp, self.tz)


def open_column_file(
    path: Path, *, max_age_us: int | None = None, tz: str | None = None
) -> ColumnFile:
    """A file by its header; the rows are read when they are needed.

    Raises:
        ColumnsError: for a header that lacks a key, or names a column that no rule could.
    """
    try:
        status = path.stat()
        names = _header(path)
    except (OSError, pa.ArrowException) as reason:
        raise _unreadable(path, reason) from reason
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ColumnsError(f"{path}: more than one column is named {', '.join(twice)}; rename them")
    lacking = [name for name in _KEYS if name not in names]
    if lacking:
        raise ColumnsError(
            f"{path}: there is no column {' and no column '.join(lacking)}; write the columns "
            f"symbol, ts, optionally {_AVAILABLE}, and your own"
        )
    own = sorted(set(names) - {*_KEYS, _AVAILABLE})
    if not own:
        raise ColumnsError(f"{path}: it has no column beside {', '.join(names)}; add your own")
    odd = [name for name in own if not _NAME.fullmatch(name)]
    if odd:
        raise ColumnsError(
            f"{path}: {', '.join(map(repr, odd))} cannot name a column: use letters, digits and _, "
            "beginning with a letter, at most 60"
        )
    features = [name for name in own if is_given_by_bars(name)]
    if features:
        raise ColumnsError(
            f"{path}: {', '.join(features)} would hide what is computed from bars "
            "(docs/features.md); rename it"
        )
    stamp = FileStamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ColumnFile(path, tuple(own), stamp, max_age_us, tz)


def _unreadable(path: Path, reason: Exception) -> ColumnsError:
    if path.suffix == ".parquet" and isinstance(reason, pa.ArrowInvalid):
        return ColumnsError(f"{path}: it is no Parquet file, or a damaged one; write it again")
    return ColumnsError(f"{path}: cannot be read: {reason}")


def _header(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return list(pq.read_schema(path).names)
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return [cell.strip().strip('"') for cell in file.readline().strip().split(",")]


@lru_cache(maxsize=_FILES_KEPT)
def _content(path: Path, stamp: FileStamp, tz: str | None) -> Content:
    """The rows of a file; `stamp` makes a changed file another one."""
    try:
        data = path.read_bytes()
        table = _table(path, data)
    except (OSError, pa.ArrowException) as reason:
        raise _unreadable(path, reason) from reason
    digest = hashlib.sha256(data).hexdigest()
    del data
    first_line = None if path.suffix == ".parquet" else 2
    reading = StampReading(str(path), first_line, tz)
    columns = {
        name: _numbers(path, name, table[name])
        for name in table.column_names
        if name not in (*_KEYS, _AVAILABLE)
    }
    symbols, segment = _symbols(path, table["symbol"])
    ts = _instants(table["ts"], reading)
    known_at = ts
    if _AVAILABLE in table.column_names:
        known_at = _instants(table[_AVAILABLE], reading)
    values = _sorted(path, symbols, segment, ts, known_at, columns)
    return Content(digest, values, len(ts) - len(values.known_at))


def _table(path: Path, data: bytes) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(io.BytesIO(data))
    return arrow_csv.read_csv(
        io.BytesIO(data),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys((*_KEYS, _AVAILABLE), pa.string()),
            null_values=["", "nan", "NaN", "null", "NULL", "None", "NA", "N/A"],
        ),
    )


def _symbols(path: Path, column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The keys of the symbols, sorted, and the position of each row's."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        raise ColumnsError(f"{path}: column symbol holds {column.type}; write symbols as text")
    coded = column.combine_chunks().dictionary_encode()
    given = coded.dictionary.to_pylist()
    if column.null_count or "" in given:
        raise ColumnsError(f"{path}: some rows have no symbol; remove them")
    keys = [key_of(symbol) for symbol in given]
    for key in {key for key in keys if keys.count(key) > 1}:
        same = [symbol for symbol, of in zip(given, keys, strict=True) if of == key]
        raise ColumnsError(f"{path}: the symbols {' and '.join(same)} are all {key}; keep one")
    order = np.argsort(np.array(keys, object))
    place = np.empty(len(keys), np.int64)
    place[order] = np.arange(len(keys))
    return [keys[i] for i in order], place[coded.indices.to_numpy()]


def _instants(column: pa.ChunkedArray, reading: StampReading) -> np.ndarray:
    """Stamps as int64 microseconds since 1970 UTC; of a date without a time, the end of its day."""
    try:
        kind = column.type
        if pa.types.is_large_string(kind):
            column = column.cast(pa.string())
        if pa.types.is_string(column.type):
            column = without_missing(column)
            column = column if column.null_count else parsed_stamps(column, reading)
        ts, kind = utc_stamps(column, reading), column.type
    except BarsError as error:
        reason = str(error).replace("bars.toml beside the file", "columns.toml beside the file")
        raise ColumnsError(reason) from error
    is_naive = pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None)
    # Of stamps without a zone, `utc_stamps` passes days alone, or converts from the zone stated.
    if not is_naive or (reading.tz is not None and (ts % DAY_US != 0).any()):
        return ts
    if reading.tz is not None:
        raise ColumnsError(
            f"{reading.where}: the stamps are dates, which end at another instant in {reading.tz}; "
            "write the time, or leave tz out for UTC days"
        )
    return ts - ts % DAY_US + DAY_US - CLOSE_STAMP_US


def _numbers(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not is_number and not pa.types.is_boolean(kind):
        raise ColumnsError(
            f"{path}: column {name} holds {_held(column)}, and rules read numbers and flags; "
            "convert it, or leave it out"
        )
    values = (column.cast(pa.int8()) if pa.types.is_boolean(kind) else column).cast(pa.float64())
    numbers = values.to_numpy().astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _held(column: pa.ChunkedArray) -> str:
    """What a column of no numbers holds; of text the first that is no number, and its row."""
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        return str(column.type)
    for row, text in enumerate(column.to_pylist(), start=1):
        try:
            float(text or "nan")
        except ValueError:
            return f"text, such as {text!r:.40} in row {row:,}"
    return "numbers written as text"


def _sorted(
    path: Path,
    symbols: list[str],
    segment: np.ndarray,
    ts: np.ndarray,
    known_at: np.ndarray,
    columns: Mapping[str, np.ndarray],
) -> TimedValues:
    """The rows by symbol and the instant from which each is known, without those known too late."""
    order = np.lexsort((ts, known_at, segment))
    segment, ts, known_at = segment[order], ts[order], known_at[order]
    twice = (np.diff(segment) == 0) & (np.diff(ts) == 0) & (np.diff(known_at) == 0)
    if twice.any():
        row = int(twice.argmax())
        raise ColumnsError(
            f"{path}: {symbols[segment[row]]} has more than one row at "
            f"{utc_index(ts[row : row + 1])[0]} ({int(twice.sum()):,} rows too many); keep one"
        )
    # A row that arrives after one of a later `ts` was overtaken before it was known.
    place = np.unique(ts, return_inverse=True)[1] + segment * len(ts)
    newest = place >= np.maximum.accumulate(place) if len(place) else np.empty(0, bool)
    kept = order[newest]
    counts = np.bincount(segment[newest], minlength=len(symbols))
    return TimedValues(
        tuple(symbols),
        np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        known_at[newest],
        {name: columns[name][kept] for name in sorted(columns)},
    )
