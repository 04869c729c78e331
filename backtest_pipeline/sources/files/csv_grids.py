"""CSV as a grid: where the table begins, what separates its cells, whether it has a header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as arrow_csv

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.files.grids import Grid
from backtest_pipeline.sources.files.layouts import LEVEL_NAMES, bare, is_header, price_words
from backtest_pipeline.sources.files.parts import Part

_HEAD_BYTES = 1 << 18
_MOST_LINES_ABOVE = 30
_NUMBER = re.compile(r"[-+]?\d[\d.,]*([eE][-+]?\d+)?")


def read_csv(part: Part) -> Grid:
    """The table in a CSV file, below whatever stands above it.

    Raises:
        BarsError: for an empty file.
    """
    encoding, lines = _head(part)
    filled = [i for i, line in enumerate(lines) if line.strip()]
    if not filled:
        raise BarsError(f"{part.where}: the file is empty; export the bars again")
    at, delimiter = _header_line(lines, filled)
    header = _cells(lines[at], delimiter)
    below = [_cells(lines[i], delimiter) for i in filled if i > at][:2]
    skipped, levels = at + 1, ()
    if _is_data(header):
        skipped, header = at, []
    elif below and price_words([header, below[0]]) is not None:
        levels = (tuple(below[0]),)
        if len(below) > 1 and below[1][0] and not any(below[1][1:]):
            levels = (*levels, tuple(below[1]))
        skipped += len(levels)
    n_columns = len(_cells(lines[at], delimiter))
    first = _cells(lines[filled[-1]], delimiter) if filled[-1] > at else []
    if len(first) > n_columns and not any(first[n_columns:]):
        n_columns = len(first)  # rows end on a delimiter that the header does without

    def load(positions: Sequence[int]) -> dict[int, pa.ChunkedArray]:
        names = [str(i) for i in range(n_columns)]
        wanted = [str(i) for i in positions]
        if not wanted:
            return {}
        try:
            table = arrow_csv.read_csv(
                part.open(),
                arrow_csv.ReadOptions(
                    # Positions as names: headers repeat themselves.
                    column_names=names,
                    skip_rows=skipped,
                    encoding=encoding,
                ),
                arrow_csv.ParseOptions(delimiter=delimiter),
                arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(wanted, pa.string()),
                    include_columns=wanted,
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as reason:
            raise _odd_line(part, encoding, delimiter, skipped, n_columns) or reason from reason
        return {i: table[str(i)] for i in positions}

    return Grid(tuple(header), n_columns, load, skipped + 1, levels)


def _odd_line(
    part: Part, encoding: str, delimiter: str, skipped: int, n_columns: int
) -> BarsError | None:
    """The first line with more or fewer cells than the table has columns."""
    with part.open() as stream, io.TextIOWrapper(stream, encoding, errors="replace") as text:
        rows = csv.reader(text, delimiter=delimiter)
        for row in rows:
            if rows.line_num > skipped and row and len(row) != n_columns:
                return BarsError(
                    f"{part.where}, line {rows.line_num}: {len(row)} cells in a table of "
                    f"{n_columns} columns; fix or remove the line"
                )
    return None


def _head(part: Part) -> tuple[str, list[str]]:
    """The encoding, and the first lines."""
    with part.open() as stream:
        start = stream.read(_HEAD_BYTES)
    whole = len(start) < _HEAD_BYTES
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
        text = start[: len(start) // 2 * 2].decode(encoding, "ignore")
    else:
        encoding = "utf-8"
        try:
            text = start.decode("utf-8-sig") if whole else _decoded(start)
        except UnicodeDecodeError:
            encoding, text = "cp1252", start.decode("cp1252", "replace")
    lines = io.StringIO(text, newline=None).read().split("\n")
    return encoding, lines if whole else lines[:-1]


def _decoded(start: bytes) -> str:
    # A letter may be cut in two at the end.
    return start[: start.rfind(b"\n") + 1].decode("utf-8-sig")


def _header_line(lines: Sequence[str], filled: Sequence[int]) -> tuple[int, str]:
    """The line of the header, or the first of the table, and the delimiter."""
    for at in filled[:_MOST_LINES_ABOVE]:
        delimiter = _delimiter(lines[at])
        if is_header(_cells(lines[at], delimiter)):
            return at, delimiter
    # Lines above a table have fewer cells than it.
    counts = [len(_cells(lines[i], _delimiter(lines[i]))) for i in filled[:_MOST_LINES_ABOVE]]
    at = filled[counts.index(max(counts))]
    return at, _delimiter(lines[at])


def _delimiter(line: str) -> str:
    return max(";\t|,", key=lambda sign: (line.count(sign), sign in ";\t|"))


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _is_data(cells: Sequence[str]) -> bool:
    """Whether a first line is a row already: four of its cells or more are numbers."""
    is_level = bare(cells[0]) in LEVEL_NAMES  # of tickers that are numbers
    return not is_level and sum(bool(_NUMBER.fullmatch(cell)) for cell in cells) >= 4
