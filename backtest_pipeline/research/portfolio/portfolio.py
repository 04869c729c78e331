"""Portfolios of runs: capital spread over equity curves, anew on a schedule."""

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
"""The scheme of weights that are given, and not found."""
SHORT_HISTORY, CONSTANT, NO_BAR = "short_history", "constant_returns", "no_bar"
LEFT_OUT = (SHORT_HISTORY, CONSTANT, NO_BAR)
LONGEST_SILENCE = np.timedelta64(7, "D")
"""Time since a run's last bar up to which it takes part: markets close over weekends and holidays,
and exchanges fail. What is silent for longer cannot be told from what has ended."""
# Identical returns differ by rounding alone, which is that of the growth factor 1 + r.
_ROUNDING = 1e-14


@dataclass(frozen=True)
class PortfolioRules:
    """How a portfolio sets its weights.

    Attributes:
        scheme: one of `research.portfolio.weights.SCHEMES`, or FIXED.
        rebalance: weights are decided at the first bar of each week (from Monday), month or
            quarter, and capital is spread anew at the bar after it: one of SCHEDULES.
        lookback: returns, one per bar, that all schemes but `equal_weight` look at. An asset
            joins once it has so many.
        max_weight: most that one asset may weigh when weights are set. Where that is below
            1 / number of assets, each gets it, and the rest of the capital is cash.
        weights: fractions of the scheme FIXED, by asset; those that are alive at a rebalance share
            the capital in these proportions.

    Raises:
        UnknownName: for a scheme or schedule that there is not.
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
            raise InvalidInput(f"weights belong to the scheme {FIXED}, and it to them")
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
        raise InvalidInput("weights must be numbers that are not negative")
    if abs(math.fsum(weights) - 1.0) > 1e-6:
        raise InvalidInput(f"weights must sum to 1 within 1e-6, not to {math.fsum(weights)!r}")


@dataclass(frozen=True)
class PortfolioCurve:
    """One portfolio over `n_times` instants.

    Attributes:
        equity: float64 `(n_times,)`.
        rebalance_rows: int64 `(n_rebalances,)`, rows at whose end capital is spread anew, each the
            row after the one at which that was decided; none where no asset is ever alive with
            enough history, and all stays cash.
        weights: float64 `(n_rebalances, n_assets)`, fractions set there; each row sums to 1 less
            what is cash.
        turnover: float64 `(n_rebalances,)`, moved capital as a fraction of all, 0 at the first.
        cost: float64, paid for moving capital, in the currency of the equity.
        left_out: for each reason of LEFT_OUT int64 `(n_rebalances,)`, assets that were alive and
            got nothing for it.
    """

    equity: np.ndarray
    rebalance_rows: np.ndarray
    weights: np.ndarray
    turnover: np.ndarray
    cost: float
    left_out: Mapping[str, np.ndarray]

    @property
    def start(self) -> int:
        """Row of the first rebalance; `n_times` where there is none."""
        return int(self.rebalance_rows[0]) if len(self.rebalance_rows) else len(self.equity)

    def since_start(self) -> PortfolioCurve:
        """The portfolio without the rows before its first rebalance."""
        rows = self.rebalance_rows - self.start
        return replace(self, equity=self.equity[self.start :], rebalance_rows=rows)


def form_portfolio(
    curves: np.ndarray,
    ts_us: np.ndarray,
    initial_cash: float,
    cost_rate: float,
    rules: PortfolioRules | None = None,
) -> PortfolioCurve:
    """Spread capital over the runs that are alive, anew on a schedule.

    Between two rebalances each share follows its run's equity. A run without a bar at some instant
    keeps its last equity. One that has been silent for more than LONGEST_SILENCE at a rebalance,
    because it has ended or has a long hole, has no share after it, as has one that has lost
    everything; one that begins waits for the next. What is known at the close of a
    period's first bar decides the weights, and capital is moved at the close of the bar after it:
    equity has no open. Until a first asset has enough history the capital waits; where none
    has at a later rebalance, the shares stay as they are. The first spreading costs nothing.

    Args:
        curves: float64 `(n_assets, n_times)`, equity of each run; NaN where it has no bar.
        ts_us: int64 `(n_times,)`, strictly increasing microseconds UTC.
        initial_cash: starting capital.
        cost_rate: fraction of the moved capital that a rebalance costs.
        rules: equal weights, each month, where None.

    Raises:
        InvalidInput: for no runs, or no bars.
        BacktestError: where a solver fails.
    """
    if curves.size == 0:
        raise InvalidInput("a portfolio needs at least one run and one bar")
    rules = rules or PortfolioRules()
    filled = filled_forward(curves)
    alive = (_silence(curves, ts_us) <= LONGEST_SILENCE) & (filled > 0)
    lives = np.asarray(alive.any(axis=0))
    begin = lives.argmax()
    turns = period_starts(ts_us, rules.rebalance)
    # Where nothing is alive at a period's first bar, the shares stay as they are.
    candidates = np.union1d(begin, turns[turns > begin])
    candidates = candidates[lives[candidates]]
    # What the last bar decides is not done yet.
    candidates = candidates[candidates + 1 < curves.shape[1]]
    decided, weights, left_out = _weights_at(candidates, curves, filled, alive, rules)
    rows = decided + 1

    equity = np.full(curves.shape[1], initial_cash)
    held = np.zeros(len(curves))
    turnover = np.zeros(len(rows))
    cost = 0.0
    for i, (row, wanted) in enumerate(zip(rows, weights, strict=True)):
        capital = equity[row]
        moved = np.abs(wanted * capital - held).sum() if i else 0.0
        turnover[i] = moved / capital if capital > 0 else 0.0
        cost += moved * cost_rate
        capital -= moved * cost_rate
        end = rows[i + 1] + 1 if i + 1 < len(rows) else curves.shape[1]
        chosen = wanted > 0
        shares = wanted[chosen, None] * capital * growth_since(filled[chosen, row:end])
        equity[row:end] = shares.sum(axis=0) + max(1.0 - wanted.sum(), 0.0) * capital
        held = np.zeros(len(curves))
        held[chosen] = shares[:, -1]
    return PortfolioCurve(equity, rows, weights, turnover, cost, left_out)


def period_starts(ts_us: np.ndarray, schedule: str) -> np.ndarray:
    """Rows that are the first of their week, month or quarter, int64."""
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
    """The rows at which weights can be set, the weights, and how many were left out and why."""
    weights = np.zeros((len(rows), len(curves)))
    left_out = {reason: np.zeros(len(rows), np.int64) for reason in LEFT_OUT}
    first, last = _lives(curves)
    for i, row in enumerate(rows):
        chosen = np.flatnonzero(alive[:, row])
        silent = (first <= row) & (row <= last) & (filled[:, row] > 0) & ~alive[:, row]
        left_out[NO_BAR][i] = silent.sum()
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
            given = np.array(rules.weights)[chosen]
            weights[i, chosen] = given / (given.sum() or 1.0)
        elif len(chosen):
            weights[i, chosen] = scheme_weights(rules.scheme, returns, rules.max_weight)
    can = weights.any(axis=1)
    return rows[can], weights[can], {reason: n[can] for reason, n in left_out.items()}


def growth_since(filled: np.ndarray) -> np.ndarray:
    """Each curve over its first value; what is lost after it stays 0.

    What was lost before, between the decision to give it capital and that being done, keeps what
    it is given: it trades no longer.

    Args:
        filled: as `filled_forward` gives them.
    """
    return np.divide(filled, filled[:, :1], out=np.ones_like(filled), where=filled[:, :1] > 0)


def filled_forward(curves: np.ndarray) -> np.ndarray:
    """The curves with each gap, and the time after the end, at the last value before it."""
    return np.take_along_axis(curves, np.maximum(_last_seen(curves), 0), axis=1)


def _silence(curves: np.ndarray, ts_us: np.ndarray) -> np.ndarray:
    """Time since each curve's last bar; NaT before its first."""
    seen = _last_seen(curves)
    silence = (ts_us - ts_us[seen]).astype("m8[us]")
    silence[seen < 0] = np.timedelta64("NaT")
    return silence


def _last_seen(curves: np.ndarray) -> np.ndarray:
    """The row of each curve's last bar up to each row; -1 before its first."""
    seen = np.where(np.isfinite(curves), np.arange(curves.shape[1]), -1)
    return np.maximum.accumulate(seen, axis=1)


def _lives(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of each curve's first and last bar; a curve without one ends before it begins."""
    finite = np.isfinite(curves)
    never = ~finite.any(axis=1)
    first = np.where(never, curves.shape[1], finite.argmax(axis=1))
    last = np.where(never, -1, curves.shape[1] - 1 - finite[:, ::-1].argmax(axis=1))
    return first, last
