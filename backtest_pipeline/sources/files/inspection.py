"""What is understood of files of bars, what is not, and the settings that say so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backtest_pipeline.market.symbols import key_of
from backtest_pipeline.sources.files.file_bars import FileBars, FileReading
from backtest_pipeline.sources.files.settings_file import COLUMN_NAMES, settings_path

_MOST_FILES = 100
_ENDS = {"open_time": "open", "close_time": "close"}


@dataclass(frozen=True)
class Understood:
    """What a path holds.

    Attributes:
        assets: a row for each asset of each file, for people and programs.
        unread: a sentence on each thing that is left out.
        settings: text of `bars.toml`.
        settings_path: where that belongs.
    """

    assets: tuple[Mapping[str, Any], ...]
    unread: tuple[str, ...]
    settings: str
    settings_path: Path


def inspect_bars(source: FileBars) -> Understood:
    """What is understood of a path, and the settings that state it.

    Raises:
        BarsError: where there is no such path, or no file in it.
    """
    reading = source.looked_at()
    files, unread = reading.files, reading.unread
    rows = tuple(row for file in files for row in _rows(file))
    return Understood(
        rows, unread, _settings(source.path, files, unread), settings_path(source.path)
    )


def _rows(file: FileReading) -> Iterator[dict[str, Any]]:
    raw = file.raw
    for i, (symbol, told) in enumerate(zip(raw.symbols, file.judged, strict=True)):
        stamps = raw.stamps[raw.symbol_of_row == i]
        yield {
            "file": _name(raw.where),
            "layout": raw.layout.name,
            "symbol": symbol,
            "key": key_of(symbol),
            "timeframe": told.timeframe.name if told.timeframe else None,
            "told": told.why,
            "stamp": _ENDS.get(raw.stamp_field, "by the grid"),
            "bars": len(stamps),
            "from": _minute(stamps.min()) if len(stamps) else None,
            "until": _minute(stamps.max()) if len(stamps) else None,
            "volume": bool(np.isfinite(raw.columns["volume"]).any()),
            "columns": dict(raw.columns_read),
        }


def _name(where: str) -> str:
    # A line break in a file's name would end a comment.
    return " ".join(Path(where).name.split())


def _minute(at_us: int) -> str:
    return str(np.datetime64(int(at_us), "us").astype("M8[m]")).replace("T", " ")


def _settings(path: Path, files: Sequence[FileReading], unread: Sequence[str]) -> str:
    """`bars.toml`: what was told from stamps alone as it is, all else as a comment to fill in.

    What a file's name, layout or column says holds for that file, and is not stated for all.
    """
    lines = ["# What these files of bars hold; see docs/bars.md.", ""]
    if path.is_file():
        # Other files of its folder are none of its business.
        lines.append(f"[files.{json.dumps(path.name, ensure_ascii=False)}]")
    told = {t.timeframe.name for f in files for t in f.judged if t.timeframe and not t.is_stated}
    if len(told) == 1 and not any(t.is_stated for f in files for t in f.judged):
        lines.append(f'timeframe = "{told.pop()}"')
    else:
        lines.append('# timeframe = "1D"           # how long a bar is')
    lines += [
        '# stamp = "open"             # the end of the bar that its stamp stands for',
        '# tz = "UTC"                 # of stamps that carry no zone',
        '# stamp_format = "%d/%m/%Y"  # where the day and the month may change places',
        '# decimal = ","              # the sign before decimals',
        '# steps = "split"            # or "same": what lasting steps of the price are',
        '# symbol = "BTCUSDT"         # where neither a column nor the name says it',
        '# columns = { ts = "...", open = "..." }  # of ' + ", ".join(COLUMN_NAMES),
        '# [symbols."BTCUSDT"]        # timeframe and steps of one asset',
        "",
    ]
    for file in files[:_MOST_FILES]:
        lines += _of_file(file)
    if len(files) > _MOST_FILES:
        lines.append(f"# ... and {len(files) - _MOST_FILES} more files")
    if unread:
        lines += ["", "# Not understood:", *(f"# {' '.join(s.split())}" for s in unread)]
    return "\n".join(lines).rstrip() + "\n"


def _of_file(file: FileReading) -> list[str]:
    raw = file.raw
    symbols = ", ".join(raw.symbols[:5]) + (", ..." if len(raw.symbols) > 5 else "")
    read = {
        "ts" if name in ("stamp", "open_time", "close_time", "index") else name: column
        for name, column in raw.columns_read.items()
    }
    columns = ", ".join(f"{name} = {json.dumps(column)}" for name, column in read.items())
    return [
        f"# {_name(raw.where)}: {raw.layout.name}; {symbols}",
        f"#   columns = {{ {columns} }}",
    ]
