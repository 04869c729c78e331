"""Compiles, once for a state of the sources, what a test would otherwise compile within itself.

A session of tests begins with it; `python -m backtest_pipeline_tests.compiling` does it by itself.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import backtest_pipeline

PACKAGE = Path(backtest_pipeline.__file__).parent


def compile_once() -> None:
    """Compile what the present sources lack; at once where that has been done before."""
    done = _folder() / f"tested-{_state()}"
    if not done.exists():
        subprocess.run([sys.executable, "-m", __name__], check=True)
        _folder().mkdir(parents=True, exist_ok=True)
        done.touch()


def _folder() -> Path:
    """Where numba keeps what it has compiled, or a folder of it."""
    return Path(os.environ.get("NUMBA_CACHE_DIR") or PACKAGE / "__pycache__")


def _state() -> str:
    """What numba goes by: when each file with kernels was written, and its own version."""
    state = [sys.version, importlib.metadata.version("numba"), str(PACKAGE)]
    for path in sorted(PACKAGE.rglob("*.py")):
        if "@compiled" in path.read_text(encoding="utf-8"):
            state += [path.name, str(path.stat().st_mtime_ns), str(path.stat().st_size)]
    return hashlib.sha256("\0".join(state).encode()).hexdigest()[:16]


def _compile() -> None:
    import numpy as np

    import backtest_pipeline.pipeline.pools.warm
    import backtest_pipeline_tests.pipeline.warm
    from backtest_pipeline.market.features import build_features, rolling
    from backtest_pipeline.market.features.derive import with_indicators
    from backtest_pipeline.market.features.recursions import Recursions
    from backtest_pipeline.market.resample import resample
    from backtest_pipeline.market.timeframes import timeframe
    from backtest_pipeline.pipeline.api import run_backtest
    from backtest_pipeline.research.ranking.planted_edges import with_edge
    from backtest_pipeline.research.ranking.random_markets import bar_moves
    from backtest_pipeline.research.ranking.trials import effective_number_of_trials
    from backtest_pipeline.research.robustness.bootstrap import resampled_rows
    from backtest_pipeline.research.validation.overfitting import cross_validate_choice
    from backtest_pipeline.simulation.batch import simulate_batch
    from backtest_pipeline.simulation.book import simulate_book
    from backtest_pipeline.simulation.config import SimulationConfig
    from backtest_pipeline.simulation.funding import FundingRates
    from backtest_pipeline.simulation.planned.planned_book import simulate_planned
    from backtest_pipeline.strategies.registry import strategies
    from backtest_pipeline_tests.market.features.panels import random_bars
    from backtest_pipeline_tests.pipeline.markets import daily_panel
    from backtest_pipeline_tests.simulation.markets import (
        bars_of,
        random_events,
        random_market,
        random_rates,
    )

    assert backtest_pipeline.pipeline.pools.warm
    assert backtest_pipeline_tests.pipeline.warm

    rng = np.random.default_rng(0)
    panel, finer = random_market(rng, [60, 40], 0.03, holes=0.1)
    rates = FundingRates.of(random_rates(rng, panel, 0.002))
    events, config = random_events(rng, 3, panel), SimulationConfig()
    for beside in ({}, {"funding": rates, "finer": finer}):
        simulate_batch(panel, events, config, **beside)
        simulate_book(panel, events, config, **beside)
    simulate_planned(panel, [], config)

    with_indicators(build_features(random_bars([60, 600], 0)), ["ema_33", "rsi_33", "atr_33"])
    prices = bars_of(100 * np.exp(np.cumsum(rng.normal(0, 0.02, 600))))
    for strategy in strategies():
        run_backtest(prices.assign(volume=1.0), strategy, {})

    daily = daily_panel({"A": 400})
    days, weeks = (resample(daily, timeframe(tf)).frame("A") for tf in ("1D", "1W"))
    run_backtest(weeks, "ema_crossover", {}, daily=days, timeframe="1W")
    with_edge(bar_moves(daily)[0], 0.1)

    # Arrays that may not be written to are compiled for once more.
    fixed, bounds = np.arange(64.0), np.array([0, 64])
    fixed.flags.writeable = False
    for values in (fixed, fixed.copy()):
        rolling.ema(values, bounds, 3)
        rolling.total(values, bounds, 3)
        Recursions.whole(bounds).ema(values, bounds, 3)
    begin, end = bounds[:-1], bounds[1:]
    begin.flags.writeable = end.flags.writeable = False
    Recursions(begin, end).ema(fixed.copy(), bounds, 3)

    returns = rng.normal(0.0, 0.01, (64, 8))
    effective_number_of_trials(returns)
    cross_validate_choice(returns, 4)
    resampled_rows(64, 5.0, 2, 0)


if __name__ == "__main__":
    _compile()
