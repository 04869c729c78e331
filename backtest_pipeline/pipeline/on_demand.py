"""Strategies with any parameters, on demand: features as they are stored, signals as they follow.

Refreshes compute registered signals and store each with its features. Here a strategy is asked for
with parameters of one's own: its signals follow from the stored features, and what is kept is the
run, with the same identity that a refresh or any other question would give it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from threadpoolctl import threadpool_limits

from backtest_pipeline.market.errors import BacktestError, BadSymbols, InvalidInput
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.api import full_signal_type
from backtest_pipeline.pipeline.blocks import PanelBlock
from backtest_pipeline.pipeline.comparison import require_benchmark
from backtest_pipeline.pipeline.exploration import Exploration, sweep
from backtest_pipeline.pipeline.external import ExternalReader
from backtest_pipeline.pipeline.features import SNAPSHOT_COLUMNS, load_block
from backtest_pipeline.pipeline.identity import Asked
from backtest_pipeline.pipeline.members import members_of
from backtest_pipeline.pipeline.portfolio_tables import artifact_uri, files_of, rows_of
from backtest_pipeline.pipeline.portfolios import RollupConfig, formed, planned
from backtest_pipeline.pipeline.refresh import refresh_features, require_stored
from backtest_pipeline.pipeline.signals import signal_matrix
from backtest_pipeline.pipeline.traded import cut_to_window, require_window, trade_and_store
from backtest_pipeline.pipeline.workspace import Workspace, patient
from backtest_pipeline.research.diversification import correlations
from backtest_pipeline.sources.base import BarSource, require_known
from backtest_pipeline.storage import copy
from backtest_pipeline.storage.dimensions import (
    SignalRow,
    active_signals,
    known_symbols,
    signal_with,
)
from backtest_pipeline.storage.portfolios import (
    add_portfolio,
    other_portfolios,
    stored_portfolio,
)
from backtest_pipeline.strategies.base import Params, Strategy
from backtest_pipeline.strategies.registry import strategy_of


@patient
def backtest_on_demand(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    *,
    strategy: str,
    params: Mapping[str, Any],
    symbols: Sequence[str],
    tf: str,
    asked: Asked,
) -> list[Mapping[str, Any]]:
    """Bring the features up to date, trade a strategy in the window, and store the runs.

    Returns:
        The run of each asset, in their order, as `storage.runs.runs_by_id` gives it.

    Raises:
        UnknownName: for a strategy, parameter, asset, timeframe or benchmark that there is not.
        InvalidInput: for parameters that are wrong, or a window without enough bars.
        BacktestError: where no features can be had, and why.
    """
    require_window(asked.window)
    chosen = strategy_of(full_signal_type(strategy))
    parsed = chosen.parse(params)
    block = fresh_features(workspace, source, symbols, tf, asked.benchmark)
    signal, refreshed = _signal_of(workspace, chosen, parsed)
    events = signal_matrix(block.panel, [signal])
    tradable = cut_to_window(block.panel, events, block.inputs, asked)
    return trade_and_store(workspace, signal, tradable, asked, "service", refreshed=refreshed)


def _signal_of(
    workspace: Workspace, strategy: Strategy[Any], params: Params
) -> tuple[SignalRow, bool]:
    """The signal of these parameters, and whether refreshes compute it."""
    with workspace.database.begin() as connection:
        for signal in active_signals(connection):
            if signal.signal_type == strategy.signal_type and _means(strategy, signal, params):
                return signal, True
        told = params.model_dump(exclude_defaults=True)
        return signal_with(connection, strategy.signal_type, told), False


def _means(strategy: Strategy[Any], signal: SignalRow, params: Params) -> bool:
    """Whether a registered signal has these parameters; one that cannot be read has none."""
    try:
        return strategy.parse(signal.params) == params
    except InvalidInput:
        return False


@patient
def optimize_on_demand(
    workspace: Workspace,
    source: BarSource | ExternalReader,
    *,
    strategy: str,
    params: Mapping[str, Any],
    symbol: str,
    tf: str,
    asked: Asked,
    metric: str,
    most: int,
) -> Exploration:
    """Bring the features up to date, and trade every combination of parameters in the window.

    Every combination is entered in the ledger of trials.

    Args:
        metric: by which combinations are ranked.
        most: combinations that are not too many.

    Raises:
        UnknownName, InvalidInput: as `exploration.explore`.
        BacktestError: where no features can be had, and why.
    """
    require_window(asked.window)
    block = fresh_features(workspace, source, [symbol], tf)
    return sweep(
        block.panel,
        strategy,
        params,
        asked,
        metric=metric,
        max_combinations=most,
        workspace=workspace,
        progress=workspace.progress,
        tried_by="service",
    )


@patient
def portfolio_on_demand(
    workspace: Workspace, runs: Sequence[Mapping[str, Any]], config: RollupConfig
) -> Mapping[str, Any]:
    """Spread capital over stored runs of one signal at one timeframe, and store the portfolio.

    It stands beside those of the rollups and never takes their place.

    Args:
        runs: as `storage.runs.runs_by_id` gives them; weights of the config are in their order.
        config: with one scheme.

    Returns:
        The portfolio's row, as `storage.portfolios.stored_portfolio` gives it.
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
) -> PanelBlock:
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
        for report in refresh_features(workspace, source, partitions):
            require_stored(report)
    block = load_block(workspace, "features", name, symbols, SNAPSHOT_COLUMNS)
    for symbol in symbols:
        if symbol not in block.inputs:
            raise BacktestError(
                f"{Partition(symbol, name)}: no features are stored; refresh cmc_features first"
            )
    return block


def require_several(symbols: Sequence[str]) -> None:
    """Raises BadSymbols where these are fewer than two, or one is there twice."""
    if len(set(symbols)) < len(symbols):
        twice = next(s for s in symbols if symbols.count(s) > 1)
        raise BadSymbols(f"a portfolio holds each asset once, and {twice} is there twice")
    if len(symbols) < 2:
        raise BadSymbols(f"a portfolio needs two assets or more, not {len(symbols)}")
