"""A file of any format as a grid."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.files.csv_grids import read_csv
from backtest_pipeline.sources.files.grids import Grid, Load
from backtest_pipeline.sources.files.json_grids import read_json
from backtest_pipeline.sources.files.layouts import price_words
from backtest_pipeline.sources.files.parts import Part


def read_grid(part: Part) -> Grid:
    """The rows and columns of a file."""
    if part.format == "csv":
        return read_csv(part)
    if part.format == "json":
        return read_json(part)
    header, load = (_parquet if part.format == "parquet" else _feather)(part)
    levels = [_levels_of(cell) for cell in header]
    deep = [level for level in levels if level is not None]
    if len(deep) < 4:
        return Grid(tuple(header), len(header), load)
    lines = [tuple("" if x is None else x[i] for x in levels) for i in (0, 1)]
    # The stamp's column has one name only.
    names = tuple(c if x is None else "" for c, x in zip(header, levels, strict=True))
    order = sorted(range(len(header)), key=lambda i: levels[i] is not None)
    lines = [tuple(line[i] for i in order) for line in lines]

    def sorted_load(positions: Sequence[int]) -> dict[int, pa.ChunkedArray]:
        found = load([order[i] for i in positions])
        return {i: found[order[i]] for i in positions}

    stamp = (names[order[0]], *[""] * (len(header) - 1))
    return Grid(lines[0], len(header), sorted_load, None, (lines[1], stamp))


def _levels_of(cell: str) -> tuple[str, str] | None:
    """`('Close', 'BTC-USD')`, as pandas writes names of two levels."""
    if not cell.startswith("("):
        return None
    try:
        levels = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return None
    is_pair = isinstance(levels, tuple) and len(levels) == 2 and all(map(str, levels))
    return (str(levels[0]), str(levels[1])) if is_pair else None


def _parquet(part: Part) -> tuple[list[str], Load]:
    header = parquet.read_schema(part.open()).names

    def load(positions: Sequence[int]) -> dict[int, pa.ChunkedArray]:
        if not positions:
            return {}
        unique = len(set(header)) == len(header)
        with parquet.ParquetFile(part.open()) as file:
            if unique:
                table = file.read(columns=[header[i] for i in positions])
                return {i: table[header[i]] for i in positions}
            # By name a column that is there twice cannot be had.
            table = file.read()
        return {i: table.column(i) for i in positions}

    return header, load


def _feather(part: Part) -> tuple[list[str], Load]:
    table = feather.read_table(part.open(), memory_map=False)
    return table.schema.names, lambda positions: {i: table.column(i) for i in positions}


def columns_of_tickers(grid: Grid) -> dict[str, dict[int, str]]:
    """For each ticker of a header of two levels: our columns by position."""
    lines = (grid.header, grid.levels[0])
    words = price_words(lines)
    if words is None:
        raise BarsError("a header of two lines that name neither prices nor tickers")
    prices, tickers = lines[words], lines[1 - words]
    stamp = grid.levels[1][0] if len(grid.levels) > 1 else "date"
    found: dict[str, dict[int, str]] = {}
    for i in range(1, grid.n_columns):
        found.setdefault(tickers[i].strip(), {0: stamp or "date"})[i] = prices[i]
    return found
