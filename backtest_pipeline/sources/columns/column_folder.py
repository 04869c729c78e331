"""The folder of a user's own columns: its files, what `columns.toml` says of them, what is refused.

[model]                # the file model.parquet or model.csv
max_age_days = 3       # a row is read for three days at most; else until the next row
tz = "UTC"             # of stamps without a zone
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from backtest_pipeline.market.errors import ColumnsError
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.sources.columns.column_file import (
    SUFFIXES,
    ColumnFile,
    open_column_file,
)

SETTINGS_NAME = "columns.toml"
_OPTIONS = ("max_age_days", "tz")


@dataclass(frozen=True)
class ColumnFolder:
    """What a folder holds.

    Attributes:
        files: the files that can be read, by name without suffix.
        refused: why the others are not, by path.
    """

    files: Mapping[str, ColumnFile]
    refused: Mapping[str, str]


def read_column_folder(folder: Path | None) -> ColumnFolder:
    """The headers of all files; a folder that does not exist holds none.

    A file whose name or columns are those of another file, or whose columns are features, is
    refused, with both.
    """
    if folder is None or not folder.is_dir():
        return ColumnFolder({}, {})
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and not path.name.startswith((".", "_"))
    )
    found: dict[str, ColumnFile] = {}
    refused: dict[str, str] = {}
    try:
        options = _options(folder / SETTINGS_NAME, [path.stem for path in paths])
    except ColumnsError as error:
        return ColumnFolder({}, {str(path): str(error) for path in paths})
    for path in paths:
        try:
            _require_name(path, paths)
            found[path.stem] = open_column_file(path, **options.get(path.stem, {}))
        except ColumnsError as error:
            refused[str(path)] = str(error)
    refused |= _in_two_files(found)
    usable = {stem: file for stem, file in found.items() if str(file.path) not in refused}
    return ColumnFolder(usable, refused)


def _require_name(path: Path, paths: Sequence[Path]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", path.stem):
        raise ColumnsError(
            f"{path}: the name may have letters, digits, _ and -, at most 60; rename the file"
        )
    same = [str(one) for one in paths if one.stem == path.stem]
    if len(same) > 1:
        raise ColumnsError(f"{' and '.join(same)} have one name; keep one of them")


def _in_two_files(found: Mapping[str, ColumnFile]) -> dict[str, str]:
    """Why files are refused that have a column of the same name, by path."""
    refused = {}
    of_column: dict[str, list[str]] = {}
    for stem, file in found.items():
        for name in file.names:
            of_column.setdefault(name, []).append(stem)
    for name, stems in of_column.items():
        if len(stems) > 1:
            both = " and ".join(str(found[stem].path) for stem in stems)
            for stem in stems:
                refused[str(found[stem].path)] = f"{both} both have a column {name}; rename one"
    return refused


def _options(path: Path, stems: list[str]) -> dict[str, dict[str, Any]]:
    """What the settings say of each file, as arguments of `open_column_file`."""
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as reason:
        raise ColumnsError(f"{path}: cannot be read as TOML: {reason}") from reason
    found: dict[str, dict[str, Any]] = {}
    for stem, given in said.items():
        where = f"{path}: [{stem}]"
        if stem not in stems:
            raise ColumnsError(f"{where} is about no file; there are {', '.join(stems)}")
        if not isinstance(given, dict) or not set(given) <= set(_OPTIONS):
            raise ColumnsError(f"{where} may say {' and '.join(_OPTIONS)}, not {given!r:.60}")
        days, tz = given.get("max_age_days"), given.get("tz")
        is_number = isinstance(days, int | float) and not isinstance(days, bool)
        if days is not None and not (is_number and 0 < days < 1e5):
            raise ColumnsError(f"{where} max_age_days is a number of days, not {days!r:.60}")
        if tz is not None:
            _require_zone(tz, where)
        found[stem] = {"max_age_us": None if days is None else int(days * DAY_US), "tz": tz}
    return found


def _require_zone(tz: object, where: str) -> None:
    try:
        ZoneInfo(str(tz))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ColumnsError(f"{where} tz is an IANA zone such as UTC, not {tz!r:.60}") from error
