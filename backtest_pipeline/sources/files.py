"""Bars from Parquet and CSV files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from backtest_pipeline.market.errors import BarsError, InvalidInput
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.timeframes import TIMEFRAMES, Timeframe
from backtest_pipeline.market.validation import RowIssue, validate_bars
from backtest_pipeline.sources.base import AssetInfo, SourceBars, require_known
from backtest_pipeline.sources.stamps import (
    from_close,
    from_open,
    stamped_at_close,
    timeframes_of,
)
from backtest_pipeline.sources.tables import CSV, PARQUET, RawBars, read_bars
from backtest_pipeline.sources.tickers import ticker_of, told_apart

# The names of Binance's dumps: BTCUSDT-1h-2024-01.csv, BTCUSDT-1d-2024-01-31.csv
_DUMP = re.compile(r"(?P<symbol>\w+)-(?P<interval>\d+(?:s|m|h|d|w|mo))-\d{4}(?:-\d{2}){1,2}")


@dataclass(frozen=True)
class _Rows:
    """Rows of one timeframe from one file, with close stamps."""

    symbols: tuple[str, ...]
    symbol_of_row: np.ndarray
    ts: np.ndarray
    columns: dict[str, np.ndarray]


class FileBars:
    """Bars in one Parquet or CSV file (`.csv`, `.csv.gz`, `.csv.zst`), or in a folder of them.

    Reads what CoinMarketCap, Kaggle and Binance export, and anything with a stamp and OHLCV
    columns. The asset is named by a `symbol` column, else by a `name` column, else by the file:
    Binance's dumps up to the first dash, others by their whole name. Rows of an asset in several
    files are joined. The distance of the stamps tells the timeframe; a stamp on the grid is the
    bar's open, one up to a second before it the close, unless the column says which it is.

    A file does not say when it was written: a last bar that was unfinished then looks like any
    other. Give `as_of`, where it is known, and such bars are skipped.
    """

    synthetic = False

    def __init__(
        self, path: Path | str, as_of: datetime | None = None, asset_class: str = "crypto"
    ) -> None:
        """Nothing is read yet.

        Args:
            path: a file, or a folder whose files are read (its sub-folders are not).
            as_of: when the files were written, with a zone; now, if not given.
            asset_class: what the assets are.

        Raises:
            InvalidInput: for an `as_of` without a time zone.
        """
        if as_of is not None and as_of.tzinfo is None:
            raise InvalidInput(f"as_of={as_of} has no time zone; use tzinfo=UTC")
        self.path = Path(path)
        self.as_of = as_of
        self.asset_class = asset_class
        self._decoded: dict[Path, tuple[tuple[int, int], RawBars]] = {}

    @property
    def name(self) -> str:
        return f"files:{self.path.name}"

    def symbols(self) -> tuple[str, ...]:
        """The assets, sorted; the later coins of a ticker are found by reading its bars."""
        return tuple(asset.symbol for asset in self.read().assets)

    def _raw(self, file: Path) -> RawBars:
        """The rows of a file, decoded once for as long as it stays as it is."""
        status = file.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        known = self._decoded.get(file)
        if known is None or known[0] != stamp:
            known = self._decoded[file] = (stamp, read_bars(*_named(file)))
        return known[1]

    def read(self, assets: Sequence[str] | None = None) -> SourceBars:
        """The bars of the named assets, or of all.

        A later coin of a ticker is an asset of its own, `LUNA.2`; see `market.asset_identity`.

        Raises:
            UnknownName: for an asset that no file has.
            BarsError: naming the file, where one cannot be read or understood.
        """
        names: dict[str, str] = {}
        rows: defaultdict[Timeframe, list[_Rows]] = defaultdict(list)
        for file in self._files():
            raw = self._raw(file)
            for symbol, name in zip(raw.symbols, raw.names, strict=True):
                names.setdefault(symbol, name)
            for tf, part in _by_timeframe(raw, _declared_timeframe(file)):
                rows[tf].append(part)
        tickers = {ticker_of(asset, names) for asset in (names if assets is None else assets)}
        require_known(sorted(tickers), list(names))

        now = int((self.as_of or datetime.now(UTC)).timestamp() * 1_000_000)
        panels: dict[str, Panel] = {}
        issues: list[RowIssue] = []
        for tf in sorted(rows, key=lambda tf: tf.sort_order):
            raw_panel = _stack(tf, rows[tf], tickers)
            if len(raw_panel):
                panels[tf.name], found = validate_bars(raw_panel, now)
                issues += found
        infos = {
            symbol: AssetInfo(symbol, name, self.asset_class, None, synthetic=False)
            for symbol, name in names.items()
        }
        newest = {
            tf.name: max(int(part.ts[part.ts <= now].max(initial=0)) for part in rows[tf])
            for tf in rows
        }
        return told_apart(panels, issues, infos, assets, newest, str(self.path))

    def _files(self) -> list[Path]:
        if self.path.is_dir():
            files = sorted(p for p in self.path.iterdir() if p.name.endswith((*PARQUET, *CSV)))
            if not files:
                raise BarsError(f"{self.path}: no {', '.join((*PARQUET, *CSV))} file in it")
            return files
        if not self.path.is_file():
            raise BarsError(f"{self.path}: no such file or folder; check the path")
        if not self.path.name.endswith((*PARQUET, *CSV)):
            raise BarsError(f"{self.path}: not one of {', '.join((*PARQUET, *CSV))}")
        return [self.path]


def _stem(file: Path) -> str:
    ending = max((e for e in (*PARQUET, *CSV) if file.name.endswith(e)), key=len)
    return file.name.removesuffix(ending)


def _named(file: Path) -> tuple[Path, str]:
    """A file, and the asset it holds where none of its columns names one."""
    dump = _DUMP.fullmatch(_stem(file))
    return file, dump["symbol"] if dump else _stem(file)


def _declared_timeframe(file: Path) -> Timeframe | None:
    """The timeframe in a dump's name: a dump of one day of daily bars holds a single stamp."""
    dump = _DUMP.fullmatch(_stem(file))
    if dump is None:
        return None
    interval = dump["interval"]
    name = interval if interval.endswith("m") else interval.upper()
    if name not in TIMEFRAMES:
        raise BarsError(f"{file}: bars of {interval} are no base timeframe; take 1m, 1h or 1d")
    return TIMEFRAMES[name]


def _by_timeframe(raw: RawBars, declared: Timeframe | None) -> Iterator[tuple[Timeframe, _Rows]]:
    """The rows of a file for each timeframe in it, with close stamps."""
    owner, symbols = raw.symbol_of_row, raw.symbols
    timeframes = (
        [declared] * len(symbols)
        if declared
        else timeframes_of(owner, raw.stamps, symbols, raw.where)
    )
    for tf in dict.fromkeys(timeframes):
        here = np.array([t == tf for t in timeframes])[owner]
        stamps, part = raw.stamps[here], owner[here]
        if raw.stamp_field == "stamp":
            at_close = stamped_at_close(stamps, part, tf, len(symbols))[part]
        else:
            at_close = np.full(len(part), raw.stamp_field == "close_time")
        ts = np.where(at_close, from_close(stamps, tf), from_open(stamps, tf))
        columns = {name: column[here] for name, column in raw.columns.items()}
        yield tf, _Rows(symbols, part, ts, columns)


def _stack(tf: Timeframe, parts: Sequence[_Rows], wanted: set[str]) -> Panel:
    """One raw panel of the wanted assets, whose rows keep the order of the files."""
    present = {part.symbols[i] for part in parts for i in np.unique(part.symbol_of_row)}
    assets = tuple(sorted(present & wanted))
    position = {asset: i for i, asset in enumerate(assets)}
    segment = np.concatenate(
        [
            np.array([position.get(s, -1) for s in part.symbols])[part.symbol_of_row]
            for part in parts
        ]
    )
    order = np.argsort(segment, kind="stable")
    order = order[np.searchsorted(segment[order], 0) :]
    offsets = np.searchsorted(segment[order], np.arange(len(assets) + 1)).astype(np.int64)
    return Panel(
        timeframe=tf,
        assets=assets,
        offsets=offsets,
        ts=np.concatenate([part.ts for part in parts])[order],
        columns={
            name: np.concatenate([part.columns[name] for part in parts])[order] for name in OHLCV
        },
    )
