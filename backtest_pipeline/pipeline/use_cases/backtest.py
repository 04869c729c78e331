"""Backtests, sweeps and portfolios on demand, from stored features.

A refresh computes presets and stores each signal with its features. Here a strategy is traded with
any parameters: its signals are computed from stored features, and only the run is stored, under
the same id that a refresh would give it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from backtest_pipeline.market.errors import (
    ArtifactError,
    BadSymbols,
    InvalidInput,
    NoFeatures,
    UnknownName,
)
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.look_ahead_guard import require_probed
from backtest_pipeline.pipeline.presets import active_presets
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.pipeline.runs.run_files import kept_funding
from backtest_pipeline.pipeline.specs import PortfolioSpec, RunSpec, SweepSpec, WalkForwardSpec
from backtest_pipeline.pipeline.stages.batch_files import BatchFiles
from backtest_pipeline.pipeline.stages.benchmark_assets import require_benchmark, rows_in
from backtest_pipeline.pipeline.stages.columns.columns_stage import with_fresh_columns
from backtest_pipeline.pipeline.stages.conditions import signal_matrix
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS, load_batch, load_daily
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.stages.portfolio_members import members_of
from backtest_pipeline.pipeline.stages.portfolio_tables import artifact_uri, files_of, rows_of
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig, formed, planned
from backtest_pipeline.pipeline.use_cases.refresh import refresh_to_trade
from backtest_pipeline.pipeline.use_cases.sweep import Exploration, sweep
from backtest_pipeline.pipeline.use_cases.traded import Tradable, cut_to_window, trade_and_store
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.research.portfolio.diversification import correlations
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.rules import config_for
from backtest_pipeline.sources.base import BarSource, require_known
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.portfolios import (
    add_portfolio,
    other_portfolios,
    stored_portfolio,
)
from backtest_pipeline.storage.tables.dimensions import (
    SignalRow,
    known_symbols,
    signal_with,
)
from backtest_pipeline.strategies.grid import parameter_space
from backtest_pipeline.strategies.registry import DEFAULT_STRATEGY, strategy_of
from backtest_pipeline.strategies.strategy import Params, Strategy


@dataclass(frozen=True)
class Made:
    """Backtested runs of one strategy, and their inputs.

    Attributes:
        signal: its row of `dim_signals`.
        features: of each asset from its first bar on, those before the window included.
        tradable: bars and conditions.
        terms: costs, stops and the other settings of the runs.
        runs: one per symbol in the order given, as `storage.run_tables.runs.runs_by_id` returns
            them.
    """

    signal: SignalRow
    features: Panel
    tradable: Tradable
    terms: RunTerms
    runs: list[Mapping[str, Any]]


@retried
def backtest(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    spec: RunSpec | PortfolioSpec,
    symbols: Sequence[str],
    *,
    rebuild: bool = False,
) -> Made:
    """Refresh the features, trade a strategy in the window, and store the runs.

    Indicators use the full history before the window; trades happen only inside it.

    Raises:
        UnknownName: for an unknown strategy, preset, parameter, symbol, timeframe or benchmark.
        InvalidInput: for invalid parameters, a window with too few bars, or funding rates that do
            not cover it.
        LooksAhead: for a strategy whose signals use later bars.
        BacktestError: where no features are available, with the reason.
    """
    strategy, params = strategy_of_spec(workspace, spec)
    terms = shared_by(workspace, spec)
    terms = replace(terms, config=config_for(terms.config, strategy, params))
    read = own_columns_read(strategy, params.model_dump(), terms.config)
    batch = fresh_features(
        workspace, source, symbols, spec.timeframe, read, terms.benchmark, rebuild=rebuild
    )
    features = batch.own.on(batch.panel)
    require_probed(workspace, strategy, [params.model_dump()], features)
    signal, refreshed = _signal_of(workspace, strategy, params)
    tradable = cut_to_window(batch, signal_matrix(features, [signal]), terms)
    runs = trade_and_store(
        workspace, signal, tradable, terms, "run", refreshed=refreshed, rebuild=rebuild
    )
    return Made(signal, features, tradable, terms, runs)


def strategy_of_spec(
    workspace: Workspace, spec: RunSpec | PortfolioSpec
) -> tuple[Strategy[Any], Params]:
    """The strategy and parameters of a spec, named by a preset or given as values.

    Raises:
        UnknownName, AmbiguousName: for an unknown or ambiguous preset, strategy or parameter.
        InvalidInput: for invalid parameters, or parameters given together with a preset.
    """
    strategy, given = named_by_spec(workspace, spec)
    return strategy, strategy.parse(given)


def named_by_spec(
    workspace: Workspace, spec: RunSpec | PortfolioSpec
) -> tuple[Strategy[Any], Mapping[str, Any]]:
    """The strategy of a spec and the parameters given, before any code of the strategy runs.

    Raises:
        UnknownName, AmbiguousName: for an unknown or ambiguous preset or strategy.
        InvalidInput: for parameters given together with a preset.
    """
    require_one_strategy(spec)
    if spec.preset is None:
        return strategy_of(spec.strategy or DEFAULT_STRATEGY), spec.params
    presets = {signal.name: signal for signal in active_presets(workspace)}
    if spec.preset not in presets:
        raise UnknownName("preset", spec.preset, presets)
    preset = presets[spec.preset]
    return strategy_of(preset.strategy), preset.params


def require_one_strategy(spec: RunSpec | PortfolioSpec) -> None:
    """Raise InvalidInput where a spec names a preset, and a strategy or parameters as well."""
    if spec.preset is not None and (spec.strategy or spec.params):
        raise InvalidInput(
            f"preset {spec.preset} already sets the strategy and its parameters: give either the "
            "preset, or strategy and params"
        )


def shared_by(
    workspace: Workspace, spec: RunSpec | WalkForwardSpec | SweepSpec | PortfolioSpec
) -> RunTerms:
    """The terms that all runs of a spec share: simulation, window, benchmark and funding.

    Raises:
        UnknownName, InvalidInput: for invalid terms, with the reason.
    """
    return RunTerms(
        spec.config(),
        Window(spec.start, spec.end),
        spec.benchmark if isinstance(spec, RunSpec) else "asset",
        _funding(workspace, spec),
    )


def _funding(
    workspace: Workspace, spec: RunSpec | WalkForwardSpec | SweepSpec | PortfolioSpec
) -> FundingRates | None:
    if spec.funding is None:
        return None
    if isinstance(spec.funding, str):
        if isinstance(spec, PortfolioSpec):
            raise InvalidInput(
                "funding of a portfolio cannot be a hash: give the rates of each symbol"
            )
        try:
            return kept_funding(workspace.artifacts, spec.funding, spec.symbol)
        except ArtifactError as error:
            raise InvalidInput(
                f"funding: no rates are stored under {spec.funding!r}; give the rates by symbol"
            ) from error
    rates = {}
    for symbol, pairs in spec.funding.items():
        stamps = pd.DatetimeIndex([stamp for stamp, _ in pairs])
        rates[symbol] = pd.Series([rate for _, rate in pairs], stamps, np.float64)
    return FundingRates.of(rates)


def _signal_of(
    workspace: Workspace, strategy: Strategy[Any], params: Params
) -> tuple[SignalRow, bool]:
    """The signal with these parameters, and whether it is a preset that refreshes compute."""
    for signal in active_presets(workspace):
        if signal.strategy == strategy.name and _means(strategy, signal, params):
            return signal, True
    with workspace.database.begin() as connection:
        return signal_with(connection, strategy.name, strategy.telling(params)), False


def _means(strategy: Strategy[Any], signal: SignalRow, params: Params) -> bool:
    """Whether a preset has these parameters; False where its own are invalid."""
    try:
        return strategy.parse(signal.params) == params
    except InvalidInput:
        return False


@retried
def sweep_on_demand(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    spec: SweepSpec,
    *,
    most: int,
    rebuild: bool = False,
) -> Exploration:
    """Refresh the features, and backtest every combination of parameters in the window.

    Every combination is entered in the trial ledger; more than `most` are refused.

    Raises:
        UnknownName, InvalidInput, LooksAhead: as `pipeline.use_cases.sweep.explore`.
        BacktestError: where no features are available, with the reason.
    """
    terms = shared_by(workspace, spec)
    strategy = strategy_of(spec.strategy or DEFAULT_STRATEGY)
    axes = parameter_space(strategy, spec.params).axes
    read = own_columns_read(strategy, axes, terms.config)
    batch = fresh_features(workspace, source, [spec.symbol], spec.timeframe, read, rebuild=rebuild)
    traded = batch.panel.take(rows_in(batch.panel, terms.window))
    return sweep(
        batch.own.on(batch.panel),
        strategy.name,
        spec.params,
        terms,
        daily=load_daily(workspace, traded).days,
        metric=spec.metric,
        max_combinations=most,
        workspace=workspace,
        progress=workspace.progress,
        files=BatchFiles.of(batch),
    )


@retried
def portfolio_on_demand(
    workspace: Workspace,
    runs: Sequence[Mapping[str, Any]],
    config: RollupConfig,
    *,
    rebuild: bool = False,
) -> Mapping[str, Any]:
    """Build a portfolio of stored runs of one signal at one timeframe, and store it.

    It is stored next to the rollups' portfolios and never replaces one.

    Args:
        runs: as `run_tables.runs.runs_by_id` returns them; fixed weights follow their order.
        config: how to build it, with exactly one scheme.
        rebuild: build and store it even if it is stored.

    Returns:
        The portfolio's row, as `storage.run_tables.portfolios.stored_portfolio` returns it.
    """
    plan = planned(runs[0]["tf"], runs, config)[0]
    with workspace.database.begin() as connection:
        stored = stored_portfolio(connection, plan.run_id)
        others = other_portfolios(connection, plan.timeframe, plan.run_id)
    if stored and not rebuild and workspace.artifacts.is_intact(stored["artifact_uri"]):
        return stored
    members = members_of(workspace, plan.runs)
    with threadpool_limits(1, user_api="blas"):  # sums must not depend on the number of cores
        portfolio = formed(plan, members, correlations(members.curves), config)
    about = {"timeframe": plan.timeframe, "portfolios": [str(plan.run_id)]}
    files = files_of([portfolio])
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        copy.lock_cells(cursor, "portfolios", plan.timeframe, [0])
        workspace.artifacts.put_directory(artifact_uri([portfolio]), files, about)
        add_portfolio(cursor, rows_of([portfolio], current=False, others=others), replace=rebuild)
    with workspace.database.begin() as connection:
        stored = stored_portfolio(connection, plan.run_id)
    assert stored is not None  # noqa: S101  (it was just stored)
    return stored


def fresh_features(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    symbols: Sequence[str],
    tf: str,
    own: Sequence[str],
    benchmark: str = "asset",
    *,
    rebuild: bool = False,
) -> PanelBatch:
    """Refresh the features of these symbols and of their benchmark, and load the symbols'.

    Args:
        own: the columns of the user's own that are read with them.

    Raises:
        UnknownName: for an unknown symbol, timeframe or benchmark.
        BacktestError: where no features are available, with the reason.
    """
    name = timeframe(tf).name
    with workspace.database.begin() as connection:
        known = known_symbols(connection)
    offered = source.symbols()
    require_known(symbols, (*offered, *known))
    require_benchmark(benchmark, (*offered, *known))
    to_refresh = [s for s in dict.fromkeys((*symbols, benchmark)) if s in offered]
    if to_refresh:
        refresh_to_trade(workspace, source, to_refresh, name, rebuild=rebuild)
    batch = load_batch(workspace, "features", name, symbols, SNAPSHOT_COLUMNS)
    for symbol in symbols:
        if symbol not in batch.inputs:
            raise NoFeatures(
                f"{Partition(symbol, name)}: no features are stored; refresh cmc_features first"
            )
    return with_fresh_columns(workspace, batch, own, rebuild=rebuild)


def require_several(symbols: Sequence[str]) -> None:
    """Raise BadSymbols for fewer than two symbols, or for a repeated one."""
    if len(set(symbols)) < len(symbols):
        twice = next(s for s in symbols if symbols.count(s) > 1)
        raise BadSymbols(f"a portfolio holds each symbol once, but {twice} is given more than once")
    if len(symbols) < 2:
        raise BadSymbols(f"a portfolio needs at least two symbols, not {len(symbols)}")
