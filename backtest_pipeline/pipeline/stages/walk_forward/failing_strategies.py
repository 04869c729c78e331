"""Walk-forwards of many strategies on many assets at once, apart from those that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from backtest_pipeline.market.errors import InvalidInput, LooksAhead
from backtest_pipeline.pipeline.stages.kept_runs import Missing
from backtest_pipeline.simulation.strategy_conditions import Failures

T = TypeVar("T")


def computed_apart(
    wanted: Iterable[Missing], compute: Callable[[Missing], T]
) -> tuple[list[T], Failures]:
    """What can be computed, and why the rest cannot, by asset and position of the strategy.

    What fails is halved until what fails is one strategy on one asset.

    Args:
        wanted: strategies and assets to compute together.
        compute: computes them all, or raises InvalidInput or LooksAhead.
    """
    found: list[T] = []
    failures: Failures = {}
    waiting = list(wanted)[::-1]
    while waiting:
        missing = waiting.pop()
        try:
            found.append(compute(missing))
        except (InvalidInput, LooksAhead) as error:
            waiting += missing.halves[::-1]
            if not missing.halves:
                (strategy,), (asset,) = missing
                failures.setdefault(asset, {})[strategy] = error
    return found, failures
