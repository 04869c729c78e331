"""The functions of the rule language, as they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Function:
    """How a function is written.

    Attributes:
        signature: name and arguments, for people.
        arguments: how many it takes, at least and at most.
        options: keywords, with the values that each may have.
    """

    signature: str
    arguments: tuple[int, int]
    options: Mapping[str, tuple[bool | int, ...]]


_MOST_ARGUMENTS = 10
_PRIOR = {"prior": (False, True)}
FUNCTIONS: dict[str, Function] = {
    "abs": Function("abs(x)", (1, 1), {}),
    "sqrt": Function("sqrt(x)", (1, 1), {}),
    "log": Function("log(x)", (1, 1), {}),
    "min": Function("min(x, y, ...)", (2, _MOST_ARGUMENTS), {}),
    "max": Function("max(x, y, ...)", (2, _MOST_ARGUMENTS), {}),
    "between": Function("between(x, lower, upper)", (3, 3), {}),
    "crosses_above": Function("crosses_above(x, y)", (2, 2), {}),
    "crosses_below": Function("crosses_below(x, y)", (2, 2), {}),
    "shift": Function("shift(x, n)", (2, 2), {}),
    "highest": Function("highest(x, n, prior=False)", (2, 2), _PRIOR),
    "lowest": Function("lowest(x, n, prior=False)", (2, 2), _PRIOR),
    "mean": Function("mean(x, n, prior=False)", (2, 2), _PRIOR),
    "sum": Function("sum(x, n, prior=False)", (2, 2), _PRIOR),
    "std": Function("std(x, n, ddof=0 or 1, prior=False)", (2, 2), {"ddof": (0, 1), **_PRIOR}),
    "quantile": Function("quantile(x, n, q, prior=False)", (3, 3), _PRIOR),
    "ema": Function("ema(n) or ema(x, n)", (1, 2), {}),
    "wilder": Function("wilder(x, n)", (2, 2), {}),
    "rsi": Function("rsi(n)", (1, 1), {}),
    "atr": Function("atr(n)", (1, 1), {}),
    "at": Function("at('1W', x)", (2, 2), {}),
    "rank_pct": Function("rank_pct(x)", (1, 1), {}),
}
"""All functions of the language."""
