"""Ranks among all assets as column sets: one set for each expression that is ranked.

The universe of a timeframe is what has stored features there, whatever is asked for. Synthetic
assets are ranked among themselves, and all others among themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from backtest_pipeline.market.cross_section import is_rank, rank_pct
from backtest_pipeline.market.errors import PartitionError, RuleError, UnknownColumn
from backtest_pipeline.market.features import is_given_by_bars
from backtest_pipeline.market.panel import BAR_COLUMNS, Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.panel_files import read_panel
from backtest_pipeline.storage.tables.datasets import (
    COLUMNS,
    DatasetVersion,
    all_partitions,
    read_versions,
)
from backtest_pipeline.storage.tables.dimensions import synthetic_among
from backtest_pipeline.strategies.rules.ranks import RankedColumns

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.columns.column_sets import ColumnSet

logger = logging.getLogger(__name__)

RANKS_VERSION = 1
"""Raise it when the same features give other ranks."""
_PART_ROWS = 500_000  # whose features are in memory at once


@dataclass(frozen=True)
class RankSet:
    """The ranks of one expression.

    Attributes:
        name: the column, which says what is ranked.
        universe: the assets that are ranked.
        own: the sets that have the columns of the user's own in it.
    """

    name: str
    universe: Universe
    own: tuple[ColumnSet, ...]

    @property
    def dataset(self) -> str:
        return f"{COLUMNS}{self.name}"

    @property
    def origin(self) -> str:
        return "the stored features of all assets"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def require_readable(self) -> None:
        for one in self.own:
            one.require_readable()

    def remarks(self) -> list[str]:
        return []

    def codes(self, partitions: Sequence[Partition]) -> dict[Partition, str]:
        return self.universe.codes(partitions, self.own)

    def values(self, bars: Panel) -> Mapping[str, np.ndarray]:
        return {self.name: self.universe.ranks(bars, self.name)}


class Universe:
    """All assets with stored features, as they are when a timeframe is first asked for.

    What is ranked is read once for all columns, and the ranks are kept until another column is
    asked for.

    Args:
        workspace: the open store.
        names: the columns that are ranks.
        own: the sets that have the columns of the user's own in them.
    """

    def __init__(
        self, workspace: Workspace, names: Sequence[str], own: Sequence[ColumnSet]
    ) -> None:
        self._workspace = workspace
        self._names = names
        self._own = own
        self._lock = Lock()
        self._stored: dict[str, _Stored] = {}
        self._ranks: dict[str, Panel] = {}

    def codes(
        self, partitions: Sequence[Partition], own: Sequence[ColumnSet]
    ) -> dict[Partition, str]:
        """Version of the features and own columns of all assets that a partition is ranked among.

        A partition is left out where a set has no version of one of them.
        """
        with self._lock:
            stored = {tf: self._stored_at(tf) for tf in {p.timeframe for p in partitions}}
        found: dict[tuple[str, bool], str] = {}
        for tf, of_tf in stored.items():
            for kind in _KINDS:
                ranked = [Partition(asset, tf) for asset in of_tf.assets(kind)]
                features = [[p.asset, of_tf.features[p.asset].version] for p in ranked]
                of_own = [one.codes(ranked) for one in own]
                if all(p in codes for codes in of_own for p in ranked):
                    by_set = [[codes[p] for p in ranked] for codes in of_own]
                    found[tf, kind] = hash_of([RANKS_VERSION, features, by_set])
        keys = {p: (p.timeframe, p.asset in stored[p.timeframe].synthetic) for p in partitions}
        return {p: found[key] for p, key in keys.items() if key in found}

    def ranks(self, bars: Panel, name: str) -> np.ndarray:
        """A column of ranks at each of these bars of stored features.

        Raises:
            PartitionError: where the features were replaced while they were ranked.
        """
        tf = bars.timeframe.name
        with self._lock:
            ranked = self._ranks_at(tf, name)
            if not _has(ranked, bars):  # features were stored since they were looked at
                del self._stored[tf], self._ranks[tf]
                ranked = self._ranks_at(tf, name)
        if not _has(ranked, bars):
            raise PartitionError(
                bars.assets[0], tf, "its features were replaced meanwhile; refresh again"
            )
        return ranked.select(bars.assets)[name]

    def _stored_at(self, tf: str) -> _Stored:
        if tf not in self._stored:
            with self._workspace.database.begin() as connection:
                known = all_partitions(connection, "features")
                everywhere = sorted({p.asset for p in known})
                at_tf = [p for p in known if p.timeframe == tf]
                features = read_versions(connection, "features", at_tf)
                synthetic = synthetic_among(connection, everywhere)
            by_asset = {p.asset: version for p, version in sorted(features.items())}
            self._stored[tf] = _Stored(by_asset, frozenset(synthetic) & by_asset.keys())
            _warn_of_few(tf, by_asset.keys(), everywhere, frozenset(synthetic))
        return self._stored[tf]

    def _ranks_at(self, tf: str, name: str) -> Panel:
        if tf not in self._ranks or name not in self._ranks[tf].columns:
            stored = self._stored_at(tf)
            parts = []
            for kind in _KINDS:
                if kind not in stored.inputs:
                    stored.inputs[kind] = self._read(tf, stored, stored.assets(kind))
                parts.append(_ranks_among(stored.inputs[kind], name))
            self._ranks[tf] = Panel.join(timeframe(tf), list(stored.features), parts, [name])
        return self._ranks[tf]

    def _read(self, tf: str, stored: _Stored, assets: Sequence[str]) -> Panel:
        """What the ranks of some assets are computed from."""
        artifacts = self._workspace.artifacts
        uris = {asset: stored.features[asset].uris for asset in assets}
        files = {uri for of_asset in uris.values() for uri in of_asset}
        there = artifacts.columns_of(min(files)) if files else ()
        given = [n for n in RankedColumns(self._names).reads if is_given_by_bars(n)]
        names = [name for name in given if name in there]
        if len(names) < len(given):
            names = [*dict.fromkeys((*names, *BAR_COLUMNS))]
        bars = read_panel(artifacts, tf, uris, names)
        known = bars
        for one in self._own:
            known = known.with_columns(one.values(bars))
        return known


_KINDS = (False, True)
"""Whether assets are synthetic: each kind is ranked among itself."""


@dataclass(frozen=True)
class _Stored:
    """The stored features of a timeframe.

    Attributes:
        features: their versions, by asset.
        synthetic: which of the assets are.
        inputs: what is ranked of each kind of asset, as far as it was read.
    """

    features: Mapping[str, DatasetVersion]
    synthetic: frozenset[str]
    inputs: dict[bool, Panel] = field(default_factory=dict)

    def assets(self, are_synthetic: bool) -> list[str]:
        return [asset for asset in self.features if (asset in self.synthetic) is are_synthetic]


def _warn_of_few(
    tf: str, ranked: Collection[str], everywhere: Collection[str], synthetic: Collection[str]
) -> None:
    """Say where ranks are among fewer assets than the store has; one that is alone has rank 1."""
    for kind in _KINDS:
        of_kind = [asset for asset in everywhere if (asset in synthetic) is kind]
        n = sum(asset in ranked for asset in of_kind)
        if 0 < n < len(of_kind):
            logger.warning(
                "ranks at %s are among %d of %d assets, because the others have no features at %s; "
                "for ranks among all run: backtest-pipeline refresh --timeframes %s",
                tf,
                n,
                len(of_kind),
                tf,
                tf,
            )


def _ranks_among(assets: Panel, name: str) -> Panel:
    """The ranks in each other's company; features are in memory for a part of the assets each."""
    columns = RankedColumns([name])
    part_of = (assets.offsets[1:] - 1) // _PART_ROWS
    values = [
        columns.values(assets.select([assets.assets[i] for i in np.flatnonzero(part_of == part)]))
        for part in np.unique(part_of)
    ]
    joined = {name: np.concatenate([one[name] for one in values] or [np.empty(0)])}
    ranks = rank_pct(assets, joined)
    return Panel(assets.timeframe, assets.assets, assets.offsets, assets.ts, ranks)


def _has(ranked: Panel, bars: Panel) -> bool:
    if not {*bars.assets} <= {*ranked.assets}:
        return False
    there = ranked.select(bars.assets)
    return np.array_equal(there.ts, bars.ts) and np.array_equal(there.offsets, bars.offsets)


@lru_cache(maxsize=10_000)
def own_columns_ranked(name: str) -> tuple[str, ...]:
    """The columns that are ranked in a column and that bars do not give.

    Raises:
        UnknownColumn: for a name that is no expression of docs/rules.md, with the place.
    """
    try:
        reads = RankedColumns([name]).reads
    except RuleError as error:
        raise UnknownColumn(str(error)) from None
    return tuple(read for read in reads if not is_given_by_bars(read))


def with_ranked(names: Iterable[str]) -> set[str]:
    """Columns, with those of the user's own that the ranks among them rank.

    A name that is no expression ranks none here; it is refused where it is read.
    """
    given = set(names)
    found = set(given)
    for name in filter(is_rank, given):
        with suppress(UnknownColumn):
            found |= {*own_columns_ranked(name)}
    return found


def follow_from_bars(names: Iterable[str]) -> bool:
    """Whether columns follow from the bars of all assets, or there are none."""
    return all(is_rank(name) and not own_columns_ranked(name) for name in names)


def rank_sets(workspace: Workspace, own: Mapping[str, Sequence[ColumnSet]]) -> list[RankSet]:
    """One set for each column that is a rank; what they rank is read once for all.

    Args:
        workspace: the open store.
        own: the sets with the columns of `own_columns_ranked` of each.
    """
    together = {one.dataset: one for sets in own.values() for one in sets}
    universe = Universe(workspace, list(own), list(together.values()))
    return [RankSet(name, universe, tuple(sets)) for name, sets in own.items()]
