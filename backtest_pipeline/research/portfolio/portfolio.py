"""Portfolios of runs: capital allocated to equity curves, rebalanced on a schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.research.portfolio.weights import EQUAL_WEIGHT, SCHEMES, scheme_weights

PORTFOLIO_VERSION = 1
"""Raise it when the same members give other weights or equity."""
_MONTHS = {"monthly": 1, "quarterly": 3}
SCHEDULES = ("weekly", *_MONTHS)
FIXED = "fixed"
"""Name of the scheme with given weights."""
SHORT_HISTORY, CONSTANT, NO_BAR = "short_history", "constant_returns", "no_bar"
LEFT_OUT = (SHORT_HISTORY, CONSTANT, NO_BAR)
LONGEST_SILENCE = np.timedelta64(7, "D")
"""Longest time since its last bar for a run to get a weight: markets close over weekends and
holidays, and exchanges fail. After a longer silence a run may just as well have ended."""
# Constant returns differ by rounding only, which is that of the growth factor 1 + r.
_ROUNDING = 1e-14


@dataclass(frozen=True)
class PortfolioRules:
    """Weighting scheme and rebalancing of a portfolio.

    Attributes:
        scheme: one of `research.portfolio.weights.SCHEMES`, or FIXED.
        rebalance: one of SCHEDULES; weights are decided at the close of the first bar of each week
            (from Monday), month or quarter, and traded at the close of the next bar.
        lookback: past bar returns used by every scheme but `equal_weight` and FIXED. An asset joins
            once it has that many.
        max_weight: largest weight of one asset at a rebalance. Below 1 / number of assets, each
            gets exactly this weight, and the rest stays cash.
        weights: weights of the scheme FIXED, by asset, which sum to 1; assets trading at a
            rebalance share the capital in these proportions.

    Raises:
        UnknownName: for a scheme or schedule that does not exist.
        InvalidInput: for a look-back below 2, a cap outside (0, 1], or weights that are negative
            or do not sum to 1 within 1e-6.
    """

    scheme: str = EQUAL_WEIGHT
    rebalance: str = "monthly"
    lookback: int = 90
    max_weight: float = 1.0
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.scheme not in (*SCHEMES, FIXED):
            raise UnknownName("portfolio scheme", self.scheme, (*SCHEMES, FIXED))
        if (self.scheme == FIXED) != bool(self.weights):
            raise InvalidInput(
                f"weights go with the scheme {FIXED!r} only, not with {self.scheme!r}"
                if self.weights
                else f"the scheme {FIXED!r} needs weights, one per asset"
            )
        if self.weights:
            _require_weights(self.weights)
        if self.rebalance not in SCHEDULES:
            raise UnknownName("rebalancing schedule", self.rebalance, SCHEDULES)
        if self.lookback < 2:
            raise InvalidInput(f"lookback must be at least 2 returns, not {self.lookback!r}")
        if not (math.isfinite(self.max_weight) and 0.0 < self.max_weight <= 1.0):
            raise InvalidInput(f"max_weight must be above 0 and at most 1, not {self.max_weight!r}")


def _require_weights(weights: Sequence[float]) -> None:
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise InvalidInput("weights must be finite numbers, 0 or more")
    # The sum of huge ones is infinite, and fsum raises instead.
    total = math.fsum(weights) if math.isfinite(sum(weights)) else math.inf
    if abs(total - 1.0) > 1e-6:
        raise InvalidInput(f"weights must sum to 1 within 1e-6, not to {total!r}")


@dataclass(frozen=True)
class PortfolioCurve:
    """Equity and rebalances of one portfolio over `n_times` bars.

    Attributes:
        equity: float64 `(n_times,)`, portfolio value at each bar's close.
        rebalance_rows: int64 `(n_rebalances,)`, rows at whose close capital is moved, each one row
            after its decision; empty if no asset ever has enough history, and all stays cash.
        weights: float64 `(n_rebalances, n_assets)`, target weights; each row sums to 1 minus cash.
        turnover: float64 `(n_rebalances,)`, capital traded as a fraction of equity; 0 at the first.
        cost: total rebalancing costs, in the currency of the equity.
        left_out: number of assets without a weight for each reason of LEFT_OUT, int64
            `(n_rebalances,)`.
    """

    equity: np.ndarray
    rebalance_rows: np.ndarray
    weights: np.ndarray
    turnover: np.ndarray
    cost: float
    left_out: Mapping[str, np.ndarray]

    @property
    def start(self) -> int:
        """Row of the first rebalance; `n_times` if there is none."""
        return int(self.rebalance_rows[0]) if len(self.rebalance_rows) else len(self.equity)

    def since_start(self) -> PortfolioCurve:
        """The portfolio from its first rebalance on."""
        rows = self.rebalance_rows - self.start
        return replace(self, equity=self.equity[self.start :], rebalance_rows=rows)


def form_portfolio(
    curves: np.ndarray,
    ts_us: np.ndarray,
    initial_cash: float,
    cost_rate: float,
    rules: PortfolioRules | None = None,
) -> PortfolioCurve:
    """Allocate capital to runs, and rebalance on a schedule.

    Between rebalances each position follows its run's equity; a run without a bar keeps its last
    equity. At a rebalance, a run gets no weight if it has lost everything or has had no bar for
    more than LONGEST_SILENCE (it has ended, or its data have a long gap); a new run joins at the
    next one. Weights are decided with the close of a period's first bar and traded at the close of
    the next bar, since equity has no open. Capital stays cash until a first asset has enough
    history; if none has at a later rebalance, positions stay as they are. The first allocation is
    free of costs.

    Args:
        curves: float64 `(n_assets, n_times)`, equity of each run; NaN where it has no bar.
        ts_us: int64 `(n_times,)`, microseconds since 1970 UTC, strictly increasing.
        initial_cash: starting capital.
        cost_rate: cost of a rebalance as a fraction of the capital traded.
        rules: weights and schedule; equal weights, monthly, if None.

    Raises:
        InvalidInput: for no runs, or no bars.
        BacktestError: if a solver fails.
    """
    if curves.size == 0:
        raise InvalidInput("a portfolio needs at least one run and one bar")
    rules = rules or PortfolioRules()
    filled = filled_forward(curves)
    alive = (_silence(curves, ts_us) <= LONGEST_SILENCE) & (filled > 0)
    lives = np.asarray(alive.any(axis=0))
    begin = lives.argmax()
    starts = period_starts(ts_us, rules.rebalance)
    # If no run is alive at a period's first bar, positions stay as they are.
    candidates = np.union1d(begin, starts[starts > begin])
    candidates = candidates[lives[candidates]]
    # A decision at the last bar is not traded any more.
    candidates = candidates[candidates + 1 < curves.shape[1]]
    decided, weights, left_out = _weights_at(candidates, curves, filled, alive, rules)
    rows = decided + 1

    equity = np.full(curves.shape[1], initial_cash)
    held = np.zeros(len(curves))
    turnover = np.zeros(len(rows))
    cost = 0.0
    for i, (row, target) in enumerate(zip(rows, weights, strict=True)):
        capital = equity[row]
        moved = np.abs(target * capital - held).sum() if i else 0.0
        turnover[i] = moved / capital if capital > 0 else 0.0
        cost += moved * cost_rate
        capital -= moved * cost_rate
        end = rows[i + 1] + 1 if i + 1 < len(rows) else curves.shape[1]
        chosen = target > 0
        shares = target[chosen, None] * capital * growth_since(filled[chosen, row:end])
        equity[row:end] = shares.sum(axis=0) + max(1.0 - target.sum(), 0.0) * capital
        held = np.zeros(len(curves))
        held[chosen] = shares[:, -1]
    return PortfolioCurve(equity, rows, weights, turnover, cost, left_out)


def period_starts(ts_us: np.ndarray, schedule: str) -> np.ndarray:
    """Rows of the first bar of each week, month or quarter, int64."""
    stamps = ts_us.astype("M8[us]")
    if schedule == "weekly":
        period = (stamps.astype("M8[D]").astype(np.int64) + 3) // 7  # 1970 began on a Thursday
    else:
        period = stamps.astype("M8[M]").astype(np.int64) // _MONTHS[schedule]
    return np.flatnonzero(np.diff(period, prepend=period[0] - 1) != 0)


def _weights_at(
    rows: np.ndarray,
    curves: np.ndarray,
    filled: np.ndarray,
    alive: np.ndarray,
    rules: PortfolioRules,
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The rows with a decision, the weights, and the number of assets left out for each reason."""
    weights = np.zeros((len(rows), len(curves)))
    left_out = {reason: np.zeros(len(rows), np.int64) for reason in LEFT_OUT}
    first, last = _lives(curves)
    for i, row in enumerate(rows):
        chosen = np.flatnonzero(alive[:, row])
        without_bar = (first <= row) & (row <= last) & (filled[:, row] > 0) & ~alive[:, row]
        left_out[NO_BAR][i] = without_bar.sum()
        returns = np.empty((0, len(chosen)))
        if rules.scheme not in (EQUAL_WEIGHT, FIXED):
            enough = chosen[first[chosen] + rules.lookback <= row]
            window = filled[enough, max(row - rules.lookback, 0) : row + 1]
            returns = (window[:, 1:] / window[:, :-1] - 1.0).T
            varies = np.abs(returns - returns[:1]).max(axis=0, initial=0.0) > _ROUNDING
            left_out[SHORT_HISTORY][i] = len(chosen) - len(enough)
            left_out[CONSTANT][i] = len(enough) - varies.sum()
            chosen, returns = enough[varies], returns[:, varies]
        if rules.scheme == FIXED:
            fixed = np.array(rules.weights)[chosen]
            weights[i, chosen] = fixed / (fixed.sum() or 1.0)
        elif len(chosen):
            weights[i, chosen] = scheme_weights(rules.scheme, returns, rules.max_weight)
    decided = weights.any(axis=1)
    return rows[decided], weights[decided], {reason: n[decided] for reason, n in left_out.items()}


def growth_since(filled: np.ndarray) -> np.ndarray:
    """Each curve divided by its first value; 0 after a total loss.

    A curve that is 0 already at its first value (lost between decision and trade) counts as 1
    throughout: it no longer trades, so it keeps the capital it is given.

    Args:
        filled: float64 `(n_assets, n_times)`, from `filled_forward`.
    """
    return np.divide(filled, filled[:, :1], out=np.ones_like(filled), where=filled[:, :1] > 0)


def filled_forward(curves: np.ndarray) -> np.ndarray:
    """The curves with gaps, and the time after their end, filled with the last value."""
    return np.take_along_axis(curves, np.maximum(_last_seen(curves), 0), axis=1)


def _silence(curves: np.ndarray, ts_us: np.ndarray) -> np.ndarray:
    """Time since each curve's last bar, `(n_assets, n_times)`; NaT before its first bar."""
    seen = _last_seen(curves)
    silence = (ts_us - ts_us[seen]).astype("m8[us]")
    silence[seen < 0] = np.timedelta64("NaT")
    return silence


def _last_seen(curves: np.ndarray) -> np.ndarray:
    """Row of each curve's last bar up to each row, `(n_assets, n_times)`; -1 before its first."""
    seen = np.where(np.isfinite(curves), np.arange(curves.shape[1]), -1)
    return np.maximum.accumulate(seen, axis=1)


def _lives(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each curve's first and last bar; `n_times` and -1 for a curve without bars."""
    finite = np.isfinite(curves)
    never = ~finite.any(axis=1)
    first = np.where(never, curves.shape[1], finite.argmax(axis=1))
    last = np.where(never, -1, curves.shape[1] - 1 - finite[:, ::-1].argmax(axis=1))
    return first, last
