"""One file per strategy: features to entries and exits, pure.

A strategy sees the features of a panel and its parameters, and answers with boolean arrays as
long as the panel: what it wants at the close of each bar, using nothing after that bar and
nothing of another asset. It does no I/O and knows neither money nor costs. A new strategy is
one file here (found by its `STRATEGY`) and one row in `dim_signals`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backtest_pipeline.strategies.own.per_asset import per_asset
    from backtest_pipeline.strategies.strategy import Params, Strategy
    from backtest_pipeline.trading.conditions import Conditions
    from backtest_pipeline.trading.sizing import (
        AtrRisk,
        ByExpression,
        EqualWeight,
        FixedFractional,
        VolatilityScaled,
    )
    from backtest_pipeline.trading.stops import StopRules

# What a strategy of a user's own imports; each is loaded when it is first used.
_HOMES = {
    "AtrRisk": "trading.sizing",
    "ByExpression": "trading.sizing",
    "Conditions": "trading.conditions",
    "EqualWeight": "trading.sizing",
    "FixedFractional": "trading.sizing",
    "Params": "strategies.strategy",
    "StopRules": "trading.stops",
    "Strategy": "strategies.strategy",
    "VolatilityScaled": "trading.sizing",
    "per_asset": "strategies.own.per_asset",
}

__all__ = [
    "AtrRisk",
    "ByExpression",
    "Conditions",
    "EqualWeight",
    "FixedFractional",
    "Params",
    "StopRules",
    "Strategy",
    "VolatilityScaled",
    "per_asset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"backtest_pipeline.{_HOMES[name]}"), name)
