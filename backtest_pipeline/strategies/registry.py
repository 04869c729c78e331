"""The strategies that there are: every module of this room that has a `STRATEGY`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import backtest_pipeline.strategies as room
from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.strategies.base import Strategy


@cache
def strategies() -> dict[str, Strategy[Any]]:
    """All strategies by their signal type."""
    modules = [
        import_module(f"{room.__name__}.{found.name}") for found in iter_modules(room.__path__)
    ]
    found = [module.STRATEGY for module in modules if hasattr(module, "STRATEGY")]
    return {strategy.signal_type: strategy for strategy in found}


def strategy_of(signal_type: str) -> Strategy[Any]:
    """The strategy of a signal type; raises UnknownName with the nearest ones."""
    try:
        return strategies()[signal_type]
    except KeyError:
        raise UnknownName("signal type", signal_type, strategies()) from None
