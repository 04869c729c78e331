"""The strategies that there are: every module of this room that has a `STRATEGY`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import backtest_pipeline.strategies as room
from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.strategies.base import Strategy
from backtest_pipeline.strategies.code import code_hash

_CONTRACT = ("base",)
"""What every strategy is made of; `SIGNALS_VERSION` says when its numbers change."""


@cache
def strategies() -> dict[str, Strategy[Any]]:
    """All strategies by their signal type."""
    return {name: module.STRATEGY for name, module in _modules().items()}


@cache
def _modules() -> dict[str, ModuleType]:
    modules = [
        import_module(f"{room.__name__}.{found.name}") for found in iter_modules(room.__path__)
    ]
    found = [module for module in modules if hasattr(module, "STRATEGY")]
    return {module.STRATEGY.signal_type: module for module in found}


def strategy_of(signal_type: str) -> Strategy[Any]:
    """The strategy of a signal type; raises UnknownName with the nearest ones."""
    try:
        return strategies()[signal_type]
    except KeyError:
        raise UnknownName("signal type", signal_type, strategies()) from None


@cache
def strategy_hash(signal_type: str) -> str:
    """Hash of a strategy's own code; raises UnknownName as `strategy_of`."""
    strategy_of(signal_type)
    file = _modules()[signal_type].__file__
    assert file is not None  # noqa: S101  (it was imported from a file)
    return code_hash(Path(file), room.__name__, _CONTRACT)
