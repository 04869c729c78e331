"""Backtests, sweeps and portfolios on demand: features as they are stored, signals as they follow.

Refreshes compute the presets and store each signal with its features. Here a strategy is traded
with any parameters: its signals follow from the stored features, and what is kept is the run, with
the same identity that a refresh gives it.
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
    BacktestError,
    BadSymbols,
    InvalidInput,
    UnknownName,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.runs.run_files import kept_funding
from backtest_pipeline.pipeline.specs import PortfolioSpec, RunSpec, SweepSpec, WalkForwardSpec
from backtest_pipeline.pipeline.stages.benchmark_assets import require_benchmark
from backtest_pipeline.pipeline.stages.external_features import ExternalReader
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS, load_batch
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.stages.portfolio_members import members_of
from backtest_pipeline.pipeline.stages.portfolio_tables import artifact_uri, files_of, rows_of
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig, formed, planned
from backtest_pipeline.pipeline.stages.signals import signal_matrix
from backtest_pipeline.pipeline.use_cases.refresh import refresh_features, require_stored
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
    active_signals,
    known_symbols,
    signal_with,
)
from backtest_pipeline.strategies.registry import DEFAULT_STRATEGY, strategy_of
from backtest_pipeline.strategies.strategy import Params, Strategy


@dataclass(frozen=True)
class Made:
    """Runs of one strategy, and what they were made from.

    Attributes:
        signal: its row of `dim_signals`.
        tradable: bars and conditions.
        terms: costs, stops and all else that they assume.
        runs: of each symbol in the order asked, as `storage.run_tables.runs.runs_by_id` gives them.
    """

    signal: SignalRow
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
    """Bring the features up to date, trade a strategy in the window, and store the runs.

    Indicators use the whole history before the window; trades use the window alone.

    Raises:
        UnknownName: for a strategy, preset, parameter, symbol, timeframe or benchmark that there is
            not.
        InvalidInput: for parameters that are wrong, a window without enough bars, or funding rates
            that do not cover them.
        BacktestError: where no features can be had, and why.
    """
    strategy, params = strategy_of_spec(workspace, spec)
    terms = shared_by(workspace, spec)
    terms = replace(terms, config=config_for(terms.config, strategy, params))
    batch = fresh_features(
        workspace, source, symbols, spec.timeframe, terms.benchmark, rebuild=rebuild
    )
    signal, refreshed = _signal_of(workspace, strategy, params)
    events = signal_matrix(batch.panel, [signal])
    tradable = cut_to_window(batch.panel, events, batch.inputs, terms)
    runs = trade_and_store(
        workspace, signal, tradable, terms, "run", refreshed=refreshed, rebuild=rebuild
    )
    return Made(signal, tradable, terms, runs)


def strategy_of_spec(
    workspace: Workspace, spec: RunSpec | PortfolioSpec
) -> tuple[Strategy[Any], Params]:
    """The strategy of a spec with its parameters, whether by preset or by values.

    Raises:
        UnknownName, AmbiguousName: for a preset, strategy or parameter that there is not.
        InvalidInput: for parameters that are wrong, or given beside a preset.
    """
    if spec.preset is None:
        strategy = strategy_of(spec.strategy or DEFAULT_STRATEGY)
        return strategy, strategy.parse(spec.params)
    if spec.strategy or spec.params:
        raise InvalidInput(
            f"preset {spec.preset} has a strategy and its parameters: leave out the preset, or "
            "strategy and params beside it"
        )
    with workspace.database.begin() as connection:
        presets = {signal.name: signal for signal in active_signals(connection)}
    if spec.preset not in presets:
        raise UnknownName("preset", spec.preset, presets)
    preset = presets[spec.preset]
    strategy = strategy_of(preset.strategy)
    return strategy, strategy.parse(preset.params)


def shared_by(
    workspace: Workspace, spec: RunSpec | WalkForwardSpec | SweepSpec | PortfolioSpec
) -> RunTerms:
    """What all runs of a spec have in common, beside strategy and symbol.

    Raises:
        UnknownName, InvalidInput: for what makes no sense, and why.
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
            raise InvalidInput("funding of a portfolio is given by symbol, not by a hash")
        try:
            return kept_funding(workspace.artifacts, spec.funding, spec.symbol)
        except ArtifactError as error:
            raise InvalidInput(
                f"funding: no rates are stored under {spec.funding!r}; give them by symbol"
            ) from error
    rates = {}
    for symbol, pairs in spec.funding.items():
        stamps = pd.DatetimeIndex([stamp for stamp, _ in pairs])
        rates[symbol] = pd.Series([rate for _, rate in pairs], stamps, np.float64)
    return FundingRates.of(rates)


def _signal_of(
    workspace: Workspace, strategy: Strategy[Any], params: Params
) -> tuple[SignalRow, bool]:
    """The signal of these parameters, and whether refreshes compute it."""
    with workspace.database.begin() as connection:
        for signal in active_signals(connection):
            if signal.strategy == strategy.name and _means(strategy, signal, params):
                return signal, True
        return signal_with(connection, strategy.name, strategy.telling(params)), False


def _means(strategy: Strategy[Any], signal: SignalRow, params: Params) -> bool:
    """Whether a preset has these parameters; one that cannot be read has none."""
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
    """Bring the features up to date, and trade every combination of parameters in the window.

    Every combination is entered in the ledger of trials; more than `most` are refused.

    Raises:
        UnknownName, InvalidInput: as `exploration.explore`.
        BacktestError: where no features can be had, and why.
    """
    terms = shared_by(workspace, spec)
    batch = fresh_features(workspace, source, [spec.symbol], spec.timeframe, rebuild=rebuild)
    return sweep(
        batch.panel,
        spec.strategy or DEFAULT_STRATEGY,
        spec.params,
        terms,
        metric=spec.metric,
        max_combinations=most,
        workspace=workspace,
        progress=workspace.progress,
    )


@retried
def portfolio_on_demand(
    workspace: Workspace, runs: Sequence[Mapping[str, Any]], config: RollupConfig
) -> Mapping[str, Any]:
    """Spread capital over stored runs of one signal at one timeframe, and store the portfolio.

    It stands beside those of the rollups and never takes their place.

    Args:
        runs: as `run_tables.runs.runs_by_id` gives them; weights of the config are in their order.
        config: with one scheme.

    Returns:
        The portfolio's row, as `storage.run_tables.portfolios.stored_portfolio` gives it.
    """
    plan = planned(runs[0]["tf"], runs, config)[0]
    with workspace.database.begin() as connection:
        stored = stored_portfolio(connection, plan.run_id)
        others = other_portfolios(connection, plan.timeframe, plan.run_id)
    if stored and workspace.artifacts.is_intact(stored["artifact_uri"]):
        return stored
    members = members_of(workspace, plan.runs)
    with threadpool_limits(1, user_api="blas"):  # sums must not depend on the number of cores
        portfolio = formed(plan, members, correlations(members.curves), config)
    about = {"timeframe": plan.timeframe, "portfolios": [str(plan.run_id)]}
    files = files_of([portfolio])
    with workspace.database.arrow() as connection, connection.cursor() as cursor:
        copy.lock_cells(cursor, "portfolios", plan.timeframe, [0])
        workspace.artifacts.put_directory(artifact_uri([portfolio]), files, about)
        add_portfolio(cursor, rows_of([portfolio], current=False, others=others))
    with workspace.database.begin() as connection:
        stored = stored_portfolio(connection, plan.run_id)
    assert stored is not None  # noqa: S101  (it was just stored)
    return stored


def fresh_features(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    symbols: Sequence[str],
    tf: str,
    benchmark: str = "asset",
    *,
    rebuild: bool = False,
) -> PanelBatch:
    """Features of assets, and of what they are compared with, brought up to date.

    Raises:
        UnknownName: for an asset, timeframe or benchmark that there is not.
        BacktestError: where no features can be had, and why.
    """
    name = timeframe(tf).name
    with workspace.database.begin() as connection:
        known = known_symbols(connection)
    offered = source.symbols()
    require_known(symbols, (*offered, *known))
    require_benchmark(benchmark, (*offered, *known))
    wanted = [s for s in dict.fromkeys((*symbols, benchmark)) if s in offered]
    if wanted:
        partitions = [Partition(symbol, name) for symbol in wanted]
        for report in refresh_features(workspace, source, partitions, rebuild=rebuild):
            require_stored(report)
    batch = load_batch(workspace, "features", name, symbols, SNAPSHOT_COLUMNS)
    for symbol in symbols:
        if symbol not in batch.inputs:
            raise BacktestError(
                f"{Partition(symbol, name)}: no features are stored; refresh cmc_features first"
            )
    return batch


def require_several(symbols: Sequence[str]) -> None:
    """Raises BadSymbols where these are fewer than two, or one is there twice."""
    if len(set(symbols)) < len(symbols):
        twice = next(s for s in symbols if symbols.count(s) > 1)
        raise BadSymbols(f"a portfolio holds each asset once, and {twice} is there twice")
    if len(symbols) < 2:
        raise BadSymbols(f"a portfolio needs two assets or more, not {len(symbols)}")
