"""Random markets for negative controls: prices with no edge, or with a planted one.

Without one each market is a martingale: given everything known at a bar's close, the expected
simple returns to the next open, and from there to the next close, are zero. So before costs no rule
has a true Sharpe ratio above zero, and every result called significant is a false positive. Drift
is removed, since holding an asset that drifts earns without skill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.ranking.planted_edges import with_edge
from backtest_pipeline.research.robustness.bootstrap import stationary_rows
from backtest_pipeline.research.robustness.draws import Purpose, generator

FEWEST_BARS = 100
"""Bars that a real asset needs before random markets are modelled on it."""
MEAN_BLOCK = 20.0  # bars of a resampling block: long enough to keep volatility clusters together
_STEPS = 8  # price steps within a bar
_PRICE = 100.0


class RandomMarket(StrEnum):
    """How a random market is generated."""

    RANDOM_WALK = "random_walk"
    SHUFFLED_BARS = "shuffled_bars"


@dataclass(frozen=True)
class BarMoves:
    """One asset's bars as log price changes, float64 `(n_bars,)` each.

    Attributes:
        gap: from the previous close to the open.
        high, low, body: from the open to the high, the low and the close.
    """

    gap: np.ndarray
    high: np.ndarray
    low: np.ndarray
    body: np.ndarray

    @property
    def volatility(self) -> float:
        """Standard deviation of a bar's log return, ddof 1."""
        return float((self.gap + self.body).std(ddof=1))


def bar_moves(bars: Panel) -> list[BarMoves]:
    """Log price changes of each asset with at least FEWEST_BARS and a price that moves.

    Args:
        bars: open, high, low, close.

    Raises:
        InvalidInput: if there is no such asset.
    """
    usable = []
    for asset in bars.assets:
        rows = bars.rows_of(asset)
        open_, high, low, close = (np.log(bars[c][rows]) for c in ("open", "high", "low", "close"))
        moves = BarMoves(
            open_[1:] - close[:-1],
            *(price[1:] - open_[1:] for price in (high, low, close)),
        )
        if len(close) >= FEWEST_BARS and moves.volatility > 0:
            usable.append(moves)
    if not usable:
        raise InvalidInput(
            f"no asset has {FEWEST_BARS} stored bars at {bars.timeframe.name} whose price moves; "
            "refresh bars first"
        )
    return usable


def random_markets(
    kind: RandomMarket,
    universe: Sequence[BarMoves],
    like: Panel,
    draws: range,
    seed: int,
    planted: float = 0.0,
) -> Panel:
    """A panel with one random asset per draw, each modelled on one of the universe in turn.

    The same seed and draw number give the same market, whatever else is drawn.

    Args:
        kind: how the markets are generated.
        universe: real assets to model them on.
        like: one asset, whose timeframe and timestamps every market gets.
        draws: draw numbers.
        seed: random seed.
        planted: true Sharpe ratio of a bar, not annualized, of the rule of `planted_edges`; 0
            plants no edge.
    """
    n = len(like)
    make = _random_walk if kind is RandomMarket.RANDOM_WALK else _shuffled
    drawn = [make(universe[draw % len(universe)], n, draw, seed) for draw in draws]
    markets = [_prices(with_edge(moves, planted) if planted else moves) for moves in drawn]
    names = ("open", "high", "low", "close")
    prices = {
        name: np.concatenate([market[i] for market in markets]) for i, name in enumerate(names)
    }
    return Panel(
        like.timeframe,
        tuple(f"{kind}-{draw}" for draw in draws),
        np.arange(len(draws) + 1) * n,
        np.tile(like.ts, len(draws)),
        {**prices, "volume": np.ones(n * len(draws))},
    )


def _random_walk(asset: BarMoves, n: int, draw: int, seed: int) -> BarMoves:
    """A random walk with the asset's volatility; each bar opens at the previous close.

    Highs and lows are those of the continuous walk through the steps, each drawn from the
    distribution of a Brownian bridge's extreme (Karatzas and Shreve 1991, section 4.3). Between
    steps the price would jump over the level of a stop, and an order that fills at the level would
    earn the jump.
    """
    rng = generator(seed, Purpose.RANDOM_WALK, draw)
    step = asset.volatility / np.sqrt(_STEPS)
    # exp(step * z - step**2 / 2) has a mean of 1.
    path = np.cumsum(step * rng.standard_normal((n, _STEPS)) - step**2 / 2, axis=1)
    start = np.hstack((np.zeros((n, 1)), path[:, :-1]))
    above, below = np.sqrt(
        (path - start) ** 2 - 2 * step**2 * np.log(rng.uniform(size=(2, n, _STEPS)))
    )
    high = ((start + path + above) / 2).max(axis=1)
    low = ((start + path - below) / 2).min(axis=1)
    return BarMoves(np.zeros(n), high, low, path[:, -1])


def _shuffled(asset: BarMoves, n: int, draw: int, seed: int) -> BarMoves:
    """Resampling blocks of the asset's bars, with the sign of each gap and each bar at random.

    Blocks preserve volatility clusters and the shape of bars. They would also preserve drift and
    any dependence of a bar on the previous one: the random signs remove both.
    """
    rng = generator(seed, Purpose.SHUFFLED_BARS, draw)
    rows = stationary_rows(rng, n, len(asset.body), MEAN_BLOCK)
    gap, high, low, body = (m[rows] for m in (asset.gap, asset.high, asset.low, asset.body))
    gap = np.where(rng.random(n) < 0.5, gap, -gap)
    up = rng.random(n) < 0.5
    # A log change of x up or down multiplies a price by cosh(x) on average; minus its log, by 1.
    excess = np.log(np.cosh(body))
    return BarMoves(
        gap - np.log(np.cosh(gap)),
        np.maximum(np.where(up, high, -low) - excess, 0.0),
        np.where(up, low, -high) - excess,
        np.where(up, body, -body) - excess,
    )


def _prices(moves: BarMoves) -> tuple[np.ndarray, ...]:
    """Open, high, low and close of bars, float64 `(n_bars,)` each."""
    close = np.cumsum(moves.gap + moves.body)
    open_ = close - moves.body
    # Rounding must not lift a close above a high of the same log change.
    open_, high, low, close = (
        _PRICE * np.exp(log) for log in (open_, open_ + moves.high, open_ + moves.low, close)
    )
    return (
        open_,
        np.maximum.reduce((open_, high, close)),
        np.minimum.reduce((open_, low, close)),
        close,
    )
