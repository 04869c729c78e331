"""Choices by name that specs offer, without what computes them."""

from __future__ import annotations

from typing import Literal, get_args

from backtest_pipeline.market.errors import UnknownName

Mode = Literal["rolling", "expanding", "anchored"]
"""How a walk-forward's training windows follow each other."""
Method = Literal["auto", "grid", "random", "tpe"]
"""How parameters are searched."""
Rebalance = Literal["weekly", "monthly", "quarterly"]
"""When a portfolio's weights are set anew."""


def mode_of(name: str) -> Mode:
    """The mode of this name; raises UnknownName where there is none."""
    for mode in get_args(Mode):
        if name == mode:
            return mode
    raise UnknownName("walk-forward mode", name, get_args(Mode))


def method_of(name: str) -> Method:
    """The search method of this name; raises UnknownName where there is none."""
    for method in get_args(Method):
        if name == method:
            return method
    raise UnknownName("search method", name, get_args(Method))
