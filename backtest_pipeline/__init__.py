"""Crypto features to trusted backtests: a Dagster pipeline and its Python API.

The names below are the public API; each is imported when it is first used, so that importing the
package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtest_pipeline.market.errors import BacktestError
    from backtest_pipeline.pipeline.api import (
        build_features,
        declare_walk_forward,
        execute,
        generate_signals,
        load_bars,
        load_features,
        load_signals,
        robustness,
        run_backtest,
    )
    from backtest_pipeline.pipeline.replay.explain import Explanation, explain_diff
    from backtest_pipeline.pipeline.replay.replay import Replay, replay
    from backtest_pipeline.pipeline.results import (
        CrossSectionResult,
        Declaration,
        PortfolioResult,
        RobustnessResult,
        RunResult,
        SweepResult,
        WalkForwardResult,
    )
    from backtest_pipeline.pipeline.runs.reports.loaded_runs import LoadedRun, LoadedWalkForward
    from backtest_pipeline.pipeline.specs import (
        CrossSectionSpec,
        PortfolioSpec,
        RobustnessSpec,
        RunSpec,
        SweepSpec,
        WalkForwardSpec,
    )
    from backtest_pipeline.pipeline.stored_plans import add_plan_book, list_plans, replan_book
    from backtest_pipeline.pipeline.stored_runs import (
        CrossSectionDetail,
        compare_runs,
        export_bundle,
        get_result,
        get_run,
        list_runs,
        load_run,
        load_vectorbt,
        load_walk_forward,
    )
    from backtest_pipeline.pipeline.use_cases.sweep import Exploration, explore
    from backtest_pipeline.pipeline.use_cases.walk_forward import WalkForward, walk_forward
    from backtest_pipeline.research.robustness.robustness import Robustness
    from backtest_pipeline.research.validation.combinatorial import (
        combinatorial_paths,
        combinatorial_purged_splits,
    )
    from backtest_pipeline.research.validation.optimizer import Search
    from backtest_pipeline.research.validation.overfitting import (
        probability_of_backtest_overfitting,
    )
    from backtest_pipeline.research.validation.schedule import FixedDates, Schedule
    from backtest_pipeline.research.validation.splits import fixed_date_splits, walk_forward_splits
    from backtest_pipeline.simulation.metrics.significance import (
        deflated_sharpe_ratio,
        probabilistic_sharpe_ratio,
    )
    from backtest_pipeline.simulation.pandas_objects.many import BookSimulation, simulate_book
    from backtest_pipeline.simulation.pandas_objects.single import (
        SimulationResult,
        compute_metrics,
        simulate,
    )
    from backtest_pipeline.storage.run_tables.run_search import RunFilter
    from backtest_pipeline.strategies.cross_section.definition import CrossSection
    from backtest_pipeline.trading.costs import CostModel
    from backtest_pipeline.trading.sizing import (
        AtrRisk,
        ByExpression,
        EqualWeight,
        FixedFractional,
        VolatilityScaled,
    )
    from backtest_pipeline.trading.stops import StopRules

_HOMES = {
    "RunSpec": "pipeline.specs",
    "WalkForwardSpec": "pipeline.specs",
    "SweepSpec": "pipeline.specs",
    "PortfolioSpec": "pipeline.specs",
    "RobustnessSpec": "pipeline.specs",
    "RunResult": "pipeline.results",
    "WalkForwardResult": "pipeline.results",
    "SweepResult": "pipeline.results",
    "PortfolioResult": "pipeline.results",
    "RobustnessResult": "pipeline.results",
    "CrossSection": "strategies.cross_section.definition",
    "CrossSectionDetail": "pipeline.stored_runs",
    "CrossSectionResult": "pipeline.results",
    "CrossSectionSpec": "pipeline.specs",
    "Declaration": "pipeline.results",
    "declare_walk_forward": "pipeline.api",
    "execute": "pipeline.api",
    "AtrRisk": "trading.sizing",
    "BacktestError": "market.errors",
    "BookSimulation": "simulation.pandas_objects.many",
    "ByExpression": "trading.sizing",
    "CostModel": "trading.costs",
    "EqualWeight": "trading.sizing",
    "Explanation": "pipeline.replay.explain",
    "Exploration": "pipeline.use_cases.sweep",
    "FixedDates": "research.validation.schedule",
    "FixedFractional": "trading.sizing",
    "Replay": "pipeline.replay.replay",
    "Schedule": "research.validation.schedule",
    "Search": "research.validation.optimizer",
    "SimulationResult": "simulation.pandas_objects.single",
    "StopRules": "trading.stops",
    "VolatilityScaled": "trading.sizing",
    "add_plan_book": "pipeline.stored_plans",
    "build_features": "pipeline.api",
    "combinatorial_paths": "research.validation.combinatorial",
    "combinatorial_purged_splits": "research.validation.combinatorial",
    "compare_runs": "pipeline.stored_runs",
    "compute_metrics": "simulation.pandas_objects.single",
    "deflated_sharpe_ratio": "simulation.metrics.significance",
    "export_bundle": "pipeline.stored_runs",
    "get_result": "pipeline.stored_runs",
    "get_run": "pipeline.stored_runs",
    "list_plans": "pipeline.stored_plans",
    "list_runs": "pipeline.stored_runs",
    "load_vectorbt": "pipeline.stored_runs",
    "load_run": "pipeline.stored_runs",
    "load_walk_forward": "pipeline.stored_runs",
    "LoadedRun": "pipeline.runs.reports.loaded_runs",
    "LoadedWalkForward": "pipeline.runs.reports.loaded_runs",
    "RunFilter": "storage.run_tables.run_search",
    "explain_diff": "pipeline.replay.explain",
    "explore": "pipeline.use_cases.sweep",
    "fixed_date_splits": "research.validation.splits",
    "generate_signals": "pipeline.api",
    "load_bars": "pipeline.api",
    "load_features": "pipeline.api",
    "load_signals": "pipeline.api",
    "probabilistic_sharpe_ratio": "simulation.metrics.significance",
    "probability_of_backtest_overfitting": "research.validation.overfitting",
    "Robustness": "research.robustness.robustness",
    "replan_book": "pipeline.stored_plans",
    "replay": "pipeline.replay.replay",
    "robustness": "pipeline.api",
    "run_backtest": "pipeline.api",
    "simulate": "simulation.pandas_objects.single",
    "simulate_book": "simulation.pandas_objects.many",
    "WalkForward": "pipeline.use_cases.walk_forward",
    "walk_forward": "pipeline.use_cases.walk_forward",
    "walk_forward_splits": "research.validation.splits",
}

__all__ = [
    "AtrRisk",
    "BacktestError",
    "BookSimulation",
    "ByExpression",
    "CostModel",
    "CrossSection",
    "CrossSectionDetail",
    "CrossSectionResult",
    "CrossSectionSpec",
    "Declaration",
    "EqualWeight",
    "Explanation",
    "Exploration",
    "FixedDates",
    "FixedFractional",
    "LoadedRun",
    "LoadedWalkForward",
    "PortfolioResult",
    "PortfolioSpec",
    "Replay",
    "Robustness",
    "RobustnessResult",
    "RobustnessSpec",
    "RunFilter",
    "RunResult",
    "RunSpec",
    "Schedule",
    "Search",
    "SimulationResult",
    "StopRules",
    "SweepResult",
    "SweepSpec",
    "VolatilityScaled",
    "WalkForward",
    "WalkForwardResult",
    "WalkForwardSpec",
    "add_plan_book",
    "build_features",
    "combinatorial_paths",
    "combinatorial_purged_splits",
    "compare_runs",
    "compute_metrics",
    "declare_walk_forward",
    "deflated_sharpe_ratio",
    "execute",
    "explain_diff",
    "explore",
    "export_bundle",
    "fixed_date_splits",
    "generate_signals",
    "get_result",
    "get_run",
    "list_plans",
    "list_runs",
    "load_bars",
    "load_features",
    "load_run",
    "load_signals",
    "load_vectorbt",
    "load_walk_forward",
    "probabilistic_sharpe_ratio",
    "probability_of_backtest_overfitting",
    "replan_book",
    "replay",
    "robustness",
    "run_backtest",
    "simulate",
    "simulate_book",
    "walk_forward",
    "walk_forward_splits",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
