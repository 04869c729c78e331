"""How often nominal 90 % intervals of the Sharpe ratio hold the true one, where it is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backtest_pipeline.research.robustness.bootstrap import DailyEquity, bootstrap, interval
from backtest_pipeline.research.robustness.sharpe_interval import DAYS_PER_YEAR, sharpe_interval
from bench.harness import Report, Table

_SHARPE = 1.0  # the true one of each world, a year
_HELD_DAYS = 10
_IN_POSITION = 0.3
_WARM_UP = 300


def _iid(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal(n)


def _garch_t(rng: np.random.Generator, n: int) -> np.ndarray:
    """GARCH(1, 1) of .05 and .9 with Student's t of 5 degrees of freedom."""
    shocks = rng.standard_t(5, n + _WARM_UP) * np.sqrt(3 / 5)
    values, variance = np.empty(n + _WARM_UP), 1.0
    for t, shock in enumerate(shocks):
        values[t] = np.sqrt(variance) * shock
        variance = 0.05 + 0.05 * values[t] ** 2 + 0.9 * variance
    return values[_WARM_UP:]


def _autoregressive(rng: np.random.Generator, n: int) -> np.ndarray:
    noise = rng.standard_normal(n + _WARM_UP)
    for t in range(1, len(noise)):
        noise[t] += 0.2 * noise[t - 1]
    return noise[_WARM_UP:] * np.sqrt(1 - 0.2**2)


def _position(rng: np.random.Generator, n: int) -> np.ndarray:
    """1 on the days with a position: spells of ten days on average, 30 % of all days."""
    leave, enter = 1 / _HELD_DAYS, _IN_POSITION / (1 - _IN_POSITION) / _HELD_DAYS
    chance, held = rng.random(n + _WARM_UP), np.zeros(n + _WARM_UP)
    for t in range(1, n + _WARM_UP):
        held[t] = chance[t] >= leave if held[t - 1] else chance[t] < enter
    return held[_WARM_UP:]


def _always(kind: Callable[[np.random.Generator, int], np.ndarray]) -> Callable[..., np.ndarray]:
    def world(rng: np.random.Generator, n: int) -> np.ndarray:
        return 0.02 * (_SHARPE / np.sqrt(DAYS_PER_YEAR) + kind(rng, n))

    return world


def _sometimes(rng: np.random.Generator, n: int) -> np.ndarray:
    # A mean of m while held gives a Sharpe ratio of p m / sqrt(p + p (1 - p) m^2) a day.
    daily = _SHARPE / np.sqrt(DAYS_PER_YEAR)
    share = _IN_POSITION
    mean = daily * np.sqrt(share / (share**2 - share * (1 - share) * daily**2))
    return 0.02 * _position(rng, n) * (mean + rng.standard_normal(n))


_WORLDS = {
    "iid": (_always(_iid), 1.0),
    "GARCH-t": (_always(_garch_t), 1.0),
    "AR(1) .2": (_always(_autoregressive), 1.0),
    "30 % of days in position": (_sometimes, float(_HELD_DAYS)),
}


def _percentile(returns: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    equity = np.cumprod(np.append(1.0, 1.0 + returns))
    daily = DailyEquity(np.arange(len(equity)), equity)
    return interval(bootstrap(daily, draws, seed).samples["sharpe"])


def run(*, quick: bool = False) -> Report:
    """Coverage of the interval that is reported, and of percentiles, in each kind of world."""
    n_worlds, draws = (4, 20) if quick else (1000, 400)
    rows = []
    for name, (world, held) in _WORLDS.items():
        for days in (365, 1461):
            hits, hits_of_percentiles, width = 0, 0, []
            for seed in range(n_worlds):
                returns = world(np.random.default_rng((seed, days)), days)
                low, high = sharpe_interval(returns, draws, seed, holding_days=held)
                hits += low <= _SHARPE <= high
                width.append(high - low)
                low, high = _percentile(returns, draws, seed)
                hits_of_percentiles += low <= _SHARPE <= high
            rows.append(
                (
                    *(name, days, hits / n_worlds, hits_of_percentiles / n_worlds),
                    float(np.median(width)),
                )
            )
    error = np.sqrt(0.9 * 0.1 / n_worlds)
    return Report(
        "Intervals of the Sharpe ratio",
        f"Share of {n_worlds:,} worlds with a true Sharpe ratio of {_SHARPE:g} whose nominal 90 % "
        f"interval holds it, {draws:,} draws each (standard error {100 * error:.1f} points). "
        "Percentiles: the 5th to 95th percentile of the stationary bootstrap.",
        [
            Table(
                "Coverage",
                ("series", "days", "studentised (reported)", "percentiles", "median width"),
                rows,
            )
        ],
    )
