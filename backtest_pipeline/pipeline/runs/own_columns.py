"""Columns of a user's own on a panel, and their part in what a run was made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from backtest_pipeline.market.errors import GridTooLarge, InvalidInput
from backtest_pipeline.market.features import is_given_by_bars
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.runs.read_rows import Read
from backtest_pipeline.simulation.columns import columns_read
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.provenance import combined, content_versions
from backtest_pipeline.storage.tables.datasets import (
    DatasetVersion,
    dataset_of_key,
    input_key,
)
from backtest_pipeline.strategies.strategy import Strategy

_SEPARATOR = "+"
_MOST_COMBINATIONS = 20_000


@dataclass(frozen=True)
class StoredColumns:
    """Some columns of one set, as they are stored.

    Attributes:
        names: the columns that are read, sorted.
        versions: the stored version of the whole set, by asset.
    """

    names: tuple[str, ...]
    versions: Mapping[str, DatasetVersion] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnColumns:
    """The columns of a user's own that strategies read on some bars.

    They are kept apart from the features, so that each strategy is computed, and its runs are
    named, from those columns alone that it reads itself.

    Attributes:
        values: the columns on those bars; None where no strategy reads any.
        sets: what they were read from, by dataset.
    """

    values: Panel | None = None
    sets: Mapping[str, StoredColumns] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return () if self.values is None else tuple(self.values.columns)

    def on(self, panel: Panel, names: Iterable[str] | None = None) -> Panel:
        """The panel, of the same bars or of some of their assets, with these columns.

        Args:
            panel: the bars.
            names: the columns that are wanted; others than a user's own are passed over. All by
                default.
        """
        if self.values is None:
            return panel
        own = self.values.select(panel.assets)
        wanted = own.columns.keys() if names is None else set(names)
        return panel.with_columns({n: own[n] for n in sorted(wanted) if n in own.columns})

    def contents(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Hash of the named columns alone, by asset and `input_key`."""
        wanted = set(names)
        found: dict[str, dict[str, str]] = {}
        for dataset, stored in self.sets.items():
            read = [name for name in stored.names if name in wanted]
            if not read or self.values is None:
                continue
            tf = self.values.timeframe.name
            for asset, content in content_versions(self.values, read).whole.items():
                found.setdefault(asset, {})[input_key(Partition(asset, tf), dataset)] = content
        return found

    def read_by(self, names: Iterable[str]) -> dict[str, dict[str, Read]]:
        """What runs that read the named columns were made from, by asset and `input_key`.

        The content is that of those columns alone: another column of a set makes no run stale.
        """
        return {
            asset: {
                key: Read(versions[asset], content)
                for key, content in by_key.items()
                # An asset without features has no version, and no run.
                if asset in (versions := self.sets[dataset_of_key(key)[1]].versions)
            }
            for asset, by_key in self.contents(names).items()
        }

    def versions_with(self, versions: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
        """Versions of bars by asset, each with the contents of the named columns in it."""
        contents = self.contents(names)
        return {
            asset: combined(version, *own.values()) if (own := contents.get(asset)) else version
            for asset, version in versions.items()
        }

    def code_of(self, code: str, asset: str) -> str:
        """The `code_version` of what is made from an asset's bars, with the sets' versions in it.

        `apart` takes it to pieces.
        """
        return _with(code, [version.version for version in self._versions(asset)])

    def generation_of(self, generation: str, asset: str) -> str:
        """A generation of an asset's bars with those of the sets; `apart` takes it to pieces."""
        return _with(generation, [version.generation for version in self._versions(asset)])

    def _versions(self, asset: str) -> list[DatasetVersion]:
        ordered = [stored.versions for _, stored in sorted(self.sets.items())]
        return [versions[asset] for versions in ordered if asset in versions]


def apart(text: str) -> tuple[str, str]:
    """A `code_of` or `generation_of` as its two parts: of the features, and of the sets."""
    own, _, of_sets = text.partition(_SEPARATOR)
    return own, of_sets


def _with(text: str, versions: Sequence[str]) -> str:
    return f"{text}{_SEPARATOR}{combined(*versions)}" if versions else text


def own_columns_read(
    strategy: Strategy[Any], params: Mapping[str, Any], config: SimulationConfig | None = None
) -> tuple[str, ...]:
    """The columns that a strategy or the terms of its run read and bars do not give, sorted.

    Args:
        strategy: the strategy.
        params: its parameters; where some are sequences of values to choose from, all combinations
            are looked at of those that decide which columns are read.
        config: the terms of the run, whose stops and sizing may be expressions; None for none.

    Raises:
        InvalidInput: for parameters that the strategy rejects.
        GridTooLarge: for too many combinations that read other columns.
    """
    of_terms = set(own_columns_of(config)) if config is not None else set()
    return tuple(sorted(of_terms | _own_columns_of_all(strategy, params)))


def own_columns_of(config: SimulationConfig) -> tuple[str, ...]:
    """The columns that the stops and the sizing of a run read and bars do not give, sorted."""
    return tuple(sorted(n for n in columns_read([config.rules]) if not is_given_by_bars(n)))


def _own_columns_of_all(strategy: Strategy[Any], params: Mapping[str, Any]) -> frozenset[str]:
    axes = {n: v for n, v in params.items() if isinstance(v, Sequence) and not isinstance(v, str)}
    fixed = {name: value for name, value in params.items() if name not in axes}
    if not axes:
        return _own_columns(strategy, fixed)
    # For parameters that decide nothing; some that make sense together with those that do.
    others = [{}, *({name: axis[end] for name, axis in axes.items()} for end in (0, -1))]

    def read(chosen: Mapping[str, Any]) -> frozenset[str] | None:
        for rest in others:
            with suppress(InvalidInput):
                return _own_columns(strategy, {**fixed, **rest, **chosen})
        return None

    deciding: dict[str, Sequence[Any]] = {}
    bases: list[dict[str, Any]] = [{}]
    while more := {
        name: axis
        for name, axis in axes.items()
        if name not in deciding
        and any({read({**b, name: value}) for value in axis} - {read(b), None} for b in bases)
    }:
        deciding |= more
        # What these choose may have parameters of its own, as a branch of an `if` has.
        bases = [{name: value} for name, axis in more.items() for value in axis]
    if (n := math.prod(map(len, deciding.values()))) > _MOST_COMBINATIONS:
        raise GridTooLarge(
            f"{strategy.name}: {', '.join(deciding)} decide which columns are read, in {n:,} "
            f"combinations, and {_MOST_COMBINATIONS:,} are the limit; give fewer values"
        )
    found = (
        read(dict(zip(deciding, values, strict=True))) for values in product(*deciding.values())
    )
    return frozenset(name for names in found for name in names or ())


def _own_columns(strategy: Strategy[Any], params: Mapping[str, Any]) -> frozenset[str]:
    read = strategy.columns(strategy.parse(params))
    return frozenset(name for name in read if not is_given_by_bars(name))
