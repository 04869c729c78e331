"""When work is spread over the workers of a pool, and into how many pieces it is cut.

Small work stays in the process that wants it: workers have to start, which takes some seconds, and
each reads what it works on again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from backtest_pipeline.pipeline.pools.work_pool import WorkPool

T = TypeVar("T")

FEWEST_SIMULATED = 20_000_000
"""Bars to simulate, counted once for each combination tried on them, from which on workers pay.

One core takes about three seconds for so many in a walk-forward, and twelve in a sweep or in
negative controls; a worker takes about five to start.
"""
_PIECES_A_WORKER = 3
"""So that no worker is idle for long at the end: pieces of one size differ in what they cost."""


def is_spread(pool: WorkPool, n_simulated: int) -> bool:
    """Whether a simulation of so many bars, each combination counting, is left to workers."""
    return not pool.is_here and n_simulated >= FEWEST_SIMULATED


def pieces_of(pool: WorkPool, parts: Sequence[T], smallest: int = 1) -> list[Sequence[T]]:
    """The parts in their order, cut into a few pieces for each worker of the pool.

    Args:
        pool: where the pieces are done.
        parts: what is not cut any further.
        smallest: parts of a piece at least, as far as there are as many.
    """
    n = max(1, min(_PIECES_A_WORKER * pool.size, len(parts) // smallest))
    bounds = [len(parts) * i // n for i in range(n + 1)]
    return [parts[start:end] for start, end in pairwise(bounds) if end > start]
