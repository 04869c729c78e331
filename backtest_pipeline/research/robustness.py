"""How far a run's result can be trusted: resampled, reordered, filled elsewhere, entered at random.

Each method asks one question, and none of them knows how many other runs were tried first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.bootstrap import (
    FEWEST_DAYS,
    Bootstrap,
    DailyEquity,
    bootstrap,
    daily_equity,
    interval,
    p_value,
    p_value_above_zero,
)
from backtest_pipeline.research.draws import require_draws
from backtest_pipeline.research.envelope import Envelope, break_even_bps, envelope
from backtest_pipeline.research.random_entries import random_entry_returns
from backtest_pipeline.research.random_fills import random_fill_returns
from backtest_pipeline.research.trade_order import reordered_drawdowns, trade_returns
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import SimulationConfig

NUMBERS = (
    *("total_return", "sharpe", "max_drawdown"),
    *("block_length", "total_return_low", "total_return_high", "p_total_return"),
    *("sharpe_low", "sharpe_high", "p_sharpe"),
    *("drawdown_median", "drawdown_95", "p_drawdown"),
    *("reordered_drawdown_median", "reordered_drawdown_95"),
    *("random_fill_low", "random_fill_high"),
    *("random_entry_median", "p_random_entries"),
    "break_even_bps",
)
"""The names of the numbers, in the order of docs/robustness.md, which says what each means."""

_NO_TRADE = "no trade"
_FEW_DAYS = f"fewer than {FEWEST_DAYS} daily returns"
_CONSTANT = "daily returns that do not vary"


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
        envelope: the run under each changed assumption.
        daily: the equity at day ends.
        bands: float64 `(5, n_days)`, the 5th, 25th, 50th, 75th and 95th percentile of resampled
            equity at those; None where nothing was resampled.
        samples: each random method's results, by name, float64 `(draws,)`; only those that exist.
    """

    draws: int
    seed: int
    numbers: dict[str, float | None]
    fragile: bool | None
    reasons: tuple[str, ...]
    undefined: dict[str, str]
    envelope: Envelope
    daily: DailyEquity
    bands: np.ndarray | None
    samples: dict[str, np.ndarray]


@dataclass
class _Findings:
    """Numbers and reasons as the methods find them."""

    numbers: dict[str, float] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    samples: dict[str, np.ndarray] = field(default_factory=dict)

    def lack(self, reason: str, *names: str) -> None:
        self.undefined.update(dict.fromkeys(names, reason))


def assess(
    panel: Panel, events: np.ndarray, config: SimulationConfig, *, draws: int = 1000, seed: int = 0
) -> Robustness:
    """Repeat one run in every way that section by section docs/robustness.md explains.

    Args:
        panel: bars of one asset, with what stops and sizing read.
        events: uint8 `(1, n_rows)`, the run's signals.
        config: what the run assumes.
        draws: repetitions of each random method, 1 to 10,000.
        seed: of the random numbers; the same gives the same result, and fewer draws are the first
            of more.

    Raises:
        InvalidInput: for draws or a seed out of range, or another shape than one run on one asset.
    """
    require_draws(draws, seed)
    if len(panel.assets) != 1 or events.shape != (1, len(panel)):
        raise InvalidInput(
            f"robustness is that of one run on one asset, not {len(events)} on {len(panel.assets)}"
        )
    run = simulate_batch(panel, events, config)
    found = _Findings()
    for name in ("total_return", "sharpe", "max_drawdown"):
        found.numbers[name] = float(run.metrics[name][0])
    if math.isnan(found.numbers["sharpe"]):
        found.lack(f"{_FEW_DAYS}, or {_CONSTANT}", "sharpe")

    daily = daily_equity(panel.ts, run.equity[0])
    resampled = _resample(daily, draws, seed, found)
    if len(run.trades) == 0:
        found.lack(_NO_TRADE, *NUMBERS[NUMBERS.index("reordered_drawdown_median") :], "fragile")
    else:
        _reorder(trade_returns(run.trades, config.initial_cash), draws, seed, found)
        fills = random_fill_returns(panel, events, config, run.trades, draws, seed)
        found.samples["random_fill_return"] = fills
        found.numbers["random_fill_low"], found.numbers["random_fill_high"] = interval(fills)
        _enter_at_random(random_entry_returns(panel, run.trades, config, draws, seed), panel, found)
        bps, reason = break_even_bps(panel, events, config)
        if bps is None:
            found.lack(reason, "break_even_bps")
        else:
            found.numbers["break_even_bps"] = bps
    assumptions = envelope(panel, events, config)
    return Robustness(
        draws=draws,
        seed=seed,
        numbers={name: _defined(found, name) for name in NUMBERS},
        fragile=assumptions.fragile if len(run.trades) else None,
        reasons=assumptions.reasons,
        undefined=found.undefined,
        envelope=assumptions,
        daily=daily,
        bands=resampled.bands if resampled else None,
        samples=found.samples,
    )


def _defined(found: _Findings, name: str) -> float | None:
    return None if name in found.undefined else found.numbers[name]


def _resample(daily: DailyEquity, draws: int, seed: int, found: _Findings) -> Bootstrap | None:
    of_it = NUMBERS[NUMBERS.index("block_length") : NUMBERS.index("reordered_drawdown_median")]
    if len(daily.returns) < FEWEST_DAYS:
        found.lack(_FEW_DAYS, *of_it)
        return None
    if not np.ptp(daily.returns):
        found.lack(_CONSTANT, *of_it)
        return None
    resampled = bootstrap(daily, draws, seed)
    samples = resampled.samples
    found.samples.update({f"resampled_{name}": values for name, values in samples.items()})
    numbers = found.numbers
    numbers["block_length"] = resampled.block_length
    for name in ("total_return", "sharpe"):
        numbers[f"{name}_low"], numbers[f"{name}_high"] = interval(samples[name])
    numbers["p_sharpe"] = p_value_above_zero(numbers["sharpe"], samples["sharpe"])
    if numbers["total_return"] > -1:
        growth = np.log1p(samples["total_return"])
        numbers["p_total_return"] = p_value_above_zero(np.log1p(numbers["total_return"]), growth)
    else:
        found.lack("the equity was used up", "p_total_return")
    numbers["drawdown_median"], numbers["drawdown_95"] = _typical_and_deep(samples["max_drawdown"])
    numbers["p_drawdown"] = p_value(-numbers["max_drawdown"], -samples["max_drawdown"])
    return resampled


def _typical_and_deep(drawdowns: np.ndarray) -> tuple[float, float]:
    """The median, and the one that one in twenty is deeper than."""
    median, deep = np.percentile(drawdowns, (50, 5))
    return float(median), float(deep)


def _reorder(returns: np.ndarray, draws: int, seed: int, found: _Findings) -> None:
    names = "reordered_drawdown_median", "reordered_drawdown_95"
    if len(returns) < 2:
        found.lack("a single trade has no other order", *names)
        return
    drawdowns = reordered_drawdowns(returns, draws, seed)
    found.samples["reordered_drawdown"] = drawdowns
    found.numbers.update(zip(names, _typical_and_deep(drawdowns), strict=True))


def _enter_at_random(returns: np.ndarray, panel: Panel, found: _Findings) -> None:
    if len(returns) == 0:
        found.lack(
            f"the trades leave no room for other places in {len(panel)} bars",
            "random_entry_median",
            "p_random_entries",
        )
        return
    found.samples["random_entry_return"] = returns
    found.numbers["random_entry_median"] = float(np.median(returns))
    found.numbers["p_random_entries"] = p_value(found.numbers["total_return"], returns)
