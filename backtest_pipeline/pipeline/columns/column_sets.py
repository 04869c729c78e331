"""The sets of a user's own columns that there are, and which of them strategies read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from backtest_pipeline.market.as_of import TimedValues, values_as_of
from backtest_pipeline.market.cross_section import is_rank
from backtest_pipeline.market.errors import GridTooLarge, UnknownColumn, UnknownName
from backtest_pipeline.market.features import FEATURES
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.columns.rank_sets import own_columns_ranked, rank_sets, with_ranked
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.sources.columns.column_file import ColumnFile
from backtest_pipeline.sources.columns.column_folder import read_column_folder
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.external.rows import read_panel
from backtest_pipeline.storage.external.watermarks import read_watermarks
from backtest_pipeline.storage.tables.datasets import COLUMNS
from backtest_pipeline.storage.tables.dimensions import SignalRow, asset_ids
from backtest_pipeline.strategies.registry import strategies, strategy_of

COLUMNS_VERSION = 1
"""Raise it when the same file or table gives other values at the bars."""
_TABLE = "external.table"  # a dot, which the name of no file has


class ColumnSet(Protocol):
    """Columns that are stored together, on the bars of the features."""

    @property
    def dataset(self) -> str:
        """Its name in `dataset_versions`, which begins with `columns:`."""
        ...

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Its columns, sorted; no feature, and no column of another set, has one of these names."""
        ...

    def require_readable(self) -> None:
        """Raise ColumnsError where its values cannot be read, with the place."""
        ...

    def remarks(self) -> list[str]:
        """What a reader should know of it, in sentences."""
        ...

    def codes(self, partitions: Sequence[Partition]) -> dict[Partition, str]:
        """Version of all beside the bars that the values of each partition follow from.

        A partition that is left out is read again whenever it is asked for.
        """
        ...

    def values(self, bars: Panel) -> Mapping[str, np.ndarray]:
        """Each column at each bar, float64 `(n_bars,)`, known at its close; NaN for no value."""
        ...


@dataclass(frozen=True)
class FileSet:
    """The columns of a file, see `sources.columns`."""

    name: str
    file: ColumnFile

    @property
    def dataset(self) -> str:
        return f"{COLUMNS}{self.name}"

    @property
    def origin(self) -> str:
        return str(self.file.path)

    @property
    def names(self) -> tuple[str, ...]:
        return self.file.names

    def require_readable(self) -> None:
        self.file.content()

    def remarks(self) -> list[str]:
        n = self.file.content().overtaken
        late = f"{n:,} rows were known after one of a later ts, and are never read"
        return [late] if n else []

    def codes(self, partitions: Sequence[Partition]) -> dict[Partition, str]:
        made_from = [COLUMNS_VERSION, self.file.content().digest, self.file.max_age_us]
        return dict.fromkeys(partitions, hash_of([*made_from, self.file.tz]))

    def values(self, bars: Panel) -> Mapping[str, np.ndarray]:
        return values_as_of(self.file.content().values, bars, self.file.max_age_us)


@dataclass(frozen=True)
class TableSet:
    """The columns of the external feature table that are no features.

    Attributes:
        workspace: the open store.
        table: the table.
        names: those of its columns that any strategy reads, so that no others are loaded.
    """

    workspace: Workspace
    table: FeatureTable
    names: tuple[str, ...]

    @property
    def dataset(self) -> str:
        return f"{COLUMNS}{_TABLE}"

    @property
    def origin(self) -> str:
        return self.table.features.name

    def require_readable(self) -> None:
        """The table was probed when it was opened."""

    def remarks(self) -> list[str]:
        return []

    def codes(self, partitions: Sequence[Partition]) -> dict[Partition, str]:
        if not self.table.stamped:
            return {}
        with self.workspace.database.begin() as connection:
            marks = read_watermarks(connection)
        made_from = [COLUMNS_VERSION, self.table.identity, self.names]
        return {p: hash_of([*made_from, marks[p]]) for p in partitions if p in marks}

    def values(self, bars: Panel) -> Mapping[str, np.ndarray]:
        if not bars.assets:
            return {name: np.empty(0) for name in self.names}
        with self.workspace.database.begin() as connection:
            ids = asset_ids(connection, bars.assets)
        of_assets = [ids[asset] for asset in bars.assets]
        rows = read_panel(self.table, bars.timeframe, bars.assets, of_assets, self.names)
        known = TimedValues(rows.assets, rows.offsets, rows.ts, rows.columns)
        finite = {n: np.where(np.isfinite(v), v, np.nan) for n, v in known.columns.items()}
        return values_as_of(replace(known, columns=finite), bars, max_age_us=0)


@dataclass(frozen=True)
class KnownSets:
    """The sets that there are.

    Attributes:
        workspace: the open store, of whose assets ranks are.
        sets: those that can be read.
        refused: why others cannot, by where they come from.
        of_table: all columns of the external table that strategies could read.
    """

    workspace: Workspace
    sets: tuple[ColumnSet, ...]
    refused: Mapping[str, str]
    of_table: tuple[str, ...] = ()

    def with_columns(self, names: Iterable[str]) -> list[ColumnSet]:
        """The sets that have any of these columns; each rank is a set of its own.

        Raises:
            UnknownColumn: for a column that there is in none, with the nearest names, and for a
                rank of what is no expression.
        """
        wanted = set(names)
        ranks = sorted(name for name in wanted if is_rank(name))
        known = {name: one for one in self.sets for name in one.names}
        for name in sorted(wanted - known.keys() - {*ranks}):
            features = [feature.name for feature in FEATURES]
            hint = str(UnknownName("column", name, [*features, *known, *self.of_table]))
            hint = hint.partition("; known")[0]
            own = ", ".join(sorted({*known, *self.of_table})) or "none"
            n = len(self.refused)
            refused = f"; {n} refused, which the command columns names" if n else ""
            places = [s.declared[name].where for s in strategies().values() if name in s.declared]
            where = "".join(f"{place}: " for place in places)
            raise UnknownColumn(f"{where}{hint}; columns of your own: {own}{refused}")
        found = [one for one in self.sets if wanted.intersection(one.names)]
        if not ranks:
            return found
        of_ranks = {rank: self.with_columns(own_columns_ranked(rank)) for rank in ranks}
        return [*found, *rank_sets(self.workspace, of_ranks)]


def known_sets(workspace: Workspace, wanted: Sequence[str] = ()) -> KnownSets:
    """The sets of an open store, as they are now.

    Args:
        workspace: the open store.
        wanted: columns that are about to be read; of a table only those have to be among its set
            that no strategy reads at the values that it is explored with.
    """
    folder = read_column_folder(workspace.columns_folder)
    files = [FileSet(name, file) for name, file in sorted(folder.files.items())]
    table = workspace.external
    if table is None:
        return KnownSets(workspace, tuple(files), folder.refused)
    taken = {
        str(one.file.path): f"{one.file.path} and the table {table.features.name} both have a "
        f"column {', '.join(both)}; rename one"
        for one in files
        if (both := sorted({*one.names} & {*table.own_columns}))
    }
    needed = {*wanted}
    for one in strategies().values():
        with suppress(GridTooLarge):  # one whose grid nobody can explore takes nothing from others
            needed |= {*own_columns_read(one, one.grid)}
    needed = with_ranked(needed)
    known = [one for one in files if str(one.file.path) not in taken]
    asked = tuple(name for name in table.own_columns if name in needed)
    sets = [*known, *([TableSet(workspace, table, asked)] if asked else [])]
    return KnownSets(workspace, tuple(sets), {**folder.refused, **taken}, table.own_columns)


def require_columns(workspace: Workspace, names: Sequence[str]) -> None:
    """Raise ColumnsError for a column that there is not, or whose set cannot be read."""
    for one in known_sets(workspace, names).with_columns(names) if names else ():
        one.require_readable()


def columns_read(signals: Iterable[SignalRow], config: SimulationConfig | None = None) -> list[str]:
    """The columns of a user's own that any of these presets or terms of runs reads, sorted."""
    return sorted(
        {
            name
            for signal in signals
            for name in own_columns_read(strategy_of(signal.strategy), signal.params, config)
        }
    )
