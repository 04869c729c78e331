"""The presets of a store: named parameters of a strategy that every refresh computes.

They come with the store, are added by command, or are declared by a strategy of the user's own. A
declared preset follows its declaration; one that cannot be computed is left out with the reason,
and the others go on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from backtest_pipeline.market.errors import BacktestError, ColumnsError, InvalidInput, UnknownName
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.columns.column_sets import require_columns
from backtest_pipeline.pipeline.look_ahead_guard import refused_presets
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.storage.tables.dimensions import (
    SignalRow,
    active_signals,
    add_preset,
    all_presets,
    deactivate_preset,
    follow_declaration,
)
from backtest_pipeline.storage.tables.signals import failed_presets
from backtest_pipeline.strategies.known_strategies import catalogue
from backtest_pipeline.strategies.own.loading import is_good_name
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.strategy import Params


@retried
def active_presets(workspace: Workspace) -> tuple[SignalRow, ...]:
    """The presets that are active, after those declared by strategies were taken up."""
    declared = {
        (name, one.strategy.name): (dict(params), one.origin)
        for one in catalogue().known.values()
        for name, params in one.strategy.presets.items()
    }
    with workspace.database.begin() as connection:
        rows = {row.name: row for row in all_presets(connection)}
        for (name, strategy), (params, origin) in declared.items():
            row = rows.get(name)
            if row is None:
                add_preset(connection, name, strategy, params, declared_by=origin)
            elif (
                row.declared_by is not None
                and row.strategy == strategy
                and (row.params, row.declared_by, row.is_active) != (params, origin, True)
            ):
                follow_declaration(connection, name, params, origin)
        for row in rows.values():
            is_withdrawn = row.declared_by is not None and row.strategy in catalogue().known
            if row.is_active and is_withdrawn and (row.name, row.strategy) not in declared:
                deactivate_preset(connection, row.name)
        return active_signals(connection)


@retried
def presets_to_compute(workspace: Workspace) -> tuple[SignalRow, ...]:
    """The active presets, without those that `left_out_presets` names."""
    presets = active_presets(workspace)
    left_out = _left_out(workspace, presets)
    return tuple(preset for preset in presets if preset.name not in left_out)


@retried
def computable_presets(workspace: Workspace) -> tuple[SignalRow, ...]:
    """The active presets that can be computed, those that look ahead too."""
    presets = active_presets(workspace)
    unsound = _unsound(workspace, presets)
    return tuple(preset for preset in presets if preset.name not in unsound)


@retried
def left_out_presets(workspace: Workspace) -> dict[str, str]:
    """The presets that a refresh leaves out, and why.

    Their strategy is gone, refuses their parameters, reads a column that is not stored or looks
    ahead, another preset is the same, or their name is taken.
    """
    return {**_names_taken(workspace), **_left_out(workspace, active_presets(workspace))}


@retried
def presets_computed_everywhere(workspace: Workspace) -> tuple[SignalRow, ...]:
    """Those of `presets_to_compute` that fail on no partition: an audit can compute them too."""
    with workspace.database.begin() as connection:
        failed = {one.signal_id for one in failed_presets(connection)}
    return tuple(p for p in presets_to_compute(workspace) if p.signal_id not in failed)


@retried
def failed_on_partitions(
    workspace: Workspace, partitions: Collection[Partition] | None = None
) -> dict[str, str]:
    """The presets that failed on these partitions (or on any), such as `dip_20 on BTC|1D`, and why.

    They have no signals and no current run there, and every refresh tries them again.
    """
    with workspace.database.begin() as connection:
        found = failed_presets(connection, partitions)
    return {f"{one.name} on {one.partition}": one.reason for one in found}


def _left_out(workspace: Workspace, presets: Sequence[SignalRow]) -> dict[str, str]:
    unsound = _unsound(workspace, presets)
    sound = [preset for preset in presets if preset.name not in unsound]
    return {**unsound, **refused_presets(workspace, sound)}


def _unsound(workspace: Workspace, presets: Sequence[SignalRow]) -> dict[str, str]:
    problems: dict[str, str] = {}
    known: dict[tuple[str, Params], str] = {}
    for preset in presets:
        try:
            strategy = strategy_of(preset.strategy)
            params = strategy.parse(preset.params)
            read = own_columns_read(strategy, preset.params)
        except (InvalidInput, UnknownName) as error:
            problems[preset.name] = f"{error}; correct it, or run: presets remove {preset.name}"
            continue
        try:
            require_columns(workspace, read)
        except ColumnsError as error:
            problems[preset.name] = f"{strategy.name}: {error}"
            continue
        same = known.setdefault((strategy.name, params), preset.name)
        if same != preset.name:
            problems[preset.name] = f"it has the strategy and parameters of {same}; remove one"
    return problems


def _names_taken(workspace: Workspace) -> dict[str, str]:
    """Declared presets whose name another strategy or command has registered before."""
    with workspace.database.begin() as connection:
        rows = {row.name: row for row in all_presets(connection)}
    return {
        name: f"declared by {one.origin}, but {rows[name].declared_by or 'a command'} has "
        f"registered a preset of this name for {rows[name].strategy}; rename one of them"
        for one in catalogue().known.values()
        for name in one.strategy.presets
        if name in rows
        and (rows[name].declared_by is None or rows[name].strategy != one.strategy.name)
    }


def register_preset(
    workspace: Workspace, name: str, strategy: str, params: Mapping[str, Any]
) -> SignalRow:
    """Add a preset, or activate it again.

    Args:
        workspace: an open store.
        name: lower-case letters, digits and `_`; no strategy may have it.
        strategy: its strategy, in full or by its first word.
        params: its parameters; those left out are at their defaults.

    Raises:
        UnknownName, StrategyRefused: for a strategy that cannot be used.
        InvalidInput: for invalid parameters, or a name that is taken.
    """
    if not is_good_name(name):
        raise InvalidInput(
            f"{name!r} cannot name a preset: use lower-case letters, digits and _, at most 60"
        )
    definition = strategy_of(strategy)
    given = definition.parse(params).model_dump(include=set(params))
    presets = active_presets(workspace)
    if name in catalogue().known:
        raise InvalidInput(f"{name} is the name of a strategy; choose another for the preset")
    with workspace.database.begin() as connection:
        rows = {row.name: row for row in all_presets(connection)}
        row = rows.get(name)
        if row is not None and (row.strategy, row.params) != (definition.name, given):
            raise InvalidInput(
                f"a preset {name} is registered: {row.strategy} {row.params}; choose another name"
            )
        same = {p.name: p for p in presets if p.name != name}
        twins = _unsound(workspace, [*same.values(), SignalRow(0, name, definition.name, given)])
        if name in twins:
            raise InvalidInput(f"preset {name}: {twins[name]}")
        if row is None:
            add_preset(connection, name, definition.name, given)
        elif not row.is_active:
            follow_declaration(connection, name, given, None)
        return next(row for row in active_signals(connection) if row.name == name)


def remove_preset(workspace: Workspace, name: str) -> None:
    """Deactivate a preset: refreshes compute it no more, and its stored runs stay.

    Raises:
        UnknownName: where no active preset has this name.
        BacktestError: for one that a strategy declares, which would come back.
    """
    presets = {preset.name for preset in active_presets(workspace)}
    if name not in presets:
        raise UnknownName("preset", name, presets)
    for one in catalogue().known.values():
        if name in one.strategy.presets:
            raise BacktestError(f"{name} is declared by {one.origin}; remove it there")
    with workspace.database.begin() as connection:
        deactivate_preset(connection, name)
