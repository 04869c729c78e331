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
    from backtest_pipeline.trading.stops import StopRules

# What a strategy of a user's own imports; each is loaded when it is first used.
_HOMES = {
    "Conditions": "trading.conditions",
    "Params": "strategies.strategy",
    "StopRules": "trading.stops",
    "Strategy": "strategies.strategy",
    "per_asset": "strategies.own.per_asset",
}

__all__ = ["Conditions", "Params", "StopRules", "Strategy", "per_asset"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"backtest_pipeline.{_HOMES[name]}"), name)
