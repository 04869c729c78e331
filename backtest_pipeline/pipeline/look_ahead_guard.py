"""The look-ahead guard: no result of a strategy whose signals depend on later bars.

A code version of a strategy is probed before its first result: under its defaults, at the ends of
its grid, and under each set of parameters that is asked for, once each. One leak under any of them
refuses the code version under all. Verdicts are kept in the store, or in this process without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from backtest_pipeline.market.cross_section import is_rank
from backtest_pipeline.market.errors import (
    BacktestError,
    InvalidInput,
    LooksAhead,
    StrategyRefused,
)
from backtest_pipeline.market.features import build_features, is_given_by_bars, with_indicators
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.pipeline.columns.rank_sets import with_ranked
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.pipeline.versions import probe_code
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.look_ahead.across_assets import leak_across_assets
from backtest_pipeline.research.look_ahead.look_ahead import require_no_look_ahead
from backtest_pipeline.research.validation.schedule import Task
from backtest_pipeline.research.validation.walk_forward import Chosen
from backtest_pipeline.storage.postgres.database import Connection
from backtest_pipeline.storage.run_tables.strategy_sources import keep_strategy
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.storage.tables.look_ahead import read_verdicts, record_verdicts
from backtest_pipeline.strategies.grid import ParameterSpace
from backtest_pipeline.strategies.known_strategies import catalogue
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.rules.ranks import with_ranks
from backtest_pipeline.strategies.strategy import Strategy

ParameterSets = Sequence[Mapping[str, Any]]
Verdicts = dict[tuple[str, str], str | None]

_SAMPLE = ("S-ETA",)  # the most volatile asset of the sample market: its rules trade often
_SAMPLE_MARKET = "the built-in sample market, which every strategy is tried on"
_ROWS = 4_000  # of the caller's own bars, the last ones
_verdicts_here: Verdicts = {}


def require_probed(
    workspace: Workspace | None,
    strategy: Strategy[Any],
    params: ParameterSets,
    panel: Panel | None = None,
) -> None:
    """Raise unless this code version of a strategy passes the probe.

    Args:
        workspace: the open store that keeps the verdicts; without one, this process keeps them.
        strategy: a registered strategy.
        params: parameter sets that are about to be used.
        panel: features at hand; its first asset is probed too, beside the sample market.

    Raises:
        LooksAhead: with the strategy, what changed, the columns that it reads, and what to do.
        StrategyRefused: for a strategy that fails while it is probed.
    """
    refusal = refused_strategies(workspace, {strategy.name: params}, panel).get(strategy.name)
    if refusal is not None:
        raise refusal


def is_known_sound(connection: Connection, strategy: Strategy[Any], params: ParameterSets) -> bool:
    """Whether this code version of a strategy was probed under these parameters, and passed."""
    sets, code = _sets(strategy, params), probe_code(strategy.name)
    known = read_verdicts(connection, [code], list(sets))
    return all((code, hashed) in known for hashed in sets) and not any(known.values())


def require_choices_probed(
    workspace: Workspace | None,
    panel: Panel,
    tasks: Sequence[Task],
    chosen: Sequence[Chosen],
    space: ParameterSpace,
) -> None:
    """Raise LooksAhead unless a strategy passes the probe under all that a walk-forward chose.

    Look-ahead makes a strategy as good out of sample as in sample, so that the two cannot tell.

    Args:
        workspace: as `require_probed` takes it.
        panel: features of the walk-forward; what was chosen for an asset is probed on its bars.
        tasks, chosen: the folds and their results.
        space: what the parameters were chosen from.
    """
    sets: dict[str, dict[str, Mapping[str, Any]]] = {}
    for task, choice in zip(tasks, chosen, strict=True):
        if choice.combination is not None:
            params = space.params(choice.combination)
            sets.setdefault(task.asset, {})[hash_of(params)] = params
    for asset, own in sets.items():
        require_probed(workspace, space.strategy, list(own.values()), panel.select([asset]))


def refused_presets(workspace: Workspace, presets: Sequence[SignalRow]) -> dict[str, str]:
    """The presets whose strategy looks ahead or fails, and why; unprobed versions are probed.

    Args:
        workspace: the open store.
        presets: presets that can be computed.
    """
    params: dict[str, list[Mapping[str, Any]]] = {}
    for preset in presets:
        params.setdefault(preset.strategy, []).append(preset.params)
    refused = refused_strategies(workspace, params)
    return {p.name: str(refused[p.strategy]) for p in presets if p.strategy in refused}


def refuse_presets(
    workspace: Workspace, presets: Sequence[SignalRow], found: Mapping[str, str]
) -> None:
    """Record that the strategies of these presets look ahead, by what another test has found.

    Args:
        workspace: the open store.
        presets: the presets that were tested.
        found: what looks ahead, by preset.
    """
    rows = []
    for preset in presets:
        if preset.name in found:
            strategy = strategy_of(preset.strategy)
            leak = _message(strategy, preset.params, f"{strategy.name} {found[preset.name]}")
            rows += _rows(strategy, [preset.params], leak)
    if rows:
        with workspace.database.begin() as connection:
            record_verdicts(connection, rows)


def ends_of(strategy: Strategy[Any], axes: Mapping[str, Sequence[Any]]) -> ParameterSets:
    """Parameter sets at the ends of a search range, as far as the strategy accepts them.

    All parameters at their lowest, all at their highest, and each alone at its highest.
    """
    low = {name: min(axis) for name, axis in axes.items()}
    high = {name: max(axis) for name, axis in axes.items()}
    corners = [low, high, *({**low, name: high[name]} for name in axes)]
    return [given for given in corners if _accepts(strategy, given)]


def _accepts(strategy: Strategy[Any], params: Mapping[str, Any]) -> bool:
    try:
        strategy.parse(params)
    except InvalidInput:
        return False
    return True


def refused_strategies(
    workspace: Workspace | None,
    params: Mapping[str, ParameterSets],
    panel: Panel | None = None,
) -> dict[str, BacktestError]:
    """The strategies that look ahead or fail, and why; what has no verdict yet is probed.

    Args:
        workspace, panel: as `require_probed` takes them.
        params: parameter sets that are about to be used, by strategy.
    """
    asked = {name: _sets(strategy_of(name), given) for name, given in params.items()}
    if workspace is not None:
        _keep_sources(workspace, asked)
    known = _known(workspace, asked)
    refused: dict[str, BacktestError] = {}
    for name, sets in asked.items():
        strategy, code = strategy_of(name), probe_code(name)
        leak = next((said for (of, _), said in known.items() if of == code and said), None)
        unknown = [given for hashed, given in sets.items() if (code, hashed) not in known]
        if leak is None and unknown:
            try:
                panels = list(_panels(strategy, unknown, panel))
                universe = _universe(strategy, unknown)
                leak, tested = _probe(strategy, unknown, panels, universe) if panels else (None, ())
            except StrategyRefused as error:
                refused[name] = error
                continue
            if tested:
                _keep(workspace, _rows(strategy, tested, leak))
        if leak is not None:
            refused[name] = LooksAhead(leak)
    return refused


def _keep_sources(workspace: Workspace, names: Iterable[str]) -> None:
    """Archive the files of users' own strategies before the first result of theirs."""
    found = {name: catalogue().known[name] for name in names}
    own = {name: one for name, one in found.items() if one.source is not None}
    if own:
        with workspace.database.begin() as connection:
            for name, one in own.items():
                assert one.source is not None  # noqa: S101
                keep_strategy(connection, name, one.hash, one.origin, one.source.files)


def _sets(strategy: Strategy[Any], params: ParameterSets) -> dict[str, dict[str, Any]]:
    """All parameter sets to have a verdict on, in full, by their hash; those asked for last."""
    own = [given for given in ({}, *ends_of(strategy, strategy.grid)) if _accepts(strategy, given)]
    full = [strategy.parse(given).model_dump() for given in (*own, *params)]
    return {hash_of(given): given for given in full}


def _known(workspace: Workspace | None, asked: Mapping[str, Mapping[str, Any]]) -> Verdicts:
    codes = [probe_code(name) for name in asked]
    if workspace is None:
        return {key: leak for key, leak in _verdicts_here.items() if key[0] in codes}
    with workspace.database.begin() as connection:
        return read_verdicts(connection, codes, [h for sets in asked.values() for h in sets])


def _keep(workspace: Workspace | None, rows: Sequence[Mapping[str, Any]]) -> None:
    if workspace is None:
        for row in rows:
            _verdicts_here[row["code_version"], row["params_hash"]] = row["leak"]
    else:
        with workspace.database.begin() as connection:
            record_verdicts(connection, rows)


def _rows(strategy: Strategy[Any], params: ParameterSets, leak: str | None) -> list[dict[str, Any]]:
    full = [strategy.parse(given).model_dump() for given in params]
    return [
        {
            "code_version": probe_code(strategy.name),
            "params_hash": hash_of(given),
            "strategy": strategy.name,
            "params": given,
            "leak": leak,
        }
        for given in full
    ]


def _probe(
    strategy: Strategy[Any],
    params: ParameterSets,
    panels: Sequence[Panel],
    universe: Panel | None,
) -> tuple[str | None, ParameterSets]:
    """The first leak, and the parameter sets that it is a verdict on.

    Args:
        strategy, params: what is probed.
        panels: assets to probe it on, one by one.
        universe: all assets of a market, for a strategy that compares them.
    """
    for given in params:
        for panel in panels:
            for asset in panel.assets:
                try:
                    require_no_look_ahead(panel, strategy, [given], asset)
                except LooksAhead as leak:
                    return _message(strategy, given, str(leak), _place(asset)), [given]
                except StrategyRefused as error:
                    raise StrategyRefused(f"{error}; found{_place(asset)}") from error
    if universe is not None and (found := leak_across_assets(universe, strategy, params)):
        leak, given = found
        return _message(strategy, given, leak, f" on {_SAMPLE_MARKET}"), [given]
    return None, params


def _place(asset: str) -> str:
    """An asset, and where it is from where nobody has asked for it."""
    return f" on {asset} of {_SAMPLE_MARKET}" if asset in _SAMPLE else f" on {asset}"


def _message(strategy: Strategy[Any], params: Mapping[str, Any], leak: str, where: str = "") -> str:
    parsed = strategy.parse(params)
    given = ", ".join(f"{name} {value}" for name, value in parsed.model_dump().items())
    return (
        f"{leak}. Found with {given or 'no parameters'}{where}; it reads "
        f"{', '.join(strategy.columns(parsed)) or 'no column'}. No result of {strategy.name} is "
        "computed before its code is corrected; it is probed anew then"
    )


def with_invented_columns(panel: Panel, strategy: Strategy[Any], names: Iterable[str]) -> Panel:
    """The panel with random values in those of the columns that neither it nor bars give.

    A third of them is 0, so that they pass for flags too; what the strategy declares as one is 0 or
    1. What a rule does with them says nothing of its worth, and all of which bars it reads. Ranks
    are those among the panel's assets.
    """
    rng = np.random.default_rng(0)
    invented = {}
    for name in sorted(with_ranked(names)):
        values = rng.normal(size=len(panel)) * (rng.random(len(panel)) < 2 / 3)
        if name in strategy.declared and strategy.declared[name].is_flag:
            values = np.where(values > 0, 1.0, 0.0)
        if name not in panel.columns and not is_given_by_bars(name) and not is_rank(name):
            invented[name] = values
    return with_ranks(panel.with_columns(invented), sorted(names))


def _panels(strategy: Strategy[Any], params: ParameterSets, own: Panel | None) -> Iterator[Panel]:
    """Inputs to probe on: the sample market's, and the caller's where they have what is read."""
    read = _columns_read(strategy, params)
    universe = _universe(strategy, params)
    sample = with_invented_columns(_sample(), strategy, read) if universe is None else universe
    candidates = [
        sample.select(_SAMPLE),
        *([_last_rows(own)] if own is not None and own.assets else []),
    ]
    for panel in candidates:
        try:
            with_indicators(panel, sorted(read))
        except InvalidInput:  # a column of the user's own, which the caller's panel lacks
            continue
        columns = {n: panel[n] for n in panel.columns if n in read or n in OHLCV}
        yield Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts, columns)


def _last_rows(panel: Panel) -> Panel:
    rows = panel.rows_of(panel.assets[0])
    return panel.windows([slice(max(rows.start, rows.stop - _ROWS), rows.stop)])


def _columns_read(strategy: Strategy[Any], params: ParameterSets) -> set[str]:
    return {name for given in params for name in strategy.columns(strategy.parse(given))}


def _universe(strategy: Strategy[Any], params: ParameterSets) -> Panel | None:
    """The sample market with all columns that a strategy reads; None where it ranks nothing."""
    read = _columns_read(strategy, params)
    return with_invented_columns(_sample(None), strategy, read) if any(map(is_rank, read)) else None


@cache
def _sample(assets: tuple[str, ...] | None = _SAMPLE) -> Panel:
    """The features of some assets of the sample market; of all by None."""
    from backtest_pipeline.sources.sample import SampleMarket  # not needed where all is probed

    return build_features(SampleMarket().read(assets).panels["1D"])
