"""Robustness of a run: bootstrap, trade order, random fills and entries, other assumptions.

None of these methods corrects for the number of other runs tried before; the leaderboard does.
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
    STATISTICS,
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
from backtest_pipeline.research.robustness.permuted_bars import MOST_PERMUTATIONS, permuted_returns
from backtest_pipeline.research.robustness.random_fills import random_fill_returns
from backtest_pipeline.research.robustness.repeat import RunInputs
from backtest_pipeline.research.robustness.sharpe_interval import sharpe_interval
from backtest_pipeline.research.robustness.trade_order import reordered_drawdowns, trade_returns
from backtest_pipeline.simulation.metrics.metrics import undefined_reasons
from backtest_pipeline.simulation.trades import Trades

ROBUSTNESS_VERSION = 3
"""Raise it when the same run, draws and seed give other numbers."""
NO_RULE = "features that are not computed from bars cannot be computed on permuted ones"
_RUN = ("total_return", "sharpe", "max_drawdown", "exposure")
_RESAMPLED = (
    *("block_length", "total_return_low", "total_return_high", "p_total_return"),
    *("sharpe_low", "sharpe_high", "p_sharpe"),
    *("drawdown_median", "drawdown_95", "p_drawdown"),
)
_REORDERED = ("reordered_drawdown_median", "reordered_drawdown_95")
_RANDOM_FILLS = ("random_fill_low", "random_fill_high")
_RANDOM_ENTRIES = ("random_entry_median", "p_random_entries", "random_entry_ruined")
_COSTS = ("break_even_bps",)
DOUBTS = (*_RESAMPLED, *_REORDERED, *_RANDOM_FILLS, *_RANDOM_ENTRIES, *_COSTS)
NUMBERS = (*_RUN, *DOUBTS)
"""The run's own numbers, then the results of the robustness methods; see docs/robustness.md."""


@dataclass(frozen=True)
class Robustness:
    """Robustness of one run.

    Attributes:
        draws: repetitions of each random method.
        seed: random seed.
        numbers: NUMBERS by name; None where undefined.
        fragile: whether an assumption flips the sign of the total return or more than halves a
            gain; None without a trade.
        reasons: a sentence for each such assumption.
        undefined: why a number, or `fragile`, is None.
        scenarios: the run as it is, and under each changed assumption.
        bands: by day end (tz-aware UTC), the run's `equity` and the bootstrap percentiles p05, p25,
            p50, p75 and p95 of equity; no rows without a bootstrap.
        samples: result of each draw, one column per random method that could run; NaN after the
            MOST_PERMUTATIONS-th of permuted bars.
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
class _Collected:
    """Numbers, reasons for undefined ones, and samples, collected from the methods."""

    numbers: dict[str, float] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    samples: dict[str, np.ndarray] = field(default_factory=dict)

    def define(self, names: Sequence[str], values: Iterable[float]) -> None:
        self.numbers.update(zip(names, values, strict=True))

    def leave_undefined(self, names: Sequence[str], reason: str) -> None:
        self.undefined.update(dict.fromkeys(names, reason))

    def defined(self) -> dict[str, float | None]:
        """All NUMBERS, None where undefined; adds a reason for those undefined in all draws."""
        for name in NUMBERS:
            if name not in self.undefined and math.isnan(self.numbers[name]):
                self.undefined[name] = "daily returns are constant in every draw"
        return {name: None if name in self.undefined else self.numbers[name] for name in NUMBERS}


def assess(run: RunInputs, *, draws: int = 1000, seed: int = 0) -> Robustness:
    """Apply all robustness methods of docs/robustness.md to one run.

    Args:
        run: inputs of the run.
        draws: repetitions of each random method, 1 to 10,000.
        seed: random seed; the same seed gives the same result, and 100 draws are the first 100 of
            1,000.

    Raises:
        InvalidInput: for a number of draws or a seed out of range.
    """
    require_draws(draws, seed)
    result = run.simulated()
    collected = _Collected()
    of_run = {name: float(result.metrics[name][0]) for name in _RUN}
    collected.numbers.update(of_run)
    collected.undefined.update(undefined_reasons(of_run))

    daily = daily_equity(result.marks.ts, result.equity[0])
    held = float(result.metrics["avg_holding_days"][0])
    resampled = _resample(
        daily, draws, seed, run.config.risk_free, 1.0 if math.isnan(held) else held, collected
    )
    traded = len(result.trades) > 0
    if traded:
        _perturb_trades(run, result.trades, draws, seed, collected)
    else:
        collected.leave_undefined(
            [*_REORDERED, *_RANDOM_FILLS, *_RANDOM_ENTRIES, *_COSTS, "fragile"], "no trade"
        )
    assumptions = envelope(run)
    return Robustness(
        draws=draws,
        seed=seed,
        numbers=collected.defined(),
        fragile=assumptions.fragile if traded else None,
        reasons=assumptions.reasons,
        undefined=collected.undefined,
        scenarios=assumptions.scenarios,
        bands=_bands(daily, resampled),
        samples=pd.DataFrame({n: pd.Series(v) for n, v in collected.samples.items()}),
    )


def _bands(daily: DailyEquity, resampled: Bootstrap | None) -> pd.DataFrame:
    names = [f"p{percentile:02}" for percentile in BAND_PERCENTILES]
    day_end = utc_index((daily.day + 1) * DAY_US - CLOSE_STAMP_US)
    if resampled is None:
        return pd.DataFrame(columns=["equity", *names], index=day_end[:0], dtype=np.float64)
    values = dict(zip(names, resampled.bands, strict=True))
    return pd.DataFrame({"equity": daily.equity, **values}, index=day_end)


def _resample(
    daily: DailyEquity,
    draws: int,
    seed: int,
    risk_free: float,
    holding_days: float,
    collected: _Collected,
) -> Bootstrap | None:
    if len(daily.returns) < FEWEST_DAYS:
        collected.leave_undefined(_RESAMPLED, f"fewer than {FEWEST_DAYS} daily returns")
        return None
    if not np.ptp(daily.returns):
        collected.leave_undefined(_RESAMPLED, "constant daily returns")
        return None
    resampled = bootstrap(daily, draws, seed, risk_free=risk_free)
    of_sharpe = sharpe_interval(
        daily.returns, draws, seed, holding_days=holding_days, risk_free=risk_free
    )
    samples = resampled.samples
    collected.samples.update({f"resampled_{name}": values for name, values in samples.items()})
    growth, sharpe, drawdown = (samples[name] for name in STATISTICS)
    of_run = collected.numbers
    with np.errstate(divide="ignore"):  # a total loss is infinitely far below zero
        logs = np.log1p(growth)
    lost_all = of_run["total_return"] <= -1
    collected.define(
        _RESAMPLED,
        (
            *(resampled.block_length, *interval(growth)),
            math.nan if lost_all else p_value_above_zero(np.log1p(of_run["total_return"]), logs),
            *(*of_sharpe, p_value_above_zero(of_run["sharpe"], sharpe)),
            *(*_median_and_95th(drawdown), p_value(-of_run["max_drawdown"], -drawdown)),
        ),
    )
    if lost_all:
        collected.leave_undefined(["p_total_return"], "the run lost all of its equity")
    return resampled


def _median_and_95th(drawdowns: np.ndarray) -> tuple[float, float]:
    """The median drawdown, and the 95th percentile of depth."""
    deep, median = np.percentile(drawdowns, (5, 50))
    return float(median), float(deep)


def _perturb_trades(
    run: RunInputs, trades: Trades, draws: int, seed: int, collected: _Collected
) -> None:
    if len(trades) > 1:
        returns = trade_returns(trades, run.config.initial_cash)
        reordered = reordered_drawdowns(returns, draws, seed)
        collected.samples["reordered_drawdown"] = reordered
        collected.define(_REORDERED, _median_and_95th(reordered))
    else:
        collected.leave_undefined(_REORDERED, "a single trade cannot be reordered")

    random_fills = random_fill_returns(run, trades, draws, seed)
    collected.samples["random_fill_return"] = random_fills
    collected.define(_RANDOM_FILLS, interval(random_fills))

    if run.rule is None:
        collected.leave_undefined(_RANDOM_ENTRIES, NO_RULE)
    else:
        permuted = permuted_returns(run, run.rule, min(draws, MOST_PERMUTATIONS), seed)
        returns, own = permuted.total_return, collected.numbers["total_return"]
        collected.samples["random_entry_return"] = returns
        collected.define(
            _RANDOM_ENTRIES,
            (float(np.median(returns)), p_value(own, returns), float(permuted.ruined.mean())),
        )

    bps, reason = break_even_bps(run)
    if bps is None:
        collected.leave_undefined(_COSTS, reason)
    else:
        collected.define(_COSTS, (bps,))
