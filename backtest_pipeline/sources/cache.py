"""Bars that were fetched once: immutable files that any number of processes read through DuckDB.

A DuckDB database file belongs to one process at a time, even for reading. So the bars lie in
Parquet segments (`sources.segments`), and each process queries them with an in-memory DuckDB of
its own: readers wait for nobody, writers for one rename.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.partitions import checked_symbol
from backtest_pipeline.market.timeframes import Timeframe, is_timeframe, timeframe
from backtest_pipeline.market.validation import base_length_us
from backtest_pipeline.sources import segments as files
from backtest_pipeline.sources.segments import BARS, Piece, Segment
from backtest_pipeline.sources.spans import Span, minus, union

if TYPE_CHECKING:
    import duckdb

_ATTEMPTS = 5
_USE_NOTED_EVERY_S = 3600

# A segment is sorted, and DuckDB keeps the order of a file.
_QUERY = """
    SELECT open_time, open, high, low, close, volume FROM read_parquet($path)
    WHERE open_time >= $start AND open_time < $end
"""


@dataclass(frozen=True)
class Series:
    """The bars of one symbol of an exchange, at a timeframe of fixed length."""

    exchange: str
    symbol: str
    timeframe: Timeframe

    @property
    def length_us(self) -> int:
        """Length of a bar in microseconds."""
        return base_length_us(self.timeframe)

    def __str__(self) -> str:
        return f"{self.symbol} {self.timeframe.name} of {self.exchange}"


@dataclass(frozen=True)
class Held:
    """What the cache holds of a series, seen at one instant.

    Attributes:
        bars: schema `BARS`, sorted by `open_time`, unique.
        covered: what is known, in order; a period in it without a bar is a known hole.
    """

    bars: pa.Table
    covered: Sequence[Span]

    def missing(self, wanted: Span) -> list[Span]:
        """The parts of a span that nothing is known about; a hit is where there are none."""
        return minus(wanted, self.covered)

    def holes(self, length_us: int) -> int:
        """Periods after the first bar that are known to have no bar."""
        if not len(self.bars):
            return 0
        first = self.bars["open_time"][0].as_py()
        known = (Span(max(span.start, first), span.end) for span in self.covered)
        periods = sum(-(-(s.end - s.start) // length_us) for s in known if s.start < s.end)
        return periods - len(self.bars)


@dataclass
class Counts:
    """What one process did with a cache since it opened it."""

    hits: int = 0
    misses: int = 0
    quarantined: int = 0
    evicted: int = 0


class BarCache:
    """Bars below one folder: `<exchange>/<timeframe>/<symbol>/<segment>.parquet`."""

    def __init__(
        self,
        root: Path,
        most_bytes: int = 10**10,
        most_days: float = 365.0,
        most_segments: int = 8,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            root: the folder.
            most_bytes, most_days: what `evict` leaves.
            most_segments: more of a series are merged; each costs a reader a millisecond.
        """
        self.root = root
        self._most_segments = most_segments
        self._most_bytes = most_bytes
        self._most_unused_s = most_days * 86_400
        self.counts = Counts()
        self._verified: set[tuple[str, int, int]] = set()
        self._lock = Lock()

    def series(self) -> list[Series]:
        """Every series that has a segment, sorted."""
        found = []
        for folder in sorted(self.root.glob("*/*/*/")):
            exchange, tf, symbol = folder.parts[-3:]
            if is_timeframe(tf) and files.segments_in(folder):
                found.append(Series(exchange, symbol, timeframe(tf)))
        return found

    def folder(self, series: Series) -> Path:
        """Where the segments of a series are."""
        parts = (series.exchange, series.timeframe.name, series.symbol)
        return self.root.joinpath(*map(checked_symbol, parts))

    def read(self, series: Series, span: Span | None = None) -> Held:
        """What is held of a series, of a span only where one is given.

        A segment whose bytes have changed is put aside, and what it covered is unknown again.

        Raises:
            BarsError: where the folder cannot be read.
        """
        import duckdb

        folder = self.folder(series)
        for _ in range(_ATTEMPTS):
            try:
                found = self._intact(folder)
                pieces = files.pieces_of(found, span)
                bars = self._query(pieces)
            except (FileNotFoundError, duckdb.Error):
                # Merged or removed by another process, or damaged, since it was listed.
                self._verified.clear()
                continue
            except OSError as error:
                raise BarsError(
                    f"cannot read bars from {folder}: {error.strerror or error}; make it "
                    "readable, or set BACKTEST_CACHE_FOLDER to another folder"
                ) from error
            if found:
                _note_use(folder)
            return Held(bars, union(piece.span for piece in pieces))
        raise BarsError(f"{folder}: the bars change faster than they can be read; try again")

    def put(self, series: Series, span: Span, bars: pa.Table) -> None:
        """Add what a span holds; where something was known of it, this is right from now on.

        Raises:
            BarsError: where the folder cannot be written.
        """
        files.publish(self.folder(series), span, bars)

    def look_up(self, series: Series, wanted: Span) -> Held:
        """As `read`, counted as a hit or a miss."""
        held = self.read(series)
        hit = not held.missing(wanted)
        self._count(hits=hit, misses=not hit)
        return held

    def is_complete(self, series: Series, wanted: Span) -> bool:
        """Whether a span is known from end to end; by the names of the segments, none is read."""
        covered = union(segment.span for segment in files.segments_in(self.folder(series)))
        return not minus(wanted, covered)

    def content(self, series: Series) -> list[str]:
        """The names of the segments of a series, which say what is in them."""
        return [segment.path.name for segment in files.segments_in(self.folder(series))]

    def tidy(self, series: Series) -> None:
        """Merge the segments of a series where they are many, and sweep what was abandoned."""
        folder = self.folder(series)
        files.sweep(folder)
        if len(files.segments_in(folder)) <= self._most_segments:
            return
        # A reader that puts a damaged segment aside stops a merge; the next pull merges again.
        with suppress(FileNotFoundError), files.locked(folder):
            found = self._intact(folder)
            for span in union(segment.span for segment in found):
                parts = [s for s in found if span.start <= s.span.start < span.end]
                if len(parts) > 1:
                    files.put_in_place_of(parts, span, self._query(files.pieces_of(parts)))

    def size(self, series: Series) -> tuple[int, int]:
        """Bytes and number of the segments of a series."""
        sizes = []
        for segment in files.segments_in(self.folder(series)):
            with suppress(FileNotFoundError):  # merged in the meantime
                sizes.append(segment.path.stat().st_size)
        return sum(sizes), len(sizes)

    def evict(self) -> list[Series]:
        """Remove the series that were not used for too long, and more while the rest is too large.

        The one that was used longest ago goes first, and none that may be in use: what is too large
        may stay so for some hours. Returns what went.
        """
        by_use = sorted(self.series(), key=lambda series: _last_use(self.folder(series)))
        sizes = {series: self.size(series)[0] for series in by_use}
        total = sum(sizes.values())
        gone = []
        for series in by_use:
            folder = self.folder(series)
            idle_s = time.time() - _last_use(folder)
            fits = total <= self._most_bytes and idle_s <= self._most_unused_s
            if fits or idle_s < 2 * _USE_NOTED_EVERY_S:
                continue
            with files.locked(folder):
                for segment in files.segments_in(folder):
                    segment.path.unlink(missing_ok=True)
            total -= sizes[series]
            gone.append(series)
        self._count(evicted=len(gone))
        return gone

    def verify(self, series: Series) -> list[Path]:
        """Hash every segment anew; those that have changed are put aside and returned."""
        self._verified.clear()
        before = set(files.damaged_in(self.folder(series)))
        self.read(series)
        return [path for path in files.damaged_in(self.folder(series)) if path not in before]

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, n in more.items():
                setattr(self.counts, name, getattr(self.counts, name) + n)

    def _intact(self, folder: Path) -> list[Segment]:
        """The segments whose bytes are those that were published; the others are put aside."""
        intact = []
        for segment in files.segments_in(folder):
            status = segment.path.stat()
            seen = (str(segment.path), status.st_size, status.st_mtime_ns)
            if seen in self._verified or segment.is_intact():
                self._verified.add(seen)
                intact.append(segment)
            else:
                files.put_aside(segment)
                self._count(quarantined=1)
        return intact

    def _query(self, pieces: Sequence[Piece]) -> pa.Table:
        database = _database().cursor()  # a connection of its own for each thread
        tables = [
            database.sql(
                _QUERY,
                params={"path": str(piece.segment.path), **piece.span._asdict()},
            ).to_arrow_table()
            for piece in pieces
        ]
        return pa.concat_tables([BARS.empty_table(), *tables]).combine_chunks()


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """This process's own database, in memory; imported here, for it costs 0.2 s."""
    import duckdb

    return duckdb.connect(":memory:", config={"threads": 1})


def open_times(bars: pa.Table) -> np.ndarray:
    """The `open_time` of bars, int64."""
    return bars["open_time"].to_numpy()


def _note_use(folder: Path) -> None:
    """Remember on disk that a series was used, to the hour; a cache may be there to read only."""
    if time.time() - _last_use(folder) > _USE_NOTED_EVERY_S and os.access(folder, os.W_OK):
        os.utime(folder)


def _last_use(folder: Path) -> float:
    return folder.stat().st_mtime
