"""Which column of a file holds what, and these columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import pyarrow as pa
import pyarrow.compute as pc

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.files.grids import Grid, plain
from backtest_pipeline.sources.files.layouts import (
    CRYPTODATADOWNLOAD,
    SPELLINGS,
    STAMPS,
    FileLayout,
    bare,
    coin_of_volume,
)
from backtest_pipeline.sources.files.parts import Part
from backtest_pipeline.sources.files.settings_file import SETTINGS_NAME, FileSettings


class FileColumns:
    """The columns of one file by what they hold.

    Attributes:
        cells: names of the columns by position.
        positions: where each field stands; several positions are columns of one name.
    """

    def __init__(
        self,
        part: Part,
        grid: Grid,
        layout: FileLayout,
        settings: FileSettings,
        cells: Mapping[int, str] | None = None,
    ) -> None:
        """Assign columns to fields; `cells` are those of one ticker of several.

        Raises:
            BarsError: where the settings name a column that there is not.
        """
        self._where, self._grid, self._layout = part.where, grid, layout
        self._settings = settings
        self.cells = cells or self._named_cells()
        self.positions = self._wanted()

    def _named_cells(self) -> Mapping[int, str]:
        """Names of the columns by their position, ours where the settings give them."""
        given, grid = self._settings.columns, self._grid
        if isinstance(given, tuple):
            if len(given) != grid.n_columns:
                raise BarsError(
                    f"{self._where}: columns lists {len(given)} names for {grid.n_columns} columns"
                )
            return dict(enumerate("stamp" if name == "ts" else name for name in given))
        if not grid.header:
            named = self._layout.rows[grid.n_columns]
            return dict(enumerate((*named, *[""] * (grid.n_columns - len(named)))))
        return dict(enumerate(grid.header))

    def _wanted(self) -> dict[str, list[int]]:
        """Where each field stands, under the best spelling that is there."""
        cells = self.cells
        if not self._grid.header or isinstance(self._settings.columns, tuple):
            found: dict[str, list[int]] = {}
            for i, name in cells.items():
                if name not in ("", "-"):
                    found.setdefault(name, []).append(i)
            return found
        found = self._stated_columns()
        has_stamp = "stamp" in found
        taken = {i for at in found.values() for i in at}
        spelled = {i: bare(cell) for i, cell in cells.items() if i not in taken}
        for name, spellings in SPELLINGS.items():
            if name in found or (has_stamp and name in STAMPS):
                continue
            at = next((at for s in spellings if (at := _where(spelled, s))), None)
            if at is not None:
                found[name] = at
        return found

    def _stated_columns(self) -> dict[str, list[int]]:
        """Where the columns stand that the settings name."""
        given = self._settings.columns or {}
        assert isinstance(given, Mapping)  # noqa: S101  (a list is for files without a header)
        cells = {i: cell.strip() for i, cell in self.cells.items()}
        found: dict[str, list[int]] = {}
        for ours, theirs in given.items():
            found["stamp" if ours == "ts" else ours] = at = _where(cells, theirs.strip())
            if not at:
                raise BarsError(
                    f"{self._where}: no column {theirs!r}, which {SETTINGS_NAME} gives for {ours}; "
                    f"its columns are {', '.join(cells.values())}"
                )
        return found

    def load(self) -> dict[str, pa.ChunkedArray]:
        """The fields that the file has and that are not empty throughout."""
        positions = {name: list(at) for name, at in self.positions.items()}
        cells = {bare(cell): i for i, cell in self.cells.items()}
        if {"date", "time"} <= set(cells) and self.at("stamp") == cells["date"]:
            positions["time_of_day"] = [cells["time"]]
        wanted = sorted({i for at in positions.values() for i in at})
        columns = {i: trimmed(plain(c)) for i, c in self._grid.load(wanted).items()}
        columns = _without_blank_rows(columns)
        fields: dict[str, pa.ChunkedArray] = {}
        for name, at in positions.items():
            n_rows = len(columns[at[0]])
            filled = [i for i in at if columns[i].null_count < n_rows or not n_rows]
            distinct = [i for i in filled if not columns[i].equals(columns[filled[0]])]
            if distinct:
                raise BarsError(
                    f"{self._where}: two columns are called {self.cells[at[0]]!r} and differ; "
                    "remove one of them"
                )
            if filled:
                fields[name] = columns[filled[0]]
                self.positions[name] = [filled[0]]
        return fields

    def volume(self, symbols: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """The volume in coins of what is traded: `Volume BTC` of BTC/USD, not `Volume USD`."""
        by_coin = {
            coin: i
            for i, cell in reversed(list(self.cells.items()))
            if (coin := coin_of_volume(cell)) is not None
        }
        if not by_coin or "volume" in self.positions:
            return {}
        base = [coin for coin in by_coin if bare(symbols[0]).startswith(coin)]
        if len(by_coin) > 1 and not base and self._layout is not CRYPTODATADOWNLOAD:
            columns = " or ".join(repr(self.cells[i]) for i in sorted(by_coin.values()))
            raise BarsError(
                f"{self._where}: the volume of {symbols[0]} may be {columns}; say which in "
                f'{SETTINGS_NAME}: columns = {{ volume = "..." }}'
            )
        at = by_coin[base[0]] if base else min(by_coin.values())
        self.positions["volume"] = [at]
        return {"volume": trimmed(plain(self._grid.load([at])[at]))}

    def missing(self, name: str) -> str:
        by_bare = {bare(cell): cell.strip() for cell in self.cells.values() if cell.strip()}
        if name in self.positions:
            cell = self.cells[self.at(name)]
            return f"{self._where}: column {cell!r} is empty in all rows; export the bars again"
        taken = {spelling for spellings in SPELLINGS.values() for spelling in spellings}
        near = [
            by_bare[match]
            for spelling in SPELLINGS[name]
            if len(spelling) > 1
            for match in get_close_matches(spelling, set(by_bare) - taken, n=1, cutoff=0.5)
        ]
        wanted = "a stamp (ts, timestamp, date or open_time)" if name == "stamp" else repr(name)
        hint = f"did you mean {near[0]!r}? " if near else ""
        ours = "ts" if name == "stamp" else name
        return (
            f"{self._where}: no column for {wanted}; {hint}its columns are "
            f"{', '.join(by_bare.values())}; say which it is in {SETTINGS_NAME} beside the file: "
            f'columns = {{ {ours} = "{near[0] if near else "..."}" }}'
        )

    def at(self, name: str) -> int:
        """Where a field stands; -1 where it is not there."""
        return self.positions.get(name, [-1])[0]

    def name(self, field: str) -> str:
        """What the file calls a field."""
        return self.cells.get(self.at(field), field)


def _where(cells: Mapping[int, str], wanted: str) -> list[int]:
    return [i for i, cell in cells.items() if cell == wanted]


def trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text without blanks around it; an empty cell is missing, `NA` and `NULL` are text."""
    if not pa.types.is_string(column.type):
        return column
    text = pc.call_function("utf8_trim_whitespace", [column])
    empty = pc.call_function("equal", [text, pa.scalar("")])
    return pc.call_function("if_else", [empty, pa.scalar(None, pa.string()), text])


def _without_blank_rows(columns: dict[int, pa.ChunkedArray]) -> dict[int, pa.ChunkedArray]:
    """Without the rows that hold nothing, as spreadsheets leave them below a table."""
    if not columns or any(column.null_count == 0 for column in columns.values()):
        return columns
    filled = None
    for column in columns.values():
        valid = pc.call_function("is_valid", [column])
        filled = valid if filled is None else pc.call_function("or", [filled, valid])
    kept = pc.call_function("sum", [filled]).as_py()
    if not kept or kept == len(next(iter(columns.values()))):
        return columns
    return {i: column.filter(filled) for i, column in columns.items()}
