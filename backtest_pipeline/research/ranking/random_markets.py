"""Worlds in which no strategy can earn: what happened before says nothing of what comes next.

Every world is a martingale: whatever is known at a bar's close, the expected simple returns to the
next open and from there to its close are zero. So before costs no rule has a true Sharpe ratio
above zero, and whatever is called significant there is called so by luck. All drift is taken out,
since holding an asset that drifts earns without any skill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.robustness.bootstrap import stationary_rows
from backtest_pipeline.research.robustness.draws import Purpose, generator

FEWEST_BARS = 100
"""Real bars below which an asset has no world of its own."""
MEAN_BLOCK = 20.0  # bars: a volatile month stays together
_STEPS = 8  # within a bar
_PRICE = 100.0


class World(StrEnum):
    """How a world without an edge is made."""

    RANDOM_WALK = "random_walk"
    SHUFFLED_BARS = "shuffled_bars"


@dataclass(frozen=True)
class BarMoves:
    """One asset's bars as log moves, float64 `(n,)` each.

    Attributes:
        gap: from the close before to the open.
        high, low, body: from the open to the high, the low and the close.
    """

    gap: np.ndarray
    high: np.ndarray
    low: np.ndarray
    body: np.ndarray

    @property
    def volatility(self) -> float:
        """Standard deviation of the log return of a bar."""
        return float((self.gap + self.body).std(ddof=1))


def bar_moves(bars: Panel) -> list[BarMoves]:
    """What worlds are made after: each asset that has enough bars and moves at all.

    Args:
        bars: open, high, low, close.

    Raises:
        InvalidInput: where no asset has FEWEST_BARS.
    """
    found = []
    for asset in bars.assets:
        rows = bars.rows_of(asset)
        open_, high, low, close = (np.log(bars[c][rows]) for c in ("open", "high", "low", "close"))
        moves = BarMoves(
            open_[1:] - close[:-1],
            *(price[1:] - open_[1:] for price in (high, low, close)),
        )
        if len(close) >= FEWEST_BARS and moves.volatility > 0:
            found.append(moves)
    if not found:
        raise InvalidInput(
            f"no asset has {FEWEST_BARS} stored bars at {bars.timeframe.name} whose price moves; "
            "refresh bars first"
        )
    return found


def worlds(
    kind: World, universe: Sequence[BarMoves], like: Panel, draws: range, seed: int
) -> Panel:
    """One asset per draw, each after one of the universe in turn.

    The same seed and number of the draw give the same world, whatever is drawn beside it.

    Args:
        kind: how they are made.
        universe: what they are made after.
        like: one asset, whose timeframe and stamps every world has.
        draws: numbers of the draws.
        seed: of the random numbers.
    """
    n = len(like)
    make = _random_walk if kind is World.RANDOM_WALK else _shuffled
    made = [_prices(make(universe[draw % len(universe)], n, draw, seed)) for draw in draws]
    names = ("open", "high", "low", "close")
    prices = {name: np.concatenate([world[i] for world in made]) for i, name in enumerate(names)}
    return Panel(
        like.timeframe,
        tuple(f"{kind}-{draw}" for draw in draws),
        np.arange(len(draws) + 1) * n,
        np.tile(like.ts, len(draws)),
        {**prices, "volume": np.ones(n * len(draws))},
    )


def _random_walk(asset: BarMoves, n: int, draw: int, seed: int) -> BarMoves:
    """Normal log steps within each bar, as volatile as the asset; a bar opens at the last close."""
    rng = generator(seed, Purpose.RANDOM_WALK, draw)
    step = asset.volatility / np.sqrt(_STEPS)
    # exp(step * z - step**2 / 2) has the mean 1.
    path = np.cumsum(step * rng.standard_normal((n, _STEPS)) - step**2 / 2, axis=1)
    high, low = np.maximum(path.max(axis=1), 0.0), np.minimum(path.min(axis=1), 0.0)
    return BarMoves(np.zeros(n), high, low, path[:, -1])


def _shuffled(asset: BarMoves, n: int, draw: int, seed: int) -> BarMoves:
    """Blocks of the asset's whole bars, each gap and each bar turned upside down by a coin or not.

    Blocks keep the clusters of volatility and the shape of the bars. They would also keep what one
    bar tells of the next within a block, and the drift: the coins take both away.
    """
    rng = generator(seed, Purpose.SHUFFLED_BARS, draw)
    rows = stationary_rows(rng, n, len(asset.body), MEAN_BLOCK)
    gap, high, low, body = (m[rows] for m in (asset.gap, asset.high, asset.low, asset.body))
    gap = np.where(rng.random(n) < 0.5, gap, -gap)
    up = rng.random(n) < 0.5
    # The log move x up or down multiplies a price by cosh(x) on average; less its log, by 1.
    excess = np.log(np.cosh(body))
    return BarMoves(
        gap - np.log(np.cosh(gap)),
        np.maximum(np.where(up, high, -low) - excess, 0.0),
        np.where(up, low, -high) - excess,
        np.where(up, body, -body) - excess,
    )


def _prices(moves: BarMoves) -> tuple[np.ndarray, ...]:
    """Open, high, low and close."""
    close = np.cumsum(moves.gap + moves.body)
    open_ = close - moves.body
    # A body of the same log move as its high must not end above it by a rounding.
    open_, high, low, close = (
        _PRICE * np.exp(log) for log in (open_, open_ + moves.high, open_ + moves.low, close)
    )
    return (
        open_,
        np.maximum.reduce((open_, high, close)),
        np.minimum.reduce((open_, low, close)),
        close,
    )
