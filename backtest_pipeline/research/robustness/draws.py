"""Random numbers that depend only on the seed, their purpose and the number of the draw.

So a draw is the same whatever is drawn before it or in the same batch, and 100 draws are the first
100 of 1,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import numpy as np

from backtest_pipeline.market.errors import InvalidInput

MOST_DRAWS = 10_000
_LARGEST_SEED = 2**63 - 1  # what a BIGINT holds
_CELLS_AT_ONCE = 1_000_000


class Purpose(IntEnum):
    """What random numbers are for; each purpose has its own stream."""

    BOOTSTRAP = 0
    TRADE_ORDER = 1
    FILLS = 2
    RANDOM_WALK = 4
    SHUFFLED_BARS = 5
    PERMUTED_BARS = 6
    SHARPE = 7


def require_draws(draws: int, seed: int) -> None:
    """Raises InvalidInput if the number of draws or the seed is out of range."""
    if not isinstance(draws, int) or not 1 <= draws <= MOST_DRAWS:
        raise InvalidInput(
            f"draws must be a whole number from 1 to {MOST_DRAWS:,}, not {draws!r}; 1,000 give "
            "probabilities to within about one percent"
        )
    if not isinstance(seed, int) or not 0 <= seed <= _LARGEST_SEED:
        raise InvalidInput(f"seed must be a whole number from 0 to 2**63 - 1, not {seed!r}")


def generator(seed: int, purpose: Purpose, draw: int) -> np.random.Generator:
    """The random number generator of one draw."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, purpose, draw))))


def batches(draws: int, width: int) -> Iterator[range]:
    """Draw numbers in batches of about a million cells, with `width` cells per draw."""
    size = max(1, _CELLS_AT_ONCE // max(width, 1))
    for first in range(0, draws, size):
        yield range(first, min(first + size, draws))
