"""How much the best of many combinations of parameters says: the results of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput

LOWER_IS_BETTER = frozenset(
    {
        "annual_volatility",
        "max_drawdown_duration_days",
        "kurtosis",
        "min_track_record_length",
        "turnover",
        "fees_paid",
        "slippage_cost",
        "funding_paid",
        "tracking_error",
    }
)
"""Metrics of the dictionary of which less is better; losses are negative, so more of them is."""


class Shape(StrEnum):
    """What surrounds the best combination."""

    PLATEAU = "plateau"
    SLOPE = "slope"
    PEAK = "lone peak"
    ALONE = "no neighbours"


@dataclass(frozen=True)
class Neighbourhood:
    """The best combination and those at most one step away from it in every parameter.

    Attributes:
        best: position in the table.
        neighbours: positions of the neighbours whose metric is defined.
        n_undefined: neighbours without a metric.
        median, worst: of the neighbours' metric; None where there is no neighbour.
        rank: share of all other defined combinations that the neighbours' median is at least as
            good as; None where there is no neighbour.
        shape: PLATEAU where even the worst neighbour is better than the median of all
            combinations; PEAK where the neighbours' median is not; SLOPE between the two.
    """

    best: int
    neighbours: tuple[int, ...]
    n_undefined: int
    median: float | None
    worst: float | None
    rank: float | None
    shape: Shape


def best_first(values: pd.Series) -> np.ndarray:
    """Positions of the defined values, the best first; ties keep their order."""
    defined = np.flatnonzero(values.notna())
    return defined[np.argsort(-_goodness(values)[defined], kind="stable")]


def neighbourhood(values: pd.Series) -> Neighbourhood:
    """The best combination's surroundings.

    A step leads from a value to the next one that was tried, whatever the distance.

    Args:
        values: one metric (its name says whether more is better) by combination of parameters,
            a MultiIndex of numbers.

    Raises:
        InvalidInput: where the metric is undefined for all combinations.
    """
    ranked = best_first(values)
    if len(ranked) == 0:
        raise InvalidInput(f"{values.name} is undefined for all {len(values)} combinations")
    best = int(ranked[0])
    steps = np.column_stack(
        [np.unique(level, return_inverse=True)[1] for level in _levels(values.index)]
    )
    near = np.abs(steps - steps[best]).max(axis=1) == 1
    goodness = _goodness(values)
    neighbours = np.flatnonzero(near & ~np.isnan(goodness))
    n_undefined = int(near.sum()) - len(neighbours)
    if len(neighbours) == 0:
        return Neighbourhood(best, (), n_undefined, None, None, None, Shape.ALONE)
    around = goodness[neighbours]
    middle, lowest = float(np.median(around)), float(around.min())
    typical = float(np.median(goodness[ranked]))
    shape = Shape.PLATEAU if lowest > typical else Shape.PEAK
    if shape is Shape.PEAK and middle > typical:
        shape = Shape.SLOPE
    sign = -1.0 if values.name in LOWER_IS_BETTER else 1.0
    return Neighbourhood(
        best=best,
        neighbours=tuple(map(int, neighbours)),
        n_undefined=n_undefined,
        median=sign * middle,
        worst=sign * lowest,
        rank=float((goodness[ranked[1:]] <= middle).mean()),
        shape=shape,
    )


def _goodness(values: pd.Series) -> np.ndarray:
    numbers = values.to_numpy(np.float64)
    return -numbers if values.name in LOWER_IS_BETTER else numbers


def _levels(index: pd.Index) -> list[np.ndarray]:
    return [index.get_level_values(i).to_numpy() for i in range(index.nlevels)]
