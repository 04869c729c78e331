"""How questions are answered: the use case of each kind, and its result in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from backtest_pipeline.market.errors import BadSymbols, InvalidInput, RunNotFound
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.answers import (
    Answer,
    BacktestAnswer,
    Combination,
    Fold,
    Member,
    Metrics,
    OptimizeAnswer,
    PortfolioAnswer,
    WalkForwardAnswer,
)
from backtest_pipeline.pipeline.counting import EXTERNAL, counted
from backtest_pipeline.pipeline.exploration import Exploration
from backtest_pipeline.pipeline.external import ExternalReader
from backtest_pipeline.pipeline.folds import Plan
from backtest_pipeline.pipeline.on_demand import (
    backtest_on_demand,
    optimize_on_demand,
    portfolio_on_demand,
    require_several,
)
from backtest_pipeline.pipeline.portfolios import RollupConfig
from backtest_pipeline.pipeline.questions import (
    Assumptions,
    BacktestQuestion,
    OptimizeQuestion,
    PortfolioQuestion,
    WalkForwardQuestion,
)
from backtest_pipeline.pipeline.walking import prepare_walk, walk_once
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.report.exploration import parameters
from backtest_pipeline.research.optimizer import Objective, Search
from backtest_pipeline.research.portfolio import FIXED
from backtest_pipeline.research.schedule import Schedule
from backtest_pipeline.simulation.metrics import FAMILY_METRICS, METRIC_NAMES
from backtest_pipeline.sources.base import BarSource
from backtest_pipeline.sources.choose import choose_source, exchange_of
from backtest_pipeline.storage.portfolios import stored_portfolio
from backtest_pipeline.storage.results import note_request
from backtest_pipeline.storage.runs import runs_by_id
from backtest_pipeline.storage.settings import Settings, exchange_access

_MINUTES = {"1m", "5m", "15m", "30m"}
Answerable = BacktestQuestion | WalkForwardQuestion | OptimizeQuestion | PortfolioQuestion


def answer(workspace: Workspace, settings: Settings, question: Answerable, user: str) -> Answer:
    """Compute and store what is asked, or find it where it is stored.

    Args:
        user: who asks; recorded with the runs.

    Raises:
        BacktestError: with the code of the problem; market/errors.py has them all.
    """
    is_built = workspace.external is None
    exchange = exchange_of(question.exchange or settings.bars) if is_built else EXTERNAL
    with counted(
        workspace, question.kind, exchange=exchange, timeframe=question.timeframe
    ) as tally:
        found = _ANSWERS[type(question)](workspace, settings, question)
        with workspace.database.begin() as connection:
            note_request(connection, found.run_ids, user)
        if isinstance(found, OptimizeAnswer):
            tally.combinations = found.n_combinations
        if isinstance(found, WalkForwardAnswer):
            tally.overfit = int(found.verdict == "overfit")
    return found


def _backtest(
    workspace: Workspace, settings: Settings, question: BacktestQuestion
) -> BacktestAnswer:
    (run,) = backtest_on_demand(
        workspace,
        _source(workspace, settings, question, question.timeframe, [question.symbol]),
        strategy=question.strategy,
        params=question.params,
        symbols=[question.symbol],
        tf=question.timeframe,
        asked=question.asked(question.benchmark),
    )
    return BacktestAnswer(**_told(run))


def _walk_forward(
    workspace: Workspace, settings: Settings, question: WalkForwardQuestion
) -> WalkForwardAnswer:
    plan = walk_plan(question, settings.optimizer_max_combinations, settings.wfo_threshold)
    asked = question.asked()
    prepared = prepare_walk(
        workspace,
        _source(workspace, settings, question, question.timeframe, [question.symbol]),
        asset=question.symbol,
        tf=question.timeframe,
        asked=asked,
        schedule=plan.schedule,
    )
    row = walk_once(
        workspace,
        prepared,
        signal=question.strategy,
        params=question.params,
        asked=asked,
        plan=plan,
    )
    return WalkForwardAnswer(
        **_told(row),
        **{name: row[name] for name in ("verdict", "reason", "threshold", "n_judged")},
        **{name: row[name] for name in ("efficiency", "train_sharpe", "test_sharpe")},
        folds=[_fold(fold) for fold in row["folds"]],
    )


def _optimize(
    workspace: Workspace, settings: Settings, question: OptimizeQuestion
) -> OptimizeAnswer:
    source = _source(workspace, settings, question, question.timeframe, [question.symbol])
    asked = question.asked()
    found = optimize_on_demand(
        workspace,
        source,
        strategy=question.strategy,
        params=question.params,
        symbol=question.symbol,
        tf=question.timeframe,
        asked=asked,
        metric=question.metric,
        most=settings.optimizer_max_combinations,
    )
    (run,) = backtest_on_demand(
        workspace,
        source,
        strategy=found.subject.signal_type,
        params=found.best,
        symbols=[question.symbol],
        tf=question.timeframe,
        asked=asked,
    )
    return OptimizeAnswer(
        strategy=found.subject.signal_type,
        symbol=question.symbol,
        timeframe=found.subject.timeframe,
        n_bars=found.subject.n_bars,
        metric=found.metric,
        n_combinations=len(found.table),
        left_out=found.left_out,
        ranked=_ranked(found, question.top),
        best_run=BacktestAnswer(**_told(run)),
        selection=_known(
            {
                name: getattr(found.selection, name)
                for name in ("n_trials", "n_trials_effective", "psr", "dsr", "dsr_effective", "pbo")
            }
        ),
        undefined=dict(found.selection.undefined),
        warning=found.warning,
    )


def _portfolio(
    workspace: Workspace, settings: Settings, question: PortfolioQuestion
) -> PortfolioAnswer:
    config = rollup_config(question)
    symbols = sorted(question.symbols)
    asked = question.asked()
    runs = backtest_on_demand(
        workspace,
        _source(workspace, settings, question, question.timeframe, symbols),
        strategy=question.strategy,
        params=question.params,
        symbols=symbols,
        tf=question.timeframe,
        asked=asked,
    )
    return _portfolio_told(portfolio_on_demand(workspace, runs, config), runs)


def stored_portfolio_answer(workspace: Workspace, portfolio_id: UUID) -> PortfolioAnswer:
    """A portfolio that was asked for, or that a rollup formed.

    Raises:
        RunNotFound: for an id that there is not.
    """
    with workspace.database.begin() as connection:
        stored = stored_portfolio(connection, portfolio_id)
        if stored is None:
            raise RunNotFound(f"there is no portfolio {portfolio_id}; asking again forms it")
        runs = runs_by_id(connection, stored["member_run_ids"])
    return _portfolio_told(stored, list(runs.values()))


def _portfolio_told(
    stored: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]
) -> PortfolioAnswer:
    return PortfolioAnswer(
        portfolio_id=stored["run_id"],
        strategy=runs[0]["signal_type"] if runs else stored["signal_name"],
        signal=stored["signal_name"],
        timeframe=stored["tf"],
        members=[
            Member(
                symbol=run["symbol"],
                run_id=run["run_id"],
                total_return=run["total_return"],
                sharpe=run["sharpe"],
            )
            for run in runs
        ],
        **{
            name: stored[name]
            for name in ("scheme", "first_ts", "last_ts", "n_rebalances", "left_out", "metrics")
        },
        **{name: stored[name] for name in ("undefined", "snapshot_id", "result_fingerprint")},
    )


def walk_plan(question: WalkForwardQuestion, most: int, threshold: float) -> Plan:
    """How a walk-forward is done; raises UnknownName, InvalidInput for what makes no sense."""
    return Plan(
        Schedule(
            question.train_days,
            question.test_days,
            question.mode,
            question.purge_bars,
            question.embargo,
            question.step_days,
        ),
        Search(question.search, most, question.seed),
        Objective.of(question.objective),
        threshold,
    )


def rollup_config(question: PortfolioQuestion) -> RollupConfig:
    """How a portfolio is formed; raises UnknownName, InvalidInput for what makes no sense."""
    require_several(question.symbols)
    asked = question.asked()
    return RollupConfig(
        costs=asked.config.costs,
        initial_cash=asked.config.initial_cash,
        schemes=(question.scheme if question.weights is None else FIXED,),
        rebalance=question.rebalance,
        lookback=question.lookback,
        max_weight=question.max_weight,
        risk_free=asked.config.risk_free,
        weights=_weights(question, sorted(question.symbols)),
    )


def _weights(question: PortfolioQuestion, symbols: Sequence[str]) -> tuple[float, ...]:
    if question.weights is None:
        return ()
    if question.scheme != "equal_weight" or question.max_weight != 1.0:
        raise InvalidInput(
            "weights are given or found: leave out scheme and max_weight beside them"
        )
    strange = sorted(set(question.weights) ^ set(symbols))
    if strange:
        raise BadSymbols(
            f"each asset of the portfolio has one weight; {', '.join(strange)} is on one side only"
        )
    return tuple(question.weights[symbol] for symbol in symbols)


def _source(
    workspace: Workspace,
    settings: Settings,
    question: Assumptions,
    tf: str,
    symbols: Sequence[str],
) -> BarSource | ExternalReader:
    """Where the bars or features of a question come from."""
    chosen = settings.model_copy(update={"use_cache": settings.use_cache and question.use_cache})
    return source_of(workspace, chosen, _exchange_bars(question.exchange, tf), symbols=symbols)


def source_of(
    workspace: Workspace, settings: Settings, bars: str = "", *, symbols: Sequence[str]
) -> BarSource | ExternalReader:
    """Bars as a source spells them, else what the store is fed from; `symbols` are wanted.

    Raises:
        ConfigurationError: for bars where features are the user's own.
    """
    chosen = settings.bars_of(bars)
    if workspace.external is not None:
        return ExternalReader(workspace)
    return choose_source(chosen, lambda: exchange_access(settings), symbols)


def _exchange_bars(exchange: str, tf: str) -> str:
    """The exchange with the longest of its intervals that the timeframe can be made of."""
    if not exchange:
        return ""
    asked = timeframe(tf)
    if asked.name in _MINUTES:
        return f"{exchange}:{asked.name}"
    return f"{exchange}:{'1h' if asked.is_intraday else '1d'}"


def _told(run: Mapping[str, Any]) -> dict[str, Any]:
    """What every answer says of a run; a row of `storage.runs.current_runs`."""
    results = run["results"]
    same = ("run_id", "symbol", "first_ts", "last_ts", "n_bars", "undefined", "snapshot_id")
    return {
        **{name: run[name] for name in same},
        "strategy": run["signal_type"],
        "signal": run["signal_name"],
        "params": run["params"],
        "timeframe": run["tf"],
        "pending": results["pending"],
        "liquidated": results["liquidated"],
        "refused_entries": results.get("refused_entries", 0),
        "metrics": {name: run[name] for name in METRIC_NAMES},
        "significance": {metric.name: run[metric.name] for metric in FAMILY_METRICS},
        "dataset_version_ids": run["dataset_version_ids"],
        "config_hash": run["config_hash"],
        "result_fingerprint": run["result_fingerprint"],
    }


def _fold(fold: Mapping[str, Any]) -> Fold:
    bounds = ("fold", "train_start", "train_end", "test_start", "test_end")
    sides = {
        side: {
            name.removeprefix(f"{side}_"): value
            for name, value in fold.items()
            if name.startswith(f"{side}_") and name not in bounds
        }
        for side in ("train", "test")
    }
    others = {name: fold[name] for name in ("params", "score", "n_combinations")}
    return Fold.model_validate({**{name: fold[name] for name in bounds}, **others, **sides})


def _ranked(found: Exploration, top: int) -> list[Combination]:
    best = found.ranked.head(top)
    return [
        Combination(params=parameters(best, i), metrics=_known(best.iloc[i].to_dict()))
        for i in range(len(best))
    ]


def _known(values: Mapping[Any, float]) -> Metrics:
    return {
        str(name): None if not math.isfinite(value) else float(value)
        for name, value in values.items()
    }


_ANSWERS: dict[type, Callable[[Workspace, Settings, Any], Answer]] = {
    BacktestQuestion: _backtest,
    WalkForwardQuestion: _walk_forward,
    OptimizeQuestion: _optimize,
    PortfolioQuestion: _portfolio,
}
