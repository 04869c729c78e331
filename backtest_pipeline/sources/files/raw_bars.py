"""The rows of a file as symbols, stamps and numbers, whatever its layout."""

from __future__ import annotations

import json
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.panel import OHLCV
from backtest_pipeline.market.timeframes import Timeframe
from backtest_pipeline.sources.files.file_columns import FileColumns
from backtest_pipeline.sources.files.file_grids import columns_of_tickers, read_grid
from backtest_pipeline.sources.files.grids import Grid
from backtest_pipeline.sources.files.layouts import (
    GENERIC,
    NO_BARS_OF_TRADES,
    STAMPS,
    FileLayout,
    layout_of,
)
from backtest_pipeline.sources.files.numbers import numbers
from backtest_pipeline.sources.files.owners import Owners, is_numbers, owners_of, venue_of
from backtest_pipeline.sources.files.parts import Part
from backtest_pipeline.sources.files.settings_file import SETTINGS_NAME, FileSettings
from backtest_pipeline.sources.stamps import StampReading, utc_stamps

_PRICES = ("open", "high", "low", "close")
_MOST_ODD_ROWS = 0.01  # in a file without a header, of rows whose high and low are none


@dataclass(frozen=True)
class RawBars:
    """The rows of one file, as they stand there.

    Attributes:
        where: the file, for messages.
        layout: what it was read as.
        columns_read: our names to the file's.
        symbols: the assets, as written and trimmed.
        names: what people call them.
        symbol_of_row: int64, position in `symbols`.
        declared: the timeframe of each symbol where the file or the settings say it.
        stamps: int64, microseconds since 1970 UTC.
        stamp_field: `open_time` or `close_time` where that is said, else `stamp`.
        columns: OHLCV, float64.
        left_out: a sentence on the rows that belong to no asset or to no base timeframe.
        venue: other keys of hive folders, such as `exchange=binance`.
    """

    where: str
    layout: FileLayout
    columns_read: Mapping[str, str]
    symbols: tuple[str, ...]
    names: tuple[str, ...]
    symbol_of_row: np.ndarray
    declared: tuple[Timeframe | None, ...]
    stamps: np.ndarray
    stamp_field: str
    columns: dict[str, np.ndarray]
    venue: str = ""
    left_out: tuple[str, ...] = ()


def read_part(part: Part, settings: FileSettings) -> list[RawBars]:
    """All bars of one file; several where a header names several tickers above its columns.

    Raises:
        BarsError: for a file that cannot be read, is empty, lacks a column or is ambiguous,
            with its name, the line where there is one, and what to do.
    """
    if NO_BARS_OF_TRADES.fullmatch(part.stem):
        raise BarsError(f"{part.where}: by its name no bars of traded prices; take the klines")
    with readable(part):
        grid = read_grid(part)
        if grid.levels:
            return [
                _FileRows(part, grid, settings, ticker, columns).bars()
                for ticker, columns in columns_of_tickers(grid).items()
            ]
        return [_FileRows(part, grid, settings).bars()]


class _FileRows:
    """One file on its way to bars."""

    def __init__(
        self,
        part: Part,
        grid: Grid,
        settings: FileSettings,
        ticker: str | None = None,
        columns: Mapping[int, str] | None = None,
    ) -> None:
        self._part, self._grid, self._settings = part, grid, settings
        self._where = part.where
        self._ticker = ticker
        layout = layout_of(part.stem, grid.header, grid.n_columns, len(grid.levels))
        if layout is None and not isinstance(settings.columns, tuple):
            raise BarsError(_no_header(part, grid))
        self._layout = layout or GENERIC
        match = self._layout.file.fullmatch(part.stem) if self._layout.file else None
        self._of_name = match.groupdict() if match else {}
        self._columns = FileColumns(part, grid, self._layout, settings, columns)

    def bars(self) -> RawBars:
        where = self._where
        fields = self._columns.load()
        stamp_field = next((name for name in STAMPS if name in fields), None)
        for name in ("stamp" if stamp_field is None else stamp_field, *_PRICES):
            if name not in fields:
                raise BarsError(self._columns.missing(name))
        assert stamp_field is not None  # noqa: S101  (or it has been missed)
        if len(fields[stamp_field]) == 0:
            raise BarsError(f"{where}: a header and no rows; export the bars again")
        owners = owners_of(self._part, self._settings, self._of_name, fields, self._ticker)
        if "volume" not in fields:
            fields |= self._columns.volume(owners.symbols)
        reading = StampReading(
            where,
            self._grid.first_line,
            self._settings.tz or self._layout.tz,
            self._settings.stamp_format,
            days=self._settings.tz is not None
            and all(tf is not None and tf.days >= 1 for tf in owners.declared),
        )
        stamps = utc_stamps(fields[stamp_field], reading, fields.get("time_of_day"))
        columns = {
            name: numbers(
                fields[name],
                self._settings.decimal,
                self._columns.name(name),
                self._line,
            )
            if name in fields
            else np.full(len(stamps), np.nan)
            for name in OHLCV
        }
        if not self._grid.header and not isinstance(self._settings.columns, tuple):
            self._require_prices(columns)
        stated = self._settings.stamp or (self._layout.stamp if stamp_field == "stamp" else None)
        kept = owners.of_row >= 0
        whole = bool(kept.all())
        return RawBars(
            where=where,
            layout=self._layout,
            columns_read={n: self._columns.name(n) for n in fields},
            symbols=owners.symbols,
            names=_names(fields, owners),
            symbol_of_row=owners.of_row if whole else owners.of_row[kept],
            declared=owners.declared,
            stamps=stamps if whole else stamps[kept],
            stamp_field=_convention(stamp_field, stated),
            columns=columns if whole else {n: column[kept] for n, column in columns.items()},
            venue=venue_of(self._part),
            left_out=owners.left_out,
        )

    def _line(self, row: int) -> str:
        first = self._grid.first_line
        return f"{self._where}, " + (f"row {row + 1}" if first is None else f"line {first + row}")

    def _require_prices(self, columns: Mapping[str, np.ndarray]) -> None:
        """Columns that nobody named are believed where their high and low are those."""
        body = [columns["open"], columns["close"]]
        odd = (columns["high"] < np.fmax(*body)) | (columns["low"] > np.fmin(*body))
        if odd.mean() > _MOST_ODD_ROWS:
            n = self._grid.n_columns
            raise BarsError(
                f"{self._line(int(odd.argmax()))}: no header, and the {n} columns are not stamp, "
                "open, high, low, close, volume in this order (low, high, open, close, or open, "
                f"close, high, low?); say so in {SETTINGS_NAME}: "
                'columns = ["ts", "low", "high", "open", "close", "volume"]'
            )


def _convention(field: str, stated: str | None) -> str:
    """`open_time` or `close_time` where that is stated or the column says it, else `stamp`."""
    if stated is not None:
        return f"{stated}_time"
    return field if field in ("open_time", "close_time") else "stamp"


def _names(fields: Mapping[str, pa.ChunkedArray], owners: Owners) -> tuple[str, ...]:
    column = fields.get("name")
    if column is None or is_numbers(column):
        return owners.symbols
    of_row, first_rows = np.unique(owners.of_row, return_index=True)
    names = column.take(pa.array(first_rows[of_row >= 0])).cast(pa.string()).to_pylist()
    return tuple(name or symbol for name, symbol in zip(names, owners.symbols, strict=True))


@contextmanager
def readable(part: Part) -> Iterator[None]:
    """Whatever a file of another kind, or a damaged one, makes the readers raise, as BarsError."""
    try:
        yield
    except (
        *(pa.ArrowException, OSError, EOFError, UnicodeError, json.JSONDecodeError),
        *(zipfile.BadZipFile, lzma.LZMAError, zlib.error, NotImplementedError),
    ) as reason:
        raise BarsError(
            f"{part.where}: cannot be read ({reason}); check that the file is whole and is what "
            "its ending says"
        ) from reason


def _no_header(part: Part, grid: Grid) -> str:
    return (
        f"{part.where}: {grid.n_columns} columns without a header, which is no layout that is "
        f'known; name them in {SETTINGS_NAME} beside the file: columns = ["ts", "open", "high", '
        '"low", "close", "volume"], with "-" for those that are not read'
    )
