"""Bars from files, whatever their layout."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np

from backtest_pipeline.market.errors import BarsError, InvalidInput
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.price_levels import StepRule
from backtest_pipeline.market.symbols import KEYS_VARIABLE, key_of, symbol_keys
from backtest_pipeline.market.timeframes import Timeframe
from backtest_pipeline.market.validation import RowIssue, validate_bars
from backtest_pipeline.sources.base import AssetInfo, SourceBars, require_known
from backtest_pipeline.sources.files.parts import Part, parts_of
from backtest_pipeline.sources.files.raw_bars import RawBars, read_part
from backtest_pipeline.sources.files.settings_file import (
    FileSettings,
    read_settings,
    settings_path,
    split_query,
)
from backtest_pipeline.sources.files.spacing import Judged, Spacing, judge, spacing_of
from backtest_pipeline.sources.files.states import state_of
from backtest_pipeline.sources.stamps import from_close, from_open, stamped_at_close
from backtest_pipeline.sources.tickers import ticker_of, told_apart

_log = logging.getLogger(__name__)
_MOST_TOLD = 20


@dataclass(frozen=True)
class _Rows:
    """Rows of one timeframe from one file, with close stamps."""

    symbols: tuple[str, ...]
    symbol_of_row: np.ndarray
    ts: np.ndarray
    columns: dict[str, np.ndarray]


@dataclass(frozen=True)
class FileReading:
    """One file as it was understood.

    Attributes:
        part: the file.
        raw: its rows.
        judged: the timeframe of each of its symbols, and how it was told.
        steps: what the settings say of lasting steps of each of its symbols, where they do.
    """

    part: Part
    raw: RawBars
    judged: tuple[Judged, ...]
    steps: tuple[StepRule | None, ...]


@dataclass(frozen=True)
class PathReading:
    """What stands below a path.

    Attributes:
        files: those that hold bars.
        unread: a sentence on each file, and each asset of one, that is left out.
    """

    files: tuple[FileReading, ...]
    unread: tuple[str, ...]


class FileBars:
    """Bars in a file, an archive, or a folder of them; docs/bars.md has the layouts.

    The asset is named by a column, else by the file's name. Rows of an asset in several files are
    joined. The timeframe is what `bars.toml`, a column, the file's name or its folders say, else
    the greatest common distance of the stamps. A stamp on the grid is the bar's open, one up to a
    second before it the close, unless it is said which it is. What cannot be read is left out and
    named; where nothing can be read, that is an error.

    A file does not say when it was written: a last bar that was unfinished then looks like any
    other. Give `as_of`, where it is known, and such bars are skipped.
    """

    synthetic = False

    def __init__(
        self, path: Path | str, as_of: datetime | None = None, asset_class: str = "crypto"
    ) -> None:
        """Nothing is read yet.

        Args:
            path: a file, or a folder whose files are read (of its sub-folders those that are
                called `key=value`); settings may follow, as in `bars.csv?timeframe=1m`.
            as_of: when the files were written, with a zone; now, if not given.
            asset_class: what the assets are.

        Raises:
            InvalidInput: for an `as_of` without a time zone.
        """
        if as_of is not None and as_of.tzinfo is None:
            raise InvalidInput(f"as_of={as_of} has no time zone; use tzinfo=UTC")
        bare, self._asked = split_query(str(path))
        self.path = Path(bare).expanduser()
        self.as_of = as_of
        self.asset_class = asset_class
        self._decoded: dict[Part, tuple[tuple[object, ...], list[RawBars] | BarsError]] = {}

    @property
    def name(self) -> str:
        return f"files:{self.path.name}"

    def symbols(self) -> tuple[str, ...]:
        """The assets, sorted; the later coins of a ticker are found by reading its bars."""
        return tuple(asset.symbol for asset in self.read().assets)

    def states(self, assets: Sequence[str]) -> dict[str, str]:
        """One for all: every file of the path may hold any asset."""
        asked = (repr(self._asked), repr(self.as_of), self.asset_class, repr(symbol_keys()))
        state = state_of(self.path, *asked)
        return {} if state is None else dict.fromkeys(assets, state)

    def _raw(self, part: Part, settings: FileSettings) -> list[RawBars]:
        """The rows of a part, decoded once for as long as it and its settings stay as they are."""
        status = part.path.stat()
        state = (status.st_mtime_ns, status.st_size, settings)
        known = self._decoded.get(part)
        if known is None or known[0] != state:
            try:
                found: list[RawBars] | BarsError = read_part(part, settings)
            except BarsError as error:
                found = error
            known = self._decoded[part] = (state, found)
        if isinstance(known[1], BarsError):
            raise known[1]
        return known[1]

    def understood(self) -> PathReading:
        """What stands below the path, and what of it cannot be read and why.

        Raises:
            BarsError: where there is no such path, or nothing of it can be read.
        """
        reading = self.looked_at()
        if not any(told.timeframe for file in reading.files for told in file.judged):
            first, *others = reading.unread
            more = f" (and {len(others)} more)" if others else ""
            raise BarsError(f"{first}{more}")
        return reading

    def looked_at(self) -> PathReading:
        """As `understood`, also where nothing can be read.

        Raises:
            BarsError: where there is no such path, or no file in it.
        """
        parts, unread = parts_of(self.path)
        settings = read_settings(self.path, self._asked)
        raws: list[tuple[Part, RawBars]] = []
        for part in parts:
            try:
                raws += [(part, raw) for raw in self._raw(part, settings.of(part.name))]
            except BarsError as error:
                unread.append(str(error))
            except OSError as reason:
                unread.append(f"{part.where}: cannot be read ({reason})")
        _require_one_venue([raw for _, raw in raws], self.path)
        files = []
        for (part, raw), judged in zip(raws, _judged([raw for _, raw in raws]), strict=True):
            stated = [settings.of(part.name).of_symbol(symbol).steps for symbol in raw.symbols]
            steps = tuple(None if said is None else StepRule(said) for said in stated)
            files.append(FileReading(part, raw, tuple(judged), steps))
            unread += raw.left_out
            unread += [
                f"{raw.where}: {symbol}: {told.why}{self._way_out(told)}"
                for symbol, told in zip(raw.symbols, judged, strict=True)
                if told.timeframe is None
            ]
        if self.path.is_dir():  # beside a single file they may be those of its neighbours
            symbols = [symbol for _, raw in raws for symbol in raw.symbols]
            where, names = str(settings_path(self.path)), [part.name for part in parts]
            unread += settings.without_effect(where, names, symbols)
        return PathReading(tuple(files), tuple(unread))

    def _way_out(self, told: Judged) -> str:
        if not told.may_be:
            return ""
        tf = told.may_be[0].name
        return (
            f'; say which: timeframe = "{tf}" in {settings_path(self.path)}, or '
            f"--bars '{self.path}?timeframe={tf}'"
        )

    def read(self, assets: Sequence[str] | None = None) -> SourceBars:
        """The bars of the named assets, or of all.

        A later coin of a ticker is an asset of its own, `LUNA.2`; see `market.asset_identity`.

        Raises:
            UnknownName: for an asset that no file has.
            BarsError: naming the file, where none can be read or understood; naming the asset,
                where the settings of two files say different things of its steps.
        """
        names: dict[str, str] = {}
        wanted = None if assets is None else [key_of(asset) for asset in assets]
        rows: defaultdict[Timeframe, list[_Rows]] = defaultdict(list)
        reading = self.understood()
        keys, collided = _keys(reading)
        unread = (*reading.unread, *collided)
        _tell(unread)
        for file in reading.files:
            for symbol, name, told in zip(
                file.raw.symbols, file.raw.names, file.judged, strict=True
            ):
                if told.timeframe is not None and symbol in keys:
                    names.setdefault(keys[symbol], name.replace("\0", ""))
            for tf, part in _by_timeframe(file, keys):
                rows[tf].append(part)
        tickers = {ticker_of(asset, names) for asset in (names if wanted is None else wanted)}
        require_known(sorted(tickers), list(names))

        rules = _step_rules(reading, keys)
        now = int((self.as_of or datetime.now(UTC)).timestamp() * 1_000_000)
        panels: dict[str, Panel] = {}
        issues: list[RowIssue] = []
        for tf in sorted(rows, key=lambda tf: tf.sort_key):
            raw_panel = _stack(tf, rows[tf], tickers)
            if len(raw_panel):
                panels[tf.name], found = validate_bars(raw_panel, now, rules)
                issues += found
        infos = {
            symbol: AssetInfo(symbol, name, self.asset_class, None, synthetic=False)
            for symbol, name in names.items()
        }
        newest = {
            tf.name: max(int(part.ts[part.ts <= now].max(initial=0)) for part in rows[tf])
            for tf in rows
        }
        told = told_apart(panels, issues, infos, wanted, newest, str(self.path))
        return replace(told, unread=unread)


def _tell(unread: Sequence[str]) -> None:
    for sentence in unread[:_MOST_TOLD]:
        _warn(sentence)
    if len(unread) > _MOST_TOLD:
        _warn(f"{len(unread) - _MOST_TOLD} more files or assets")


@lru_cache(maxsize=10_000)
def _warn(sentence: str) -> None:
    """Warn of what is left out; once, however often a process reads it."""
    _log.warning("left out: %s", sentence)


def _require_one_venue(raws: Sequence[RawBars], path: Path) -> None:
    """Raises BarsError where hive folders have an asset twice, from two places."""
    venues: dict[str, str] = {}
    for raw in raws:
        for symbol in raw.symbols:
            other = venues.setdefault(symbol, raw.venue)
            if other != raw.venue:
                raise BarsError(
                    f"{path}: {symbol} is there as {other or 'no venue'} and as "
                    f"{raw.venue or 'no venue'}, which are two series; name one of these folders "
                    "as the path"
                )


def _judged(raws: Sequence[RawBars]) -> Iterator[list[Judged]]:
    """For each file the timeframe of each of its symbols.

    An asset that cannot be told by itself takes after the others of its file, else of the path.
    """
    spacings = [
        [
            spacing_of(raw.stamps[raw.symbol_of_row == i]) if tf is None else None
            for i, tf in enumerate(raw.declared)
        ]
        for raw in raws
    ]
    every = [s for own in spacings for s in own if s is not None]
    for raw, own in zip(raws, spacings, strict=True):
        beside = [s for s in own if s is not None]
        yield [
            Judged(tf, "as stated", is_stated=True) if tf is not None else _judge(s, beside, every)
            for tf, s in zip(raw.declared, own, strict=True)
        ]


def _judge(spacing: Spacing | None, beside: Sequence[Spacing], every: Sequence[Spacing]) -> Judged:
    assert spacing is not None  # noqa: S101  (or the timeframe is stated)
    others = [s for s in beside if s is not spacing] or [s for s in every if s is not spacing]
    return judge(spacing, others)


def _keys(reading: PathReading) -> tuple[dict[str, str], list[str]]:
    """The key of each symbol; and a sentence on each whose key is another's, which has none."""
    symbols = sorted({symbol for file in reading.files for symbol in file.raw.symbols})
    keys: dict[str, str] = {}
    owner: dict[str, str] = {}
    collided = []
    # A symbol that is its own key keeps it.
    for symbol in sorted(symbols, key=lambda symbol: key_of(symbol) != symbol):
        key = key_of(symbol)
        if owner.setdefault(key, symbol) == symbol:
            keys[symbol] = key
        else:
            collided.append(
                f"{symbol!r} has the key {key}, as {owner[key]!r} has; choose another for it in a "
                f'file that {KEYS_VARIABLE} names: "{symbol}" = "..."'
            )
    return keys, collided


def _step_rules(reading: PathReading, keys: Mapping[str, str]) -> dict[str, StepRule]:
    """What the settings say of lasting steps, by the key of each asset they say it of.

    Raises:
        BarsError: where two files of an asset say different things.
    """
    rules: dict[str, StepRule] = {}
    for file in reading.files:
        for symbol, rule in zip(file.raw.symbols, file.steps, strict=True):
            if rule is None or symbol not in keys:
                continue
            if rules.setdefault(keys[symbol], rule) is not rule:
                raise BarsError(
                    f"{file.raw.where}: {symbol}: steps = {str(rule)!r} here and "
                    f"{str(rules[keys[symbol]])!r} in another of its files; say one of them"
                )
    return rules


def _by_timeframe(file: FileReading, keys: Mapping[str, str]) -> Iterator[tuple[Timeframe, _Rows]]:
    """The rows of a file for each timeframe in it, with close stamps, by the keys of symbols."""
    raw = file.raw
    owner, timeframes = raw.symbol_of_row, [told.timeframe for told in file.judged]
    for tf in dict.fromkeys(timeframes):
        if tf is None:
            continue
        here = np.array([t == tf for t in timeframes])[owner]
        stamps, part = raw.stamps[here], owner[here]
        if raw.stamp_field == "stamp":
            at_close = stamped_at_close(stamps, part, tf, len(raw.symbols))[part]
        else:
            at_close = np.full(len(part), raw.stamp_field == "close_time")
        ts = np.where(at_close, from_close(stamps, tf), from_open(stamps, tf))
        columns = {name: column[here] for name, column in raw.columns.items()}
        symbols = tuple(keys.get(symbol, "") for symbol in raw.symbols)
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
