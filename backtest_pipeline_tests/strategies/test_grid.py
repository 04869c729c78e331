"""Grids of parameters: what is spanned, left out and refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.strategies.grid import parameter_grid
from backtest_pipeline.strategies.registry import strategies, strategy_of

EMA = strategy_of("ema_crossover")


@given(
    fast=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    slow=st.lists(st.integers(31, 60), min_size=1, max_size=6),
    low=st.integers(2, 40),
)
def test_a_grid_holds_each_sound_combination_once(
    fast: list[int], slow: list[int], low: int
) -> None:
    grid = parameter_grid(EMA, {"fast": fast, "slow": [*slow, low]}, 100)
    spanned = set(product(set(fast), {*slow, low}))
    sound = {(f, s) for f, s in spanned if f < s}
    assert grid.names == ("fast", "slow")
    assert len(grid) == len(sound)
    assert set(grid.combinations) == sound
    assert grid.left_out == len(spanned) - len(sound)


@pytest.mark.parametrize("name", strategies())
def test_every_strategy_has_a_grid_of_its_own(name: str) -> None:
    grid = parameter_grid(strategies()[name], {}, 1_000)
    # A strategy of one parameter sweeps along it; its page has no heat map.
    assert 1 <= len(grid.swept) <= len(strategies()[name].params_type.model_fields)
    assert len(grid) >= 50


def test_parameters_that_are_not_given_take_the_strategy_s_own_values_or_defaults() -> None:
    grid = parameter_grid(EMA, {"slow": (100,), "cooldown_bars": 3}, 1_000)
    assert grid.names == ("slow", "cooldown_bars", "fast")
    assert grid.swept == ("fast",)
    assert {c[:2] for c in grid.combinations} == {(100, 3)}


def test_numbers_of_numpy_are_numbers() -> None:
    grid = parameter_grid(EMA, {"fast": np.arange(3, 6), "slow": np.int64(9)}, 10)
    assert grid.combinations == ((3, 9), (4, 9), (5, 9))
    assert {type(value) for combination in grid.combinations for value in combination} == {int}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fast": []}, "ema_crossover: fast has no value to explore"),
        ({"fast": [50], "slow": [20, 50]}, r"none of 2 combinations makes sense: fast \(50\) must"),
        ({"fast": [0, 5]}, "fast: must be at least 1"),
        ({"fast": [2.5]}, "fast: must be a whole number"),
        ({"fast": "9"}, "fast: '9' is not a number"),
        ({"fast": [True]}, "fast: True is not a number"),
        ({"fast": [float("nan")]}, "fast must be finite, not nan"),
        ({"fast": range(1, 51), "slow": range(51, 102)}, "50 of fast x 51 of slow are 2,550"),
        ({"fast": range(1, 10**12)}, "1,000 are the limit; take larger steps, or raise max_comb"),
    ],
)
def test_values_that_cannot_be_explored_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parameter_grid(EMA, values, 1_000)


def test_an_unknown_parameter_names_its_neighbour() -> None:
    with pytest.raises(UnknownName, match="'fsat'; did you mean fast"):
        parameter_grid(EMA, {"fsat": [5, 9]}, 1_000)
