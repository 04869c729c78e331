"""`bars.toml` beside files of bars: what the files do not say themselves."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from backtest_pipeline.market.errors import BarsError, InvalidInput, UnknownName
from backtest_pipeline.market.panel import OHLCV
from backtest_pipeline.market.price_levels import StepRule
from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.market.timeframes import timeframe

SETTINGS_NAME = "bars.toml"
OF_SYMBOL = ("timeframe", "steps")
"""What may be stated of one asset, below `symbols`."""
COLUMN_NAMES = ("ts", "symbol", "name", "timeframe", *OHLCV)
"""What `columns` may name; `ts` is the stamp."""


@dataclass(frozen=True)
class FileSettings:
    """What the user states of a file; None where nothing is.

    Attributes:
        symbol: the asset, where no column names one.
        timeframe: how long a bar is.
        tz: IANA zone of stamps that carry none.
        stamp: `open` or `close`: the end of the bar that its stamp stands for.
        stamp_format: how stamps are written, in the codes of strftime.
        decimal: the sign before decimals, `.` or `,`.
        steps: `split` or `same`: what lasting steps of the price are, see `market.price_levels`.
        columns: our name to the file's; or, of a file without a header, the names in order.
        symbols: by key, what holds for one asset instead; only OF_SYMBOL.
    """

    symbol: str | None = None
    timeframe: str | None = None
    tz: str | None = None
    stamp: str | None = None
    stamp_format: str | None = None
    decimal: str | None = None
    steps: str | None = None
    columns: Mapping[str, str] | tuple[str, ...] | None = None
    symbols: Mapping[str, FileSettings] = field(default_factory=dict)

    def over(self, other: FileSettings) -> FileSettings:
        """These, and those of `other` where these say nothing."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        own["symbols"] = {**other.symbols, **self.symbols}
        return replace(other, **{name: value for name, value in own.items() if value is not None})

    def of_symbol(self, symbol: str) -> FileSettings:
        """Those of one of its assets."""
        return self.symbols.get(key_of(symbol), FileSettings()).over(self)


@dataclass(frozen=True)
class FolderSettings:
    """The settings of a path: those of all its files, and those of files by pattern."""

    asked: FileSettings = FileSettings()
    common: FileSettings = FileSettings()
    by_pattern: tuple[tuple[str, FileSettings], ...] = ()

    def of(self, name: str) -> FileSettings:
        """Those of one file; of several patterns that fit, the one written last wins."""
        found = self.common
        for pattern, settings in self.by_pattern:
            if fnmatchcase(name, pattern):
                found = settings.over(found)
        # What is asked for goes before all that is written.
        asked = FileSettings(**{name: getattr(self.asked, name) for name in OF_SYMBOL})
        symbols = {symbol: asked.over(own) for symbol, own in found.symbols.items()}
        return self.asked.over(replace(found, symbols=symbols))

    def without_effect(
        self, where: str, names: Collection[str], symbols: Iterable[str]
    ) -> Iterator[str]:
        """A sentence on each pattern that fits no file, and on each symbol that no file has.

        Args:
            where: the file of the settings, for people.
            names: those of the files.
            symbols: of all rows that were read.
        """
        for pattern, _ in self.by_pattern:
            if not any(fnmatchcase(name, pattern) for name in names):
                yield f'{where}, [files."{pattern}"]: no such file; it has no effect'
        keys = sorted({key_of(symbol) for symbol in symbols})
        for own in (self.common, *(own for _, own in self.by_pattern)):
            for key in own.symbols:
                if key not in keys:
                    unknown = UnknownName("symbol", key, keys)
                    yield f'{where}, [symbols."{key}"] has no effect: {unknown}'


def split_query(path: str) -> tuple[str, FileSettings]:
    """A path and the settings behind it: `bars.csv?timeframe=1m&tz=UTC`.

    Raises:
        InvalidInput: for a setting that there is not, or a value that it cannot have.
    """
    bare, mark, query = path.rpartition("?")
    if not mark or Path(path).expanduser().exists():
        return path, FileSettings()
    given = dict(parse_qsl(query, keep_blank_values=True))
    try:
        return bare, _settings(given, f"--bars {path}")
    except BarsError as error:
        raise InvalidInput(str(error)) from None


def settings_path(path: Path) -> Path:
    """Where the settings of a file or folder stand."""
    return (path if path.is_dir() else path.parent) / SETTINGS_NAME


def read_settings(path: Path, asked: FileSettings = FileSettings()) -> FolderSettings:
    """The settings beside a file, or in a folder; `asked` go before them.

    Raises:
        BarsError: where the file cannot be read or says something that means nothing.
    """
    file = settings_path(path)
    if not file.is_file():
        return FolderSettings(asked)
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as reason:
        raise BarsError(f"{file}: cannot be read as TOML ({reason}); fix that line") from reason
    by_pattern = table.pop("files", {})
    if not isinstance(by_pattern, dict):
        raise BarsError(f'{file}: write the settings of one file below [files."NAME"]')
    return FolderSettings(
        asked,
        _settings(table, str(file)),
        tuple(
            (pattern, _settings(own, f'{file}, [files."{pattern}"]'))
            for pattern, own in by_pattern.items()
        ),
    )


def _settings(
    table: Any, where: str, known: Sequence[str] = tuple(f.name for f in fields(FileSettings))
) -> FileSettings:
    if not isinstance(table, dict):
        raise BarsError(f"{where}: not a table of settings; known: {', '.join(known)}")
    for key, value in table.items():
        if key not in known:
            raise BarsError(f"{where}: {UnknownName('setting', str(key), known)}")
        if key not in _TABLES and (not isinstance(value, str) or not value):
            raise BarsError(f'{where}: {key} is a text; write {key} = "..."')
    settings = FileSettings(
        **{key: value for key, value in table.items() if key not in _TABLES},
        columns=_columns(table.get("columns"), where),
        symbols=_symbols(table.get("symbols", {}), where),
    )
    _require_sense(settings, where)
    return settings


_TABLES = ("columns", "symbols")


def _symbols(table: Any, where: str) -> dict[str, FileSettings]:
    if not isinstance(table, dict):
        raise BarsError(f'{where}: write the settings of one asset below [symbols."SYMBOL"]')
    return {
        key_of(symbol): _settings(own, f'{where}, [symbols."{symbol}"]', OF_SYMBOL)
        for symbol, own in table.items()
    }


def _require_sense(settings: FileSettings, where: str) -> None:
    if settings.stamp not in (None, "open", "close"):
        raise BarsError(f"{where}: stamp = {settings.stamp!r}; it is 'open' or 'close'")
    if settings.decimal not in (None, ".", ","):
        raise BarsError(f"{where}: decimal = {settings.decimal!r}; it is '.' or ','")
    if settings.steps not in (None, *StepRule):
        raise BarsError(f"{where}: steps = {settings.steps!r}; it is 'split' or 'same'")
    try:
        if settings.timeframe is not None and timeframe(settings.timeframe).length_us is None:
            raise BarsError(
                f"{where}: bars of {settings.timeframe} follow the calendar and cannot be read; "
                "bring finer bars"
            )
        if settings.tz is not None:
            ZoneInfo(settings.tz)
    except UnknownName as error:
        raise BarsError(f"{where}: {error}") from None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BarsError(
            f"{where}: there is no time zone {settings.tz!r}; write an IANA name, such as "
            "Europe/Berlin or UTC"
        ) from None


def _columns(given: Any, where: str) -> Mapping[str, str] | tuple[str, ...] | None:
    if given is None:
        return None
    values: list[Any] = given if isinstance(given, list) else []
    if isinstance(given, dict):
        values = list(given.values())
    if not values or not all(isinstance(name, str) for name in values):
        raise BarsError(
            f'{where}: columns is a table, such as {{ ts = "Zeit", close = "Schluss" }}, or of a '
            'file without a header a list, such as ["ts", "open", "-", "close"]'
        )
    for name in given:
        if name not in COLUMN_NAMES and not (isinstance(given, list) and name in ("", "-")):
            raise BarsError(f"{where}: {UnknownName('column', name, COLUMN_NAMES)}")
    return tuple(given) if isinstance(given, list) else dict(given)
