"""Whether the best of a sweep stands alone."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.research.robustness.neighbourhood import (
    LOWER_IS_BETTER,
    Shape,
    best_first,
    neighbourhood,
)
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES

NAN = float("nan")


def swept(values: list[list[float]], name: str = "sharpe") -> pd.Series:
    """A metric by slow (rows: 20, 50, 200, ...) and fast (columns: 5, 9, 21, ...)."""
    slow, fast = (20, 50, 200, 210, 250)[: len(values)], (5, 9, 21, 22, 30)[: len(values[0])]
    index = pd.MultiIndex.from_product([slow, fast], names=["slow", "fast"])
    return pd.Series(np.ravel(values), index, name=name)


FLANK = [
    [0.0, 0.1, 0.2, 0.1, 0.0],
    [0.1, 0.8, 0.9, 0.7, 0.0],
    [0.1, 0.8, 1.0, 0.8, 0.0],
    [0.1, 0.7, 0.9, 0.8, 0.0],
]
PEAK = [[0.4, 0.5, 0.4, 0.5], [0.4, 0.0, 0.1, 0.0], [0.5, 0.1, 2.0, 0.0], [0.5, 0.0, 0.0, 0.1]]


def test_a_plateau_is_where_even_the_worst_neighbour_beats_the_median() -> None:
    found = neighbourhood(swept(FLANK))
    assert found.best == 12
    assert set(found.neighbours) == {6, 7, 8, 11, 13, 16, 17, 18}
    assert (found.median, found.worst) == (0.8, 0.7)
    assert found.shape is Shape.PLATEAU
    assert found.rank == pytest.approx(17 / 19)  # all but the two of 0.9


def test_a_lone_peak_is_where_the_neighbours_do_not_beat_the_median() -> None:
    found = neighbourhood(swept(PEAK))
    assert found.shape is Shape.PEAK
    assert (found.median, found.worst) == (0.0, 0.0)


def test_a_slope_is_between_the_two() -> None:
    found = neighbourhood(swept([[0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.1, 0.2, 0.6, 0.3]]))
    assert found.shape is Shape.SLOPE


def test_undefined_neighbours_are_counted_and_not_ranked() -> None:
    found = neighbourhood(swept([[NAN, NAN, 0.1], [NAN, 1.0, 0.2], [0.0, 0.1, 0.3]]))
    assert found.best == 4
    assert found.n_undefined == 3
    assert len(found.neighbours) == 5


def test_a_best_combination_without_neighbours_is_said_to_have_none() -> None:
    found = neighbourhood(swept([[1.0, NAN, 0.2]]))
    assert found.shape is Shape.ALONE
    assert (found.neighbours, found.median, found.rank, found.n_undefined) == ((), None, None, 1)


def test_a_metric_that_is_undefined_everywhere_has_no_best() -> None:
    with pytest.raises(InvalidInput, match="sharpe is undefined for all 2 combinations"):
        neighbourhood(swept([[NAN, NAN]]))


def test_less_is_better_for_metrics_of_the_dictionary() -> None:
    assert set(METRIC_NAMES) >= LOWER_IS_BETTER
    fees = swept([[3.0, 1.0, 2.0]], "fees_paid")
    assert best_first(fees).tolist() == [1, 2, 0]
    assert neighbourhood(fees).worst == 3.0


numbers = st.one_of(st.just(NAN), st.floats(-5, 5))


@given(st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=5))
def test_the_best_is_the_greatest_and_less_is_more_upside_down(values: list[list[float]]) -> None:
    rising = swept(values)
    order = best_first(rising)
    defined = rising.to_numpy()[order]
    assert len(defined) == rising.notna().sum()
    assert all(a >= b for a, b in pairwise(defined))
    if not len(order):
        return
    up, down = neighbourhood(rising), neighbourhood(swept((-np.array(values)).tolist(), "turnover"))
    assert (up.best, up.neighbours, up.rank, up.shape) == (
        *(down.best, down.neighbours, down.rank, down.shape),
    )
    if up.median is not None and up.worst is not None and up.rank is not None:
        assert down.median == -up.median
        assert up.worst <= up.median <= rising.max()
        assert 0 <= up.rank <= 1
        assert math.isclose(up.worst, rising.iloc[list(up.neighbours)].min())
