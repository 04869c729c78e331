"""Specs that would fail whatever the store and the bars hold, told before either is opened."""

from __future__ import annotations

from typing import Any

from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.given_rules import strategies_for
from backtest_pipeline.pipeline.runs.identity import Window
from backtest_pipeline.pipeline.specs import (
    CrossSectionSpec,
    ExecutableSpec,
    PortfolioSpec,
    StrategySpec,
    SweepSpec,
    WalkForwardSpec,
)
from backtest_pipeline.pipeline.use_cases.backtest import require_one_strategy
from backtest_pipeline.pipeline.use_cases.cross_section import rule_of_spec
from backtest_pipeline.pipeline.use_cases.spec_terms import (
    combinations_allowed,
    plan_of,
    rollup_config,
)
from backtest_pipeline.pipeline.use_cases.sweep import require_metric
from backtest_pipeline.research.validation.efficiency import WFO_THRESHOLD
from backtest_pipeline.strategies.grid import parameter_grid, parameter_space
from backtest_pipeline.strategies.registry import DEFAULT_STRATEGY, strategy_of
from backtest_pipeline.strategies.strategy import Strategy


def require_sound(spec: ExecutableSpec, most_combinations: int) -> None:
    """Raise UnknownName or InvalidInput for a spec that would fail whatever the bars are.

    Args:
        spec: the spec; of a preset only the name is known, which is not looked up.
        most_combinations: maximum size of a sweep's grid.
    """
    timeframe(spec.timeframe)
    Window(spec.start, spec.end)
    spec.config()
    if isinstance(spec, CrossSectionSpec):
        rule_of_spec(spec)
        return
    with strategies_for(spec) as named:
        _require_strategy(named, most_combinations)
    if isinstance(spec, PortfolioSpec):
        rollup_config(spec)


def _require_strategy(spec: StrategySpec, most_combinations: int) -> None:
    """Raise for a strategy that is unknown, or whose parameters are refused."""
    if isinstance(spec, SweepSpec):
        require_metric(spec.metric)
        most = combinations_allowed(spec, most_combinations)
        parameter_grid(_strategy_of(spec), spec.params, most)
    elif isinstance(spec, WalkForwardSpec):
        parameter_space(_strategy_of(spec), spec.params)
        plan_of(spec, most_combinations, WFO_THRESHOLD)
    else:
        require_one_strategy(spec)
        if spec.preset is None:
            _strategy_of(spec).parse(spec.params)


def _strategy_of(spec: StrategySpec) -> Strategy[Any]:
    return strategy_of(spec.strategy or DEFAULT_STRATEGY)
