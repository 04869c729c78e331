"""What a spec says of its search, its folds and its portfolio."""

from __future__ import annotations

from collections.abc import Sequence

from backtest_pipeline.market.errors import BadSymbols, GridTooLarge, InvalidInput
from backtest_pipeline.pipeline.specs import PortfolioSpec, SweepSpec, WalkForwardSpec
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.use_cases.backtest import require_several
from backtest_pipeline.research.portfolio.portfolio import FIXED
from backtest_pipeline.research.validation.optimizer import Objective, Search
from backtest_pipeline.research.validation.schedule import FixedDates, Schedule


def combinations_allowed(spec: WalkForwardSpec | SweepSpec, most: int) -> int:
    """The maximum number of combinations of a spec; raises GridTooLarge for more than `most`."""
    if spec.max_combinations is not None and spec.max_combinations > most:
        raise GridTooLarge(
            f"max_combinations is {spec.max_combinations:,}, but at most {most:,} are allowed "
            "here; lower it, or raise BACKTEST_OPTIMIZER_MAX_COMBINATIONS"
        )
    return spec.max_combinations or most


def plan_of(spec: WalkForwardSpec, most: int, threshold: float) -> WalkForwardPlan:
    """The plan of a walk-forward; raises UnknownName or InvalidInput for invalid settings."""
    schedule = (
        FixedDates(
            [tuple(day.isoformat() for day in window) for window in spec.dates],
            spec.purge_bars,
            spec.embargo,
        )
        if spec.dates
        else Schedule(
            spec.train_days,
            spec.test_days,
            spec.mode,
            spec.purge_bars,
            spec.embargo,
            spec.step_days,
        )
    )
    return WalkForwardPlan(
        schedule,
        Search(spec.search, combinations_allowed(spec, most), spec.seed),
        Objective.of(spec.objective),
        threshold,
        spec.flat_starts,
    )


def rollup_config(spec: PortfolioSpec) -> RollupConfig:
    """The settings of a portfolio; raises UnknownName or InvalidInput for invalid ones."""
    require_several(spec.symbols)
    config = spec.config()
    return RollupConfig(
        costs=config.costs,
        initial_cash=config.initial_cash,
        schemes=(spec.scheme if spec.weights is None else FIXED,),
        rebalance=spec.rebalance,
        lookback=spec.lookback,
        max_weight=spec.max_weight,
        risk_free=config.risk_free,
        weights=_weights(spec, sorted(spec.symbols)),
    )


def _weights(spec: PortfolioSpec, symbols: Sequence[str]) -> tuple[float, ...]:
    if spec.weights is None:
        return ()
    if spec.scheme != "equal_weight" or spec.max_weight != 1.0:
        raise InvalidInput(
            "fixed weights cannot be combined with scheme or max_weight: give either the weights "
            "or the scheme"
        )
    unmatched = sorted(set(spec.weights) ^ set(symbols))
    if unmatched:
        raise BadSymbols(
            f"symbols and weights do not match: {', '.join(unmatched)} is in only one of them; "
            "give one weight per symbol"
        )
    return tuple(spec.weights[symbol] for symbol in symbols)
