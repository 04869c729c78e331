"""JSON as a grid: arrays of arrays, records, columns, pandas' shapes, and lines of these."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.files.grids import Grid
from backtest_pipeline.sources.files.parts import Part

_WRAPPERS = ("data", "result", "candles", "klines", "prices", "bars", "values", "list")


def read_json(part: Part) -> Grid:
    """The rows of a JSON file.

    Raises:
        BarsError: where it holds no rows.
    """
    with part.open() as stream:
        text = stream.read().decode("utf-8-sig")
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    names, columns = _table(content, part)
    if not columns or not columns[0]:
        raise BarsError(f"{part.where}: holds no rows; export the bars again")

    def load(positions: Sequence[int]) -> dict[int, pa.ChunkedArray]:
        return {i: pa.chunked_array([_array(columns[i])]) for i in positions}

    return Grid(tuple(names), len(columns), load)


def _table(content: Any, part: Part) -> tuple[list[str], list[list[Any]]]:
    """Names (none of an array of arrays) and columns."""
    found = None
    if isinstance(content, Mapping):
        found = _of_columns(content, part)
    elif isinstance(content, list):
        found = _of_rows(content, part)
    if found is None:
        raise BarsError(
            f"{part.where}: holds neither rows nor columns; write records, such as "
            '[{"ts": 1704067200000, "open": 1.0, ...}], or arrays, such as [[1704067200000, 1.0]]'
        )
    return found


def _of_columns(content: Mapping[str, Any], part: Part) -> Any:
    if {"columns", "data"} <= set(content):
        index = content.get("index")
        names = [str(name) for name in content["columns"]]
        _, columns = _table(content["data"], part)
        return (["", *names], [index, *columns]) if index else (names, columns)
    for name in _WRAPPERS:
        if isinstance(content.get(name), list | Mapping):
            return _table(content[name], part)
    if content and all(isinstance(column, list) for column in content.values()):
        return [str(name) for name in content], [list(c) for c in content.values()]
    if content and all(isinstance(column, Mapping) for column in content.values()):
        index = list(next(iter(content.values())))
        columns = [[column.get(key) for key in index] for column in content.values()]
        return ["", *map(str, content)], [index, *columns]
    return None


def _of_rows(content: list[Any], part: Part) -> Any:
    if not content:
        return [], []
    if all(isinstance(row, Mapping) for row in content):
        names = list(dict.fromkeys(name for row in content for name in row))
        return [str(n) for n in names], [[row.get(name) for row in content] for name in names]
    if not all(isinstance(row, list) for row in content):
        return None
    lengths = {len(row) for row in content}
    if len(lengths) > 1:
        raise BarsError(
            f"{part.where}: rows of {min(lengths)} to {max(lengths)} values; export the bars again"
        )
    return [], [list(column) for column in zip(*content, strict=True)]


def _array(values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and kinds:
        return pa.array([None if v is None else v for v in values], _number(kinds))
    return pa.array([None if v is None else str(v) for v in values], pa.string())


def _number(kinds: set[type]) -> pa.DataType:
    return pa.int64() if kinds == {int} else pa.float64()
