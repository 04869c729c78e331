"""Parameter neighbourhood: how the combinations next to the best one did."""

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
"""Metrics of which less is better; drawdown and other losses are negative, so not among them."""


class Shape(StrEnum):
    """Shape of a metric around the best combination."""

    PLATEAU = "plateau"
    SLOPE = "slope"
    PEAK = "lone peak"
    ALONE = "no neighbours"


@dataclass(frozen=True)
class Neighbourhood:
    """The best combination, and those at most one step away from it in every parameter.

    Attributes:
        best: row of the best combination in the table.
        neighbours: rows of the neighbours with a defined metric.
        n_undefined: number of neighbours without one.
        median, worst: median and worst metric of the neighbours; None without neighbours.
        rank: share of all other defined combinations that the neighbours' median equals or beats;
            None without neighbours.
        shape: PLATEAU if even the worst neighbour beats the median of all combinations; PEAK if
            the neighbours' median does not; SLOPE in between; ALONE without neighbours.
    """

    best: int
    neighbours: tuple[int, ...]
    n_undefined: int
    median: float | None
    worst: float | None
    rank: float | None
    shape: Shape


def best_first(values: pd.Series) -> np.ndarray:
    """Positions of the defined values, best first; ties keep their order."""
    defined = np.flatnonzero(values.notna())
    return defined[np.argsort(-_goodness(values)[defined], kind="stable")]


def neighbourhood(values: pd.Series) -> Neighbourhood:
    """The best combination and its neighbours.

    A step leads from one value of a parameter to the next one tried, however far apart they are.

    Args:
        values: a metric, whose name decides which way is better, by combination of parameters (a
            MultiIndex of numbers).

    Raises:
        InvalidInput: if the metric is undefined for all combinations.
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
