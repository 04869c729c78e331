"""Funding rates from a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.files.file_columns import trimmed
from backtest_pipeline.sources.files.file_grids import read_grid
from backtest_pipeline.sources.files.grids import plain
from backtest_pipeline.sources.files.layouts import bare
from backtest_pipeline.sources.files.numbers import numbers
from backtest_pipeline.sources.files.owners import as_written
from backtest_pipeline.sources.files.parts import Part, parts_of
from backtest_pipeline.sources.files.raw_bars import readable
from backtest_pipeline.sources.stamps import StampReading, utc_stamps

_SPELLINGS = {
    "symbol": ("symbol", "ticker", "pair", "instid"),
    "ts": ("ts", "timestamp", "fundingtime", "calctime", "time", "date", "datetime"),
    "rate": ("rate", "fundingrate", "lastfundingrate"),
}
_NAMED = re.compile(r"(?P<symbol>\w+)-fundingRate-\d{4}(?:-\d{2}){1,2}")


def read_funding(path: Path) -> dict[str, pd.Series]:
    """Rates by symbol from a file of symbol, ts and rate, in any format that bars come in.

    Stamps are text or timestamps in UTC, or numbers since 1970, as exchanges export them. Binance's
    dumps, which have no symbol, name it in the file's name.

    Raises:
        BarsError: for a file that cannot be read or lacks a column.
    """
    rates: dict[str, list[pd.Series]] = {}
    parts, _ = parts_of(path)
    for part in parts:
        with readable(part):
            for symbol, series in _rates(part).items():
                rates.setdefault(symbol, []).append(series)
    return {symbol: pd.concat(found).sort_index() for symbol, found in rates.items()}


def _rates(part: Part) -> dict[str, pd.Series]:
    grid = read_grid(part)
    spelled = {bare(cell): i for i, cell in enumerate(grid.header)}
    at = {
        field: next((spelled[s] for s in spellings if s in spelled), None)
        for field, spellings in _SPELLINGS.items()
    }
    named = _NAMED.fullmatch(part.stem)
    for field, found in at.items():
        if found is None and not (field == "symbol" and named):
            raise BarsError(
                f"{part.where}: no column {field!r}; there are {', '.join(grid.header)}"
            )
    columns = grid.load(sorted(i for i in at.values() if i is not None))
    ts, rate = (trimmed(plain(columns[i])) for i in (at["ts"], at["rate"]) if i is not None)

    def line(row: int) -> str:
        first = grid.first_line
        return f"{part.where}, " + (f"row {row + 1}" if first is None else f"line {first + row}")

    stamps = utc_stamps(ts, StampReading(part.where, grid.first_line, "UTC"))
    values = numbers(rate, None, "rate", line)
    series = pd.Series(values, pd.DatetimeIndex(stamps.astype("M8[us]"), tz="UTC"))
    if at["symbol"] is None:
        assert named is not None  # noqa: S101  (or the column has been missed)
        return {named["symbol"]: series}
    text = trimmed(plain(columns[at["symbol"]])).cast(pa.string())
    if text.null_count:
        raise BarsError(f"{part.where}: {text.null_count} rows have no symbol")
    owner = np.array([as_written(symbol) for symbol in text.to_pylist()], dtype=object)
    return {str(symbol): pd.Series(own) for symbol, own in series.groupby(owner)}
