"""The files of one cached series: immutable Parquet segments whose names say what they cover.

A segment holds the bars that begin in a span, and its name says which span, when it was
published, how many bars, and the hash of its bytes:
`<start>-<end>-<published>-<bars>-<sha256>.parquet`. A period of the span without a bar is a known
hole. One rename makes bars and coverage visible together, so that a reader needs no lock and no
index, and a killed writer leaves nothing that could be believed. Where segments overlap, the one
that was published last is right, about holes too.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.panel import OHLCV
from backtest_pipeline.sources.spans import Span, minus, overlap

BARS = pa.schema([("open_time", pa.int64()), *((name, pa.float64()) for name in OHLCV)])
"""Bars as they are cached: `open_time` in microseconds since 1970 UTC, prices, volume."""

_NAME = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)-([0-9a-f]{32})\.parquet")
_UNFINISHED, _DAMAGED, _LOCK = ".unfinished-", ".damaged", ".lock"
_ABANDONED_AFTER_S = 3600
_ROW_GROUP = 65_536  # a short stretch of a long series is read without the rest


@dataclass(frozen=True)
class Segment:
    """One file.

    Attributes:
        path: the file.
        span: what it covers.
        published: its place in the order of the series' segments; near the time in microseconds.
        rows: how many bars it has.
        sha: the first 32 digits of the sha256 of its bytes.
    """

    path: Path
    span: Span
    published: int
    rows: int
    sha: str

    def is_intact(self) -> bool:
        """Whether the bytes are those that were published; raises FileNotFoundError if gone."""
        return _sha(self.path) == self.sha


@dataclass(frozen=True)
class Piece:
    """A span, and the segment that is right about it."""

    span: Span
    segment: Segment


def segments_in(folder: Path) -> list[Segment]:
    """The segments of a series, the last published first; none where there is no folder."""
    try:
        names = _listed(folder)
    except FileNotFoundError:
        return []
    found = []
    for match in filter(None, map(_NAME.fullmatch, names)):
        start, end, published, rows = map(int, match.groups()[:4])
        found.append(Segment(folder / match[0], Span(start, end), published, rows, match[5]))
    return sorted(found, key=lambda segment: (segment.published, segment.path.name), reverse=True)


def _listed(folder: Path) -> list[str]:
    """The names in a folder at one instant.

    A large folder is listed in parts, and one listing may miss a merged segment as well as the
    parts that it replaced. Two equal ones in a row cannot: parts go after the merged one is there.
    """
    names = sorted(os.listdir(folder))
    while names != (again := sorted(os.listdir(folder))):
        names = again
    return names


def damaged_in(folder: Path) -> list[Path]:
    """The files that were put aside because their bytes had changed."""
    return sorted(folder.glob(f"*{_DAMAGED}"))


def pieces_of(segments: Sequence[Segment], wanted: Span | None = None) -> list[Piece]:
    """What each of the segments (the last published first) is right about, in order of time."""
    pieces: list[Piece] = []
    taken: list[Span] = []
    for segment in segments:
        span = segment.span if wanted is None else overlap(segment.span, wanted)
        pieces += [Piece(part, segment) for part in minus(span, taken)]
        taken.append(segment.span)
    return sorted(pieces, key=lambda piece: piece.span)


def publish(folder: Path, span: Span, bars: pa.Table) -> None:
    """Make a segment visible: whole, flushed, after all others of its series.

    Args:
        folder: of the series.
        span: what the bars cover.
        bars: of schema `BARS`, sorted by `open_time`, all of which lie in the span.

    Raises:
        BarsError: where the folder cannot be written.
    """
    with written(folder, bars) as (unfinished, sha), locked(folder):
        newest = max((segment.published for segment in segments_in(folder)), default=0)
        published = max(time.time_ns() // 1000, newest + 1)
        _settle(unfinished, folder / _name(span, published, len(bars), sha))


def put_in_place_of(segments: Sequence[Segment], span: Span, bars: pa.Table) -> None:
    """One segment instead of several; the caller holds the lock of their folder.

    Killed in between, it leaves both, which say the same.
    """
    folder = segments[0].path.parent
    published = max(segment.published for segment in segments)
    with written(folder, bars) as (unfinished, sha):
        merged = folder / _name(span, published, len(bars), sha)
        _settle(unfinished, merged)
    for segment in segments:
        if segment.path != merged:
            segment.path.unlink(missing_ok=True)


def put_aside(segment: Segment) -> None:
    """Take a segment out of use and keep its bytes; others may do the same at once."""
    try:
        segment.path.rename(segment.path.with_suffix(_DAMAGED))
    except FileNotFoundError:
        return


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone among the writers of a series; readers go on."""
    with (folder / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def written(folder: Path, bars: pa.Table) -> Iterator[tuple[Path, str]]:
    """Bars as a flushed file that nobody sees yet, and its hash."""
    unfinished = folder / f"{_UNFINISHED}{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(bars, unfinished, compression="zstd", row_group_size=_ROW_GROUP)
        _flush(unfinished)
        yield unfinished, _sha(unfinished)
    except OSError as error:
        raise BarsError(
            f"cannot write bars to {folder}: {error.strerror or error}; make room, or set "
            "BACKTEST_CACHE_FOLDER to a folder that can be written"
        ) from error
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            unfinished.unlink()


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left more than an hour ago."""
    too_old = time.time() - _ABANDONED_AFTER_S
    for path in folder.glob(f"{_UNFINISHED}*"):
        with suppress(FileNotFoundError):  # finished, or swept by another process
            if path.stat().st_mtime < too_old:
                path.unlink()


def _name(span: Span, published: int, rows: int, sha: str) -> str:
    return f"{span.start}-{span.end}-{published}-{rows}-{sha}.parquet"


def _settle(unfinished: Path, target: Path) -> None:
    unfinished.rename(target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
