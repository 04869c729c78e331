"""How far a run's result can be trusted: resampled, reordered, filled elsewhere, entered at random.

Each method asks one question, and none of them knows how many other runs were tried first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import utc_index
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US
from backtest_pipeline.research.robustness.bootstrap import (
    BAND_PERCENTILES,
    FEWEST_DAYS,
    Bootstrap,
    DailyEquity,
    bootstrap,
    daily_equity,
    interval,
    p_value,
    p_value_above_zero,
)
from backtest_pipeline.research.robustness.draws import require_draws
from backtest_pipeline.research.robustness.envelope import Scenario, break_even_bps, envelope
from backtest_pipeline.research.robustness.random_entries import random_entry_returns
from backtest_pipeline.research.robustness.random_fills import random_fill_returns
from backtest_pipeline.research.robustness.repeat import RunInputs
from backtest_pipeline.research.robustness.trade_order import reordered_drawdowns, trade_returns
from backtest_pipeline.simulation.metrics.metrics import undefined_reasons
from backtest_pipeline.simulation.trades import Trades

ROBUSTNESS_VERSION = 1
"""Raise it when the same run, draws and seed give other figures."""
_RUN = ("total_return", "sharpe", "max_drawdown")
_RESAMPLED = (
    *("block_length", "total_return_low", "total_return_high", "p_total_return"),
    *("sharpe_low", "sharpe_high", "p_sharpe"),
    *("drawdown_median", "drawdown_95", "p_drawdown"),
)
_REORDERED = ("reordered_drawdown_median", "reordered_drawdown_95")
_REFILLED = ("random_fill_low", "random_fill_high")
_REENTERED = ("random_entry_median", "p_random_entries")
_COSTS = ("break_even_bps",)
DOUBTS = (*_RESAMPLED, *_REORDERED, *_REFILLED, *_REENTERED, *_COSTS)
NUMBERS = (*_RUN, *DOUBTS)
"""The numbers of the run that are doubted, and what the doubts find; see docs/robustness.md."""


@dataclass(frozen=True)
class Robustness:
    """What remains of a run under doubt.

    Attributes:
        draws: repetitions of each random method.
        seed: of their random numbers.
        numbers: NUMBERS; None where undefined.
        fragile: whether an assumption turns the sign of the total return or halves a gain; None
            where nothing was traded.
        reasons: those assumptions, in words.
        undefined: why a number, or `fragile`, is None.
        scenarios: the run as it is, and under each changed assumption.
        bands: by day end (tz-aware), the run's `equity` and the percentiles p05, p25, p50, p75 and
            p95 of the resampled; no rows where nothing was resampled.
        samples: what came of each draw, a column for each method that found something.
    """

    draws: int
    seed: int
    numbers: dict[str, float | None]
    fragile: bool | None
    reasons: tuple[str, ...]
    undefined: dict[str, str]
    scenarios: tuple[Scenario, ...]
    bands: pd.DataFrame
    samples: pd.DataFrame


@dataclass
class _Findings:
    """Numbers and reasons as the methods find them."""

    numbers: dict[str, float] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    samples: dict[str, np.ndarray] = field(default_factory=dict)

    def know(self, names: Sequence[str], values: Iterable[float]) -> None:
        self.numbers.update(zip(names, values, strict=True))

    def lack(self, names: Sequence[str], reason: str) -> None:
        self.undefined.update(dict.fromkeys(names, reason))

    def defined(self) -> dict[str, float | None]:
        """All NUMBERS; those that no draw defines have a reason afterwards as well."""
        for name in set(NUMBERS) - set(self.undefined):
            if math.isnan(self.numbers[name]):
                self.undefined[name] = "daily returns that vary in no draw"
        return {name: None if name in self.undefined else self.numbers[name] for name in NUMBERS}


def assess(run: RunInputs, *, draws: int = 1000, seed: int = 0) -> Robustness:
    """Repeat one run in every way that docs/robustness.md explains.

    Args:
        run: the run.
        draws: repetitions of each random method, 1 to 10,000.
        seed: of the random numbers; the same gives the same result, and fewer draws are the first
            of more.

    Raises:
        InvalidInput: for draws or a seed out of range.
    """
    require_draws(draws, seed)
    result = run.simulated()
    found = _Findings()
    of_run = {name: float(result.metrics[name][0]) for name in _RUN}
    found.numbers.update(of_run)
    found.undefined.update(undefined_reasons(of_run))

    daily = daily_equity(run.panel.ts, result.equity[0])
    resampled = _resample(daily, draws, seed, run.config.risk_free, found)
    traded = len(result.trades) > 0
    if traded:
        _trade_otherwise(run, result.trades, draws, seed, found)
    else:
        found.lack([*_REORDERED, *_REFILLED, *_REENTERED, *_COSTS, "fragile"], "no trade")
    assumptions = envelope(run)
    return Robustness(
        draws=draws,
        seed=seed,
        numbers=found.defined(),
        fragile=assumptions.fragile if traded else None,
        reasons=assumptions.reasons,
        undefined=found.undefined,
        scenarios=assumptions.scenarios,
        bands=_bands(daily, resampled),
        samples=pd.DataFrame(found.samples),
    )


def _bands(daily: DailyEquity, resampled: Bootstrap | None) -> pd.DataFrame:
    names = [f"p{percentile:02}" for percentile in BAND_PERCENTILES]
    day_end = utc_index((daily.day + 1) * DAY_US - CLOSE_STAMP_US)
    if resampled is None:
        return pd.DataFrame(columns=["equity", *names], index=day_end[:0], dtype=np.float64)
    values = dict(zip(names, resampled.bands, strict=True))
    return pd.DataFrame({"equity": daily.equity, **values}, index=day_end)


def _resample(
    daily: DailyEquity, draws: int, seed: int, risk_free: float, found: _Findings
) -> Bootstrap | None:
    if len(daily.returns) < FEWEST_DAYS:
        found.lack(_RESAMPLED, f"fewer than {FEWEST_DAYS} daily returns")
        return None
    if not np.ptp(daily.returns):
        found.lack(_RESAMPLED, "daily returns that do not vary")
        return None
    resampled = bootstrap(daily, draws, seed, risk_free=risk_free)
    samples = resampled.samples
    found.samples.update({f"resampled_{name}": values for name, values in samples.items()})
    growth, sharpe, drawdown = (samples[name] for name in _RUN)
    of_run = found.numbers
    with np.errstate(divide="ignore"):  # a total loss is infinitely far below zero
        logs = np.log1p(growth)
    used_up = of_run["total_return"] <= -1
    found.know(
        _RESAMPLED,
        (
            *(resampled.block_length, *interval(growth)),
            math.nan if used_up else p_value_above_zero(np.log1p(of_run["total_return"]), logs),
            *(*interval(sharpe), p_value_above_zero(of_run["sharpe"], sharpe)),
            *(*_typical_and_deep(drawdown), p_value(-of_run["max_drawdown"], -drawdown)),
        ),
    )
    if used_up:
        found.lack(["p_total_return"], "the equity was used up")
    return resampled


def _typical_and_deep(drawdowns: np.ndarray) -> tuple[float, float]:
    """The median, and the one that one in twenty is deeper than."""
    deep, median = np.percentile(drawdowns, (5, 50))
    return float(median), float(deep)


def _trade_otherwise(
    run: RunInputs, trades: Trades, draws: int, seed: int, found: _Findings
) -> None:
    if len(trades) > 1:
        returns = trade_returns(trades, run.config.initial_cash)
        reordered = reordered_drawdowns(returns, draws, seed)
        found.samples["reordered_drawdown"] = reordered
        found.know(_REORDERED, _typical_and_deep(reordered))
    else:
        found.lack(_REORDERED, "a single trade has no other order")

    refilled = random_fill_returns(run, trades, draws, seed)
    found.samples["random_fill_return"] = refilled
    found.know(_REFILLED, interval(refilled))

    reentered = random_entry_returns(run, trades, draws, seed)
    if len(reentered):
        found.samples["random_entry_return"] = reentered
        own = found.numbers["total_return"]
        found.know(_REENTERED, (float(np.median(reentered)), p_value(own, reentered)))
    else:
        found.lack(_REENTERED, f"the trades leave no room in {len(run.panel)} bars")

    bps, reason = break_even_bps(run)
    if bps is None:
        found.lack(_COSTS, reason)
    else:
        found.know(_COSTS, (bps,))
