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
        generate_signals,
        load_bars,
        load_features,
        load_signals,
        run_backtest,
    )
    from backtest_pipeline.simulation.costs import CostModel
    from backtest_pipeline.simulation.many import BookSimulation, simulate_book
    from backtest_pipeline.simulation.single import SimulationResult, compute_metrics, simulate
    from backtest_pipeline.simulation.sizing import (
        AtrRisk,
        EqualWeight,
        FixedFractional,
        VolatilityScaled,
    )
    from backtest_pipeline.simulation.stops import StopRules

_HOMES = {
    "BacktestError": "market.errors",
    "CostModel": "simulation.costs",
    "AtrRisk": "simulation.sizing",
    "EqualWeight": "simulation.sizing",
    "FixedFractional": "simulation.sizing",
    "SimulationResult": "simulation.single",
    "build_features": "pipeline.api",
    "generate_signals": "pipeline.api",
    "load_bars": "pipeline.api",
    "load_features": "pipeline.api",
    "load_signals": "pipeline.api",
    "run_backtest": "pipeline.api",
    "BookSimulation": "simulation.many",
    "compute_metrics": "simulation.single",
    "simulate": "simulation.single",
    "simulate_book": "simulation.many",
    "StopRules": "simulation.stops",
    "VolatilityScaled": "simulation.sizing",
}

__all__ = [
    "AtrRisk",
    "BacktestError",
    "BookSimulation",
    "CostModel",
    "EqualWeight",
    "FixedFractional",
    "SimulationResult",
    "StopRules",
    "VolatilityScaled",
    "build_features",
    "compute_metrics",
    "generate_signals",
    "load_bars",
    "load_features",
    "load_signals",
    "run_backtest",
    "simulate",
    "simulate_book",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
