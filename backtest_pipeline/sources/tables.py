"""One Parquet or CSV file as raw columns, whatever its export calls them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.panel import OHLCV
from backtest_pipeline.sources.stamps import utc_stamps

PARQUET = (".parquet", ".pq")
CSV = (".csv", ".csv.gz", ".csv.zst")

# Spellings in letters and digits only, the better ones first. `open_time` beats a plain stamp,
# whose convention has to be guessed; a close time comes last, for exchanges cut it short at a halt.
STAMPS = ("open_time", "stamp", "close_time")
SPELLINGS = {
    "symbol": ("symbol", "ticker", "pair"),
    "name": ("name",),
    "open_time": ("opentime", "timeopen"),
    "stamp": ("ts", "timestamp", "unix", "datetime", "date", "time"),
    "close_time": ("closetime", "timeclose"),
    **{column: (column,) for column in OHLCV},
}
# What Binance's dumps, which have no header line, hold in their twelve columns.
KLINE = ("open_time", *OHLCV, "close_time", *(f"unused_{i}" for i in range(5)))
_MISSING = ["", "NaN", "nan", "null", "NULL", "None", "N/A", "#N/A"]


@dataclass(frozen=True)
class RawBars:
    """The rows of one file, as they stand there.

    Attributes:
        where: the file, for messages.
        symbols: the assets.
        names: what people call them.
        symbol_of_row: int64, position in `symbols`.
        stamps: int64, microseconds since 1970 UTC.
        stamp_field: `open_time` or `close_time` where the file says so, else `stamp`.
        columns: OHLCV, float64.
    """

    where: str
    symbols: tuple[str, ...]
    names: tuple[str, ...]
    symbol_of_row: np.ndarray
    stamps: np.ndarray
    stamp_field: str
    columns: dict[str, np.ndarray]


def read_bars(path: Path, default_symbol: str) -> RawBars:
    """All bars of one file.

    Args:
        path: a Parquet or CSV file.
        default_symbol: the asset, where no column names one.

    Raises:
        BarsError: for a file that cannot be read, is empty or lacks a column.
    """
    fields = _read(path, tuple(SPELLINGS))
    stamp_field = next((field for field in STAMPS if field in fields), "stamp")
    for field in (stamp_field, *OHLCV):
        if field not in fields:
            raise BarsError(_missing_column(path, field))
    owner, symbols = _encode(fields, default_symbol, str(path))
    return RawBars(
        where=str(path),
        symbols=symbols,
        names=_names(fields, owner, symbols),
        symbol_of_row=owner,
        stamps=utc_stamps(fields[stamp_field], str(path)),
        stamp_field=stamp_field,
        columns={column: _numbers(fields[column], f"{path}: {column}") for column in OHLCV},
    )


def _read(path: Path, fields: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    """Those of `fields` that the file has and that are not empty throughout."""
    with _readable(path):
        read = _read_parquet if path.name.endswith(PARQUET) else _read_csv
        header, load = read(path)
        wanted = _positions(header, fields)
        columns = load(sorted(i for positions in wanted.values() for i in positions))
    found: dict[str, pa.ChunkedArray] = {}
    for field, positions in wanted.items():
        filled = [columns[i] for i in positions if columns[i].null_count < len(columns[i])]
        if len(filled) > 1:
            raise BarsError(f"{path}: two columns are called {field!r}; remove one of them")
        if filled:
            found[field] = filled[0]
    if columns and all(len(column) == 0 for column in columns.values()):
        raise BarsError(f"{path}: a header and no rows; export the bars again")
    return found


Columns = dict[int, pa.ChunkedArray]
Loader = tuple[list[str], Callable[[list[int]], Columns]]


def _read_parquet(path: Path) -> Loader:
    header = parquet.read_schema(path).names

    def load(positions: list[int]) -> Columns:
        if not positions:
            return {}
        with parquet.ParquetFile(path) as file:
            table = file.read(columns=[header[i] for i in positions])
        return {i: table[header[i]] for i in positions}

    return header, load


def _read_csv(path: Path) -> Loader:
    with pa.input_stream(str(path), compression="detect") as stream:
        first_line = io.TextIOWrapper(stream, encoding="utf-8-sig").readline()
    if not first_line.strip():
        raise BarsError(f"{path}: the file is empty, or its first line is; begin with the header")
    delimiter = max(",;\t|", key=first_line.count)
    header = next(csv.reader([first_line], delimiter=delimiter))
    headerless = header[0].strip().isdigit() and len(header) == len(KLINE)
    if headerless:
        header = list(KLINE)

    def load(positions: list[int]) -> Columns:
        if not positions:
            return {}
        numeric = {i for field in OHLCV for i in _positions(header, [field]).get(field, [])}
        types = {str(i): pa.float64() if i in numeric else pa.string() for i in positions}
        with pa.input_stream(str(path), compression="detect") as stream:
            table = arrow_csv.read_csv(
                stream,
                # Positions as names: headers repeat themselves.
                arrow_csv.ReadOptions(
                    column_names=[str(i) for i in range(len(header))],
                    skip_rows=0 if headerless else 1,
                ),
                arrow_csv.ParseOptions(delimiter=delimiter),
                arrow_csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=_MISSING,
                    strings_can_be_null=True,
                ),
            )
        return {i: table[str(i)] for i in positions}

    return header, load


def _positions(header: Sequence[str], fields: Sequence[str]) -> dict[str, list[int]]:
    """Where in the header each field stands, under the best spelling that is there."""
    bare = [_bare(cell) for cell in header]
    positions = {}
    for field in fields:
        for spelling in SPELLINGS[field]:
            if spelling in bare:
                positions[field] = [i for i, cell in enumerate(bare) if cell == spelling]
                break
    return positions


def _bare(cell: str) -> str:
    return re.sub(r"[^a-z0-9]", "", cell.lower())


def _encode(
    fields: dict[str, pa.ChunkedArray], default_symbol: str, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """For each row the position of its asset in the tuple of assets."""
    column = fields.get("symbol", fields.get("name"))
    if column is None or ("symbol" not in fields and _is_numbers(column)):
        rows = max((len(column) for column in fields.values()), default=0)
        return np.zeros(rows, np.int64), (default_symbol,)
    if column.null_count:
        raise BarsError(f"{where}: {column.null_count} rows name no asset")
    encoded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), tuple(encoded.dictionary.to_pylist())


def _is_numbers(column: pa.ChunkedArray) -> bool:
    # CoinMarketCap's own downloads carry the id of the quote currency under `name`.
    text = column.cast(pa.string()).drop_null()
    digits = pc.call_function("utf8_is_digit", [text])
    return pc.call_function("all", [digits]).as_py() is True


def _names(
    fields: dict[str, pa.ChunkedArray], owner: np.ndarray, symbols: tuple[str, ...]
) -> tuple[str, ...]:
    column = fields.get("name")
    if column is None or _is_numbers(column):
        return symbols
    _, first_rows = np.unique(owner, return_index=True)
    names = column.take(pa.array(first_rows)).cast(pa.string()).to_pylist()
    return tuple(name or symbol for name, symbol in zip(names, symbols, strict=True))


def _numbers(column: pa.ChunkedArray, where: str) -> np.ndarray:
    try:
        # Not safely: an integer beyond 2^53 is rounded, as in any reader of floats.
        return column.cast(pa.float64(), safe=False).to_numpy()
    except pa.ArrowException as reason:
        raise BarsError(f"{where} holds something that is no number: {reason}") from reason


def _missing_column(path: Path, field: str) -> str:
    if path.name.endswith(PARQUET):
        header = parquet.read_schema(path).names
    else:
        header, _ = _read_csv(path)
    by_bare = {_bare(cell): cell.strip() for cell in header if cell.strip()}
    for spelling in SPELLINGS[field]:
        if spelling in by_bare:
            return (
                f"{path}: column {by_bare[spelling]!r} is empty in all rows; export the bars again"
            )
    taken = {spelling for spellings in SPELLINGS.values() for spelling in spellings}
    near = [
        by_bare[match]
        for spelling in SPELLINGS[field]
        for match in get_close_matches(spelling, set(by_bare) - taken, n=1, cutoff=0.5)
    ]
    wanted = "a stamp (ts, timestamp, date or open_time)" if field == "stamp" else repr(field)
    first_line = "" if path.name.endswith(PARQUET) else ", and begin the file with its header"
    hint = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"{path}: no column for {wanted}; {hint}its columns are "
        f"{', '.join(by_bare.values())}; rename the right one{first_line}"
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as reason:
        raise BarsError(
            f"{path}: cannot be read ({reason}); check that the file is whole, is what "
            "its ending says, and holds numbers where bars have numbers"
        ) from reason
