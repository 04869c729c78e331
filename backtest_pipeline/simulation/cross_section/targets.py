"""From scores to target weights: the calendar, the universe, who is held, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.strategies.cross_section.definition import (
    BY_SCORE,
    LONG_SHORT,
    CrossSection,
)
from backtest_pipeline.strategies.rules.ranks import with_ranks

TRADED = "traded"
EMPTY_UNIVERSE = "empty_universe"
TOO_FEW = "too_few_assets"
ALL_EQUAL = "all_scores_equal"
REASONS = (TRADED, EMPTY_UNIVERSE, TOO_FEW, ALL_EQUAL)
"""What came of a rebalance; the account goes to cash where nothing could be ranked."""
_SCORE, _VOLATILITY = "score", "volatility"
_FEWEST = 2
_SUM_ROUNDING = 1e-9


@dataclass(frozen=True)
class Scores:
    """Scores of a panel's assets at its instants; NaN where an asset has no bar.

    Attributes:
        ts: int64 `(n_times,)`, close stamps, microseconds since 1970 UTC.
        score: float64 `(n_times, n_assets)`, NaN outside of the universe too, or where undefined.
        volatility: float64 of the same shape; None where the weights do not need it.
        close: float64 of the same shape.
    """

    ts: np.ndarray
    score: np.ndarray
    volatility: np.ndarray | None
    close: np.ndarray

    @staticmethod
    def of(scored: Panel, ts: np.ndarray, table: np.ndarray) -> Scores:
        """Those of a panel from `with_scores` at the instants of `simulation.book.instants_of`."""
        volatility = scored.columns.get(_VOLATILITY)
        return Scores(
            ts=ts,
            score=_on(table, scored[_SCORE]),
            volatility=None if volatility is None else _on(table, volatility),
            close=_on(table, scored["close"]),
        )


@dataclass(frozen=True)
class Targets:
    """What an account wants to hold after each rebalance.

    Attributes:
        step: int64 `(n_rebalances,)`, instants at whose close it was decided.
        weight: float64 `(n_rebalances, n_assets)`, signed fractions of the equity.
        reason: int64 `(n_rebalances,)`, index into REASONS.
    """

    step: np.ndarray
    weight: np.ndarray
    reason: np.ndarray

    def counts(self) -> dict[str, int]:
        """Number of rebalances by what came of them."""
        found = np.bincount(self.reason, minlength=len(REASONS))
        return {name: int(n) for name, n in zip(REASONS, found, strict=True) if n}


def with_scores(rule: CrossSection, panel: Panel) -> Panel:
    """The bars of a universe with the score of each asset as it was known at each close.

    Args:
        rule: the strategy.
        panel: all assets from each one's first bar on, with the columns of `rule.reads`, or bars
            that they can be computed from.

    Raises:
        InvalidInput: for a column that is neither there nor computed from bars.
    """
    known = with_ranks(panel, rule.reads)
    n_seen = np.arange(len(panel)) - panel.offsets[panel.segment_of_row] + 1
    is_member = n_seen >= rule.min_history
    if rule.universe_expression is not None:
        is_member &= rule.universe_expression.known(known)[0]
    columns = {name: panel[name] for name in OHLCV}
    columns[_SCORE] = np.where(is_member, rule.score_expression.values(known), np.nan)
    if rule.volatility_expression is not None:
        columns[_VOLATILITY] = rule.volatility_expression.values(known)
    return Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts, columns)


def _on(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of rows at the instants, NaN where there is no bar."""
    return np.append(np.asarray(values, np.float64), np.nan)[table]  # -1 is the last


def rebalance_steps(rule: CrossSection, ts: np.ndarray, tf: str) -> np.ndarray:
    """The instants at whose close the weights are decided, int64.

    Weekly is the first close at or after the end of each week (Monday 0:00 UTC), monthly that of
    each month; of `n` bars every n-th instant, the first included.
    """
    if not isinstance(rule.rebalance, str):
        return np.arange(0, len(ts), rule.rebalance)
    end = timeframe(tf).period_bounds(ts)[1]
    if rule.rebalance == "weekly":
        period = (end // DAY_US - 4) // 7
    else:
        period = end.view("M8[us]").astype("M8[M]").astype(np.int64)
    return np.flatnonzero(np.diff(period, prepend=period[:1]) != 0)


def targets_of(rule: CrossSection, scores: Scores, tf: str) -> Targets:
    """The weights that a strategy decides at each rebalance; only that instant is looked at."""
    steps = rebalance_steps(rule, scores.ts, tf)
    weight = np.zeros((len(steps), scores.score.shape[1]))
    reason = np.zeros(len(steps), np.int64)
    for n, step in enumerate(steps.tolist()):
        volatility = None if scores.volatility is None else scores.volatility[step]
        reason[n] = _decide(rule, scores.score[step], volatility, weight[n])
    found = Targets(steps, weight, reason)
    require_weights(found.weight, [str(t) for t in scores.ts[steps].view("M8[us]")])
    return found


def _decide(
    rule: CrossSection, score: np.ndarray, volatility: np.ndarray | None, out: np.ndarray
) -> int:
    """Write the weights of one rebalance into `out`; returns what came of it."""
    known = np.isfinite(score)
    if volatility is not None:
        known &= np.isfinite(volatility) & (volatility > 0)
    ranked = np.flatnonzero(known)
    if not len(ranked):
        return REASONS.index(EMPTY_UNIVERSE)
    if len(ranked) < _FEWEST:
        return REASONS.index(TOO_FEW)
    values = score[ranked]
    if values.min() == values.max():
        return REASONS.index(ALL_EQUAL)
    order = ranked[np.argsort(-values, kind="stable")]  # members are in the order of their names
    count = len(ranked) // rule.quantiles if rule.count is None else rule.count
    is_both = rule.side == LONG_SHORT
    count = min(count, len(ranked) // 2 if is_both else len(ranked))
    if count < 1:
        return REASONS.index(TOO_FEW)
    middle = values.mean()
    for held, sign in ((order[:count], 1.0), (order[-count:], -1.0))[: 2 if is_both else 1]:
        if rule.weights == BY_SCORE:
            raw = np.maximum(sign * (score[held] - middle), 0.0)
        elif volatility is not None:
            raw = 1.0 / volatility[held]
        else:
            raw = np.ones(len(held))
        out[held] = sign * (raw / raw.sum()) * (0.5 if is_both else 1.0)
    return REASONS.index(TRADED)


def require_weights(weight: np.ndarray, names: list[str]) -> None:
    """Raises InvalidInput unless each row is finite and its absolute weights sum to 0 or 1."""
    gross = np.abs(weight).sum(axis=1)
    bad = ~(np.isfinite(gross) & ((gross == 0) | (np.abs(gross - 1.0) <= _SUM_ROUNDING)))
    if bad.any():
        row = int(bad.argmax())
        raise InvalidInput(
            f"weights of {names[row]} sum to {float(gross[row])!r} in absolute value; they must "
            "sum to 1, or be all 0 for cash"
        )
