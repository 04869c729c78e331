"""Which columns of a user's own a strategy reads under any of the values that it chooses from."""

from __future__ import annotations

from typing import Any

import pytest

from backtest_pipeline.market.errors import GridTooLarge, InvalidInput
from backtest_pipeline.pipeline.runs.own_columns import own_columns_read
from backtest_pipeline.strategies.rules import from_toml

RULES = b"""
name = "ranked"
long_entry = "x > bound if on else close > open"
require = ["fast < slow"]
[params]
fast = { default = 5, min = 1, max = 500 }
slow = { default = 20, min = 2, max = 500 }
bound = 0.5
on = true
[define]
x = "rank_pct(ema(fast) - ema(slow))"
"""
STRATEGY = from_toml(RULES, "ranked.toml")


def _ranked(*periods: tuple[int, int]) -> tuple[str, ...]:
    return tuple(sorted(f"rank_pct(ema_{fast} - ema_{slow})" for fast, slow in periods))


@pytest.mark.parametrize(
    ("params", "read"),
    [
        ({}, _ranked((5, 20))),
        ({"fast": 7}, _ranked((7, 20))),
        ({"on": False}, ()),
        ({"bound": [0.1, 0.2]}, _ranked((5, 20))),
        ({"fast": [5, 8], "slow": [20, 30]}, _ranked((5, 20), (5, 30), (8, 20), (8, 30))),
        ({"fast": [30, 60], "slow": [20, 50]}, _ranked((30, 50))),  # others make no sense
        ({"on": [False, True], "fast": [5, 8]}, _ranked((5, 20), (8, 20))),
    ],
)
def test_all_combinations_that_decide_what_is_read_are_looked_at(
    params: dict[str, Any], read: tuple[str, ...]
) -> None:
    assert own_columns_read(STRATEGY, params) == read


def test_too_many_combinations_are_refused_and_others_pass() -> None:
    many = {"fast": list(range(1, 200)), "slow": list(range(201, 400))}
    with pytest.raises(GridTooLarge, match=r"fast, slow decide .* 39,601 combinations"):
        own_columns_read(STRATEGY, many)
    assert own_columns_read(STRATEGY, {**many, "on": False}) == ()
    with pytest.raises(InvalidInput, match="fast < slow"):
        own_columns_read(STRATEGY, {"fast": 30})
