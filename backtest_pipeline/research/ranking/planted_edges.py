"""Edges of a known size in random markets, to measure the power of tests.

The price drifts up while a fast average of closes is above a slow one, and down while it is below:
whoever follows the default crossover of `ema_crossover`, long and short, earns that drift.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from backtest_pipeline.market.compiled import compiled
from backtest_pipeline.strategies.ema_crossover import STRATEGY as PLANTED_STRATEGY
from backtest_pipeline.strategies.ema_crossover import EmaCrossover
from backtest_pipeline.strategies.grid import ParameterGrid, parameter_grid

if TYPE_CHECKING:
    from backtest_pipeline.research.ranking.random_markets import BarMoves

PLANTED = EmaCrossover()
"""The rule that has the edge."""


def planted_grid() -> ParameterGrid:
    """The nine parameter sets that a search tries around the rule that has the edge."""
    values = {"fast": [5, PLANTED.fast, 20], "slow": [PLANTED.slow, 50, 100]}
    return parameter_grid(PLANTED_STRATEGY, values, most=9)


def with_edge(moves: BarMoves, sharpe: float) -> BarMoves:
    """The moves with a drift that gives PLANTED a true Sharpe ratio, before costs.

    Each bar between its open and its close moves by `sharpe` times the standard deviation of a
    bar, towards the side that PLANTED holds from its open on. The price follows the rule and the
    rule the price, so bars are made one after the other.

    Args:
        moves: bars without an edge.
        sharpe: mean return of a bar by its standard deviation, not annualized.

    Returns:
        Moves with the same gaps; the drift comes right after the open, so that highs, lows and
        closes move by all of it.

    Examples:
        >>> import numpy as np
        >>> from backtest_pipeline.research.ranking.random_markets import BarMoves
        >>> steps = np.full(300, 0.01)
        >>> flat = BarMoves(np.zeros(300), steps, -steps, steps * np.sign(np.sin(np.arange(300))))
        >>> drift = with_edge(flat, 0.1).body - flat.body
        >>> sorted({round(float(one), 4) for one in np.abs(drift)})
        [0.0, 0.001]
    """
    gap, body = np.ascontiguousarray(moves.gap), np.ascontiguousarray(moves.body)
    drift = _drift(gap, body, sharpe * moves.volatility, PLANTED.fast, PLANTED.slow)
    return replace(
        moves,
        high=np.maximum(moves.high + drift, 0.0),
        low=np.minimum(moves.low + drift, 0.0),
        body=moves.body + drift,
    )


@compiled
def _drift(gap, body, size, fast, slow):
    """Drift of each bar in log price, float64 `(n_bars,)`: `size` up or down, 0 before a cross."""
    drift = np.zeros(len(body))
    weight_fast, weight_slow = 2 / (fast + 1), 2 / (slow + 1)
    log_close, side, above = 0.0, 0.0, 0.0
    ema_fast = ema_slow = 1.0
    for i in range(len(body)):
        drift[i] = side * size
        log_close += gap[i] + body[i] + drift[i]
        close = np.exp(log_close)
        ema_fast += weight_fast * (close - ema_fast)
        ema_slow += weight_slow * (close - ema_slow)
        now = np.sign(ema_fast - ema_slow)
        if above != 0.0 and now == -above:
            side = now
        if now != 0.0:
            above = now
    return drift
