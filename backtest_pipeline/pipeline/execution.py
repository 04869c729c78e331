"""Executes specs: the single entry point of Python, the command line, service, jobs and Dagster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.given_rules import strategies_for
from backtest_pipeline.pipeline.monitoring.counters import EXTERNAL, Kind, Tally, counted
from backtest_pipeline.pipeline.result_rows import (
    cross_section_result,
    portfolio_result,
    robustness_result,
    run_result,
    sweep_result,
    walk_forward_result,
)
from backtest_pipeline.pipeline.results import (
    Declaration,
    PortfolioResult,
    Result,
    RobustnessResult,
    RunResult,
    SweepResult,
    WalkForwardResult,
)
from backtest_pipeline.pipeline.specs import (
    CrossSectionSpec,
    ExecutableSpec,
    PortfolioSpec,
    RobustnessSpec,
    RunSpec,
    StrategySpec,
    SweepSpec,
    WalkForwardSpec,
)
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_batch import space_of
from backtest_pipeline.pipeline.use_cases.backtest import (
    backtest,
    named_by_spec,
    portfolio_on_demand,
    shared_by,
    sweep_on_demand,
)
from backtest_pipeline.pipeline.use_cases.cross_section import run_cross_section
from backtest_pipeline.pipeline.use_cases.declaration import declare_walk_forward
from backtest_pipeline.pipeline.use_cases.robustness import assess_run
from backtest_pipeline.pipeline.use_cases.spec_sources import Source, source_for
from backtest_pipeline.pipeline.use_cases.spec_terms import (
    combinations_allowed,
    plan_of,
    rollup_config,
)
from backtest_pipeline.pipeline.use_cases.stored import (
    stored_portfolio_of,
    stored_runs,
    stored_walk_forward,
)
from backtest_pipeline.pipeline.use_cases.sweep import Exploration
from backtest_pipeline.pipeline.use_cases.walk_forward import (
    Prepared,
    prepare_walk_forward,
    run_walk_forward,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.sources.base import require_known
from backtest_pipeline.sources.choose import exchange_of
from backtest_pipeline.storage.run_tables.run_search import note_request
from backtest_pipeline.storage.settings import Settings
from backtest_pipeline.storage.tables.dimensions import known_symbols
from backtest_pipeline.strategies.registry import DEFAULT_STRATEGY, is_own_python, strategy_of


def execute(
    workspace: Workspace,
    settings: Settings,
    spec: ExecutableSpec | RobustnessSpec,
    user: str = "",
    *,
    bars: str = "",
    rebuild: bool = False,
) -> Result:
    """Compute a spec and store the result; a result that is already stored is returned.

    Args:
        workspace: the open store.
        settings: settings of this process.
        spec: the spec to execute.
        user: name of the caller, recorded with the runs; empty for none.
        bars: file, folder or exchange such as `binance:1h`, in place of the store's source.
        rebuild: recompute even what has not changed.

    Raises:
        BacktestError: with the error code; market/errors.py lists them all.
    """
    if isinstance(spec, CrossSectionSpec):
        ran = run_cross_section(workspace, settings, spec, user, bars=bars, rebuild=rebuild)
        return cross_section_result(workspace, ran)
    with _counted(workspace, settings, spec, bars) as tally, strategies_for(spec) as spec:
        source = source_for(workspace, settings, spec, bars)
        result = None if rebuild else _stored(workspace, settings, spec, source)
        if result is None:
            result = _EXECUTORS[type(spec)](workspace, settings, spec, source, rebuild)
        _note_request(workspace, result, user)
        if isinstance(result, SweepResult):
            tally.combinations = result.n_combinations
        if isinstance(result, WalkForwardResult):
            tally.overfit = int(result.verdict == "overfit")
    return result


def look_up(
    workspace: Workspace, settings: Settings, spec: StrategySpec, user: str = ""
) -> Result | None:
    """The stored result of a spec, where `execute` would return it without computing; else None.

    Only results of a single run without bands, of a walk-forward and of a portfolio are looked up,
    and only where no Python of a user's own would run for it, which may take any time. Of a sweep
    only the best run is stored. Arguments as those of `execute`.

    Raises:
        BacktestError: as `execute`, for a spec that it refuses.
    """
    with _counted(workspace, settings, spec) as tally, strategies_for(spec) as spec:
        result = None
        if not _runs_own_python(workspace, spec):
            result = _stored(workspace, settings, spec, source_for(workspace, settings, spec))
        tally.is_counted = result is not None
        if result is not None:
            _note_request(workspace, result, user)
    return result


def _runs_own_python(workspace: Workspace, spec: StrategySpec) -> bool:
    if isinstance(spec, RunSpec | PortfolioSpec):
        return is_own_python(named_by_spec(workspace, spec)[0].name)
    return is_own_python(spec.strategy)


def _stored(
    workspace: Workspace,
    settings: Settings,
    spec: StrategySpec | RobustnessSpec,
    source: Source,
) -> Result | None:
    if type(spec) is RunSpec and not spec.bands:
        rows = stored_runs(workspace, source, spec, [spec.symbol])
        return run_result(workspace, rows[0], spec) if rows else None
    if isinstance(spec, PortfolioSpec):
        config = rollup_config(spec)
        rows = stored_runs(workspace, source, spec, sorted(spec.symbols))
        portfolio = stored_portfolio_of(workspace, rows, config) if rows else None
        return portfolio_result(portfolio, rows) if rows and portfolio else None
    if isinstance(spec, WalkForwardSpec):
        row = stored_walk_forward(workspace, source, spec, _plan(spec, settings))
        return walk_forward_result(workspace, row, spec) if row else None
    return None


def _counted(
    workspace: Workspace,
    settings: Settings,
    spec: StrategySpec | RobustnessSpec,
    bars: str = "",
) -> AbstractContextManager[Tally]:
    is_built = workspace.external is None
    exchange = exchange_of(spec.exchange or bars or settings.bars) if is_built else EXTERNAL
    counted_as: Kind = "run" if spec.kind == "robustness" else spec.kind
    return counted(workspace, counted_as, exchange=exchange, timeframe=spec.timeframe)


def _note_request(workspace: Workspace, result: Result, user: str) -> None:
    if user:
        with workspace.database.begin() as connection:
            note_request(connection, result.run_ids, user)


def _run(
    workspace: Workspace, _: Settings, spec: RunSpec, source: Source, rebuild: bool
) -> RunResult:
    (row,) = backtest(workspace, source, spec, [spec.symbol], rebuild=rebuild).runs
    return run_result(workspace, row, spec)


def _robustness(
    workspace: Workspace, _: Settings, spec: RobustnessSpec, source: Source, rebuild: bool
) -> RobustnessResult:
    made = backtest(workspace, source, spec, [spec.symbol], rebuild=rebuild)
    row = assess_run(workspace, made, spec.draws, spec.seed, rebuild=rebuild)
    return robustness_result(workspace, made.runs[0], spec, row)


def _walk_forward(
    workspace: Workspace, settings: Settings, spec: WalkForwardSpec, source: Source, rebuild: bool
) -> WalkForwardResult:
    prepared = prepare(workspace, settings, spec, source, rebuild=rebuild)
    row = run_walk_forward(
        workspace,
        prepared,
        strategy=spec.strategy,
        params=spec.params,
        terms=shared_by(workspace, spec),
        plan=_plan(spec, settings),
        rebuild=rebuild,
    )
    return walk_forward_result(workspace, row, spec)


def prepare(
    workspace: Workspace,
    settings: Settings,
    spec: WalkForwardSpec,
    source: Source,
    *,
    rebuild: bool = False,
) -> Prepared:
    """Refresh the features of a walk-forward, and lay out its folds."""
    return prepare_walk_forward(
        workspace,
        source,
        asset=spec.symbol,
        tf=spec.timeframe,
        terms=shared_by(workspace, spec),
        schedule=_plan(spec, settings).schedule,
        rebuild=rebuild,
    )


def declare(
    workspace: Workspace, settings: Settings, spec: WalkForwardSpec, *, bars: str = ""
) -> Declaration:
    """Declare a walk-forward before the first trial of its strategy on its symbol and timeframe.

    Raises:
        UnknownName, InvalidInput: for an invalid spec, or where the strategy was tried before.
    """
    plan, terms = _plan(spec, settings), shared_by(workspace, spec)
    partition = Partition(spec.symbol, timeframe(spec.timeframe).name)
    source = source_for(workspace, settings, spec, bars)
    with workspace.database.begin() as connection:
        require_known([spec.symbol], (*source.symbols(), *known_symbols(connection)))
    with strategies_for(spec) as spec:
        space = space_of(strategy_of(spec.strategy or DEFAULT_STRATEGY).name, spec.params)
        return declare_walk_forward(workspace, partition, space, plan, terms)


def _sweep(
    workspace: Workspace, settings: Settings, spec: SweepSpec, source: Source, rebuild: bool
) -> SweepResult:
    return swept(workspace, settings, spec, source, rebuild=rebuild)[0]


def swept(
    workspace: Workspace,
    settings: Settings,
    spec: SweepSpec,
    source: Source,
    *,
    rebuild: bool = False,
) -> tuple[SweepResult, Exploration]:
    """Run a sweep and store its best combination as a run; also returns the data of its page."""
    most = combinations_allowed(spec, settings.optimizer_max_combinations)
    exploration = sweep_on_demand(workspace, source, spec, most=most, rebuild=rebuild)
    common = RunSpec.model_fields.keys() & spec.model_fields_set - {"kind", "params", "strategy"}
    best = RunSpec(
        **{name: getattr(spec, name) for name in common},
        strategy=exploration.subject.strategy,
        params=exploration.best,
    )
    (row,) = backtest(workspace, source, best, [best.symbol]).runs
    return sweep_result(exploration, run_result(workspace, row, best), spec.top), exploration


def _portfolio(
    workspace: Workspace, _: Settings, spec: PortfolioSpec, source: Source, rebuild: bool
) -> PortfolioResult:
    config = rollup_config(spec)
    made = backtest(workspace, source, spec, sorted(spec.symbols), rebuild=rebuild)
    stored = portfolio_on_demand(workspace, made.runs, config, rebuild=rebuild)
    return portfolio_result(stored, made.runs)


def _plan(spec: WalkForwardSpec, settings: Settings) -> WalkForwardPlan:
    return plan_of(spec, settings.optimizer_max_combinations, settings.wfo_threshold)


_EXECUTORS: dict[type, Callable[[Workspace, Settings, Any, Source, bool], Result]] = {
    RunSpec: _run,
    RobustnessSpec: _robustness,
    WalkForwardSpec: _walk_forward,
    SweepSpec: _sweep,
    PortfolioSpec: _portfolio,
}
