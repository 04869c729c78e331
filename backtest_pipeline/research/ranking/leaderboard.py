"""The leaderboard: runs ranked by deflated Sharpe ratio, with gates and composite scores.

The best Sharpe ratio of many runs grows with their number, skill or no skill. So a run is ranked by
its deflated Sharpe ratio: the probability that its true Sharpe ratio is above the best that its
family of trials would reach by luck, if none of them had an edge. Picking the best family too adds
one chance per family; the gates correct for that (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.research.ranking.trials import Family, deflate
from backtest_pipeline.research.robustness.neighbourhood import LOWER_IS_BETTER
from backtest_pipeline.simulation.metrics.significance import SharpeMoments

LEADERBOARD_VERSION = 3
"""Raise it when the same runs get another rank, score or gate result."""
TRIED = ("n_trials", "n_trials_effective", "n_families")
RUN_COLUMNS = (
    *("n_days", "sharpe", "sortino", "calmar", "annual_volatility", "skew", "kurtosis"),
    *("max_drawdown", "max_drawdown_duration_days", "expected_shortfall_95", "total_return"),
    *("trade_count", "profit_factor", "win_rate", "turnover", "information_ratio"),
    *("costs_paid", "initial_cash"),
    *TRIED,
)
"""Columns that a board needs of each run: metrics of docs/metrics.md, and

- n_days: number of daily returns behind the Sharpe ratio;
- costs_paid: fees, slippage and funding, in the currency of `initial_cash`;
- initial_cash: starting equity;
- n_trials, n_trials_effective: number of trials of the run's family, and of effectively
  independent ones among them;
- n_families: number of families tried.
"""
DERIVED = ("psr", "dsr", "dsr_effective", "dsr_across_families", "cost_share")

GATED = (*RUN_COLUMNS, *DERIVED)


def with_significance(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the DERIVED columns added; NaN where undefined.

    - psr: probabilistic Sharpe ratio against zero, as if the run were the only trial;
    - dsr: deflated Sharpe ratio, for `n_trials` trials;
    - dsr_effective: deflated Sharpe ratio, for `n_trials_effective` trials;
    - dsr_across_families: max(1 - n_families * (1 - dsr), 0), corrected for picking the best of
      all families (Bonferroni);
    - cost_share: costs / (profit + costs); undefined without a profit before costs.

    Args:
        runs: RUN_COLUMNS, one row per run; `sharpe` is annualised with 365 days.
    """
    measured = (runs[name].to_numpy(float) for name in ("sharpe", "skew", "kurtosis", "n_days"))
    sharpe, skew, kurtosis, n_days = measured
    families = [
        Family(int(n), float(effective))
        for n, effective in zip(runs["n_trials"], runs["n_trials_effective"], strict=True)
    ]
    significance = deflate(SharpeMoments(sharpe / np.sqrt(365.0), skew, kurtosis, n_days), families)
    gross_profit = runs["total_return"] * runs["initial_cash"] + runs["costs_paid"]
    return runs.assign(
        **vars(significance),
        dsr_across_families=np.maximum(1 - runs["n_families"] * (1 - significance.dsr), 0.0),
        cost_share=(runs["costs_paid"] / gross_profit.where(gross_profit > 0)).astype(float),
    )


@dataclass(frozen=True)
class Scheme:
    """A composite score: the weighted mean of a run's percentile ranks on the board.

    Attributes:
        name: name of the scheme.
        about: the qualities that it measures.
        weights: weight of each metric; of those in LESS_IS_BETTER a lower value ranks higher.
    """

    name: str
    about: str
    weights: Mapping[str, float]


LESS_IS_BETTER = LOWER_IS_BETTER | {"cost_share"}
SCHEMES = (
    Scheme(
        "balanced",
        "significance, risk-adjusted return, drawdown and costs",
        {"dsr": 3, "sharpe": 2, "calmar": 2, "max_drawdown": 2, "cost_share": 1},
    ),
    Scheme(
        "risk_focus",
        "drawdown, tail loss and volatility",
        {
            "max_drawdown": 3,
            "expected_shortfall_95": 2,
            "annual_volatility": 2,
            "max_drawdown_duration_days": 2,
            "sortino": 1,
        },
    ),
    Scheme(
        "quality",
        "significance, number of trades, and their consistency",
        {"dsr": 4, "trade_count": 2, "profit_factor": 2, "win_rate": 1, "information_ratio": 1},
    ),
    Scheme(
        "low_cost",
        "costs as a share of profit, and turnover",
        {"cost_share": 4, "turnover": 3, "sharpe": 2, "dsr": 1},
    ),
)


def scheme_of(name: str) -> Scheme:
    """The scheme with this name; raises UnknownName if there is none."""
    for scheme in SCHEMES:
        if scheme.name == name:
            return scheme
    raise UnknownName("scheme", name, [scheme.name for scheme in SCHEMES])


def score(runs: pd.DataFrame, scheme: Scheme) -> np.ndarray:
    """Composite score of each run, between 0 and 1.

    Each component is the share of the board's other runs that the run beats, ties counting half;
    an undefined metric scores 0 and ranks behind all defined ones. Ranks are immune to outliers,
    and a run that improves in one component never scores lower. A z-score cannot promise that,
    since the run itself changes the standard deviation.

    Args:
        runs: RUN_COLUMNS and DERIVED.
        scheme: the metrics and their weights.

    Returns:
        float64 `(n_runs,)`; the only run of a board scores 0.5 in each defined component.
    """
    shares = [weight * _share_behind(runs, metric) for metric, weight in scheme.weights.items()]
    return np.sum(shares, axis=0) / sum(scheme.weights.values())


def _share_behind(runs: pd.DataFrame, metric: str) -> np.ndarray:
    values = pd.Series(runs[metric]).astype(float)
    known = values.notna().to_numpy()
    others = len(values) - 1
    if others == 0:
        return np.where(known, 0.5, 0.0)
    ranks = values.rank(ascending=metric not in LESS_IS_BETTER).to_numpy()
    return np.where(known, (ranks - 1 + np.count_nonzero(~known)) / others, 0.0)


@dataclass(frozen=True)
class Gate:
    """A bound on a metric; an undefined metric fails it.

    Attributes:
        name: name of the gate, as boards show it.
        metric: one of RUN_COLUMNS or DERIVED.
        at_least, at_most: the bound; exactly one of the two.
    """

    name: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise InvalidInput(f"gate {self.name}: give exactly one of at_least and at_most")
        bound = self.at_most if self.at_least is None else self.at_least
        if not isinstance(bound, int | float) or not math.isfinite(bound):
            raise InvalidInput(f"gate {self.name}: its bound must be a number, not {bound!r}")
        if self.metric not in GATED:
            raise UnknownName(f"metric of gate {self.name}", self.metric, GATED)

    def passed(self, runs: pd.DataFrame) -> np.ndarray:
        """Whether each run passes, bool `(n_runs,)`."""
        values = pd.Series(runs[self.metric]).to_numpy(float)
        least = -np.inf if self.at_least is None else self.at_least
        most = np.inf if self.at_most is None else self.at_most
        return (values >= least) & (values <= most)


@dataclass(frozen=True)
class Board:
    """Ranked runs with their scores and gates.

    Attributes:
        runs: the runs with DERIVED and `rank`, which starts at 1; best first.
        scores: float64, one column per scheme, on the index of `runs`.
        gates: bool, True where passed, one column per gate, on the index of `runs`.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    gates: pd.DataFrame

    @property
    def passed(self) -> np.ndarray:
        """Whether each run passes every gate, bool `(n_runs,)`."""
        return np.logical_and.reduce(self.gates.to_numpy(bool), axis=1)


def board(judged: pd.DataFrame, gates: Sequence[Gate]) -> Board:
    """Rank runs by their deflated Sharpe ratio.

    Ties (it can round to 1) are broken by the balanced score, then by the order of the rows.

    Args:
        judged: RUN_COLUMNS and DERIVED; `dsr` must be defined in every row.
        gates: at least one gate.

    Raises:
        InvalidInput: without a gate, or if a run has no `dsr`.
    """
    if not gates:
        raise InvalidInput("the board needs at least one gate: without one every run would pass")
    if np.isnan(judged["dsr"].to_numpy(float)).any():
        raise InvalidInput(
            "a run without a deflated Sharpe ratio (dsr) cannot be ranked; leave it out"
        )
    scores = pd.DataFrame({s.name: score(judged, s) for s in SCHEMES}, index=judged.index)
    order = np.lexsort((-scores["balanced"].to_numpy(), -judged["dsr"].to_numpy(float)))
    ranked = judged.iloc[order].assign(rank=np.arange(1, len(order) + 1))
    passed = {gate.name: gate.passed(ranked) for gate in gates}
    return Board(ranked, scores.iloc[order], pd.DataFrame(passed, index=ranked.index))


def gates_of(rows: Sequence[Mapping[str, object]]) -> tuple[Gate, ...]:
    """Gates from JSON objects with the fields of `Gate`.

    Raises:
        InvalidInput: for an object that is not a gate, no gate at all, or a repeated name.
    """
    try:
        gates = tuple(Gate(**row) for row in rows)  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        raise InvalidInput(
            f"a gate needs a name, a metric, and a number at_least or at_most: {error}"
        ) from error
    if not gates or len({gate.name for gate in gates}) < len(gates):
        raise InvalidInput("a set of gates needs at least one gate, and each name only once")
    return gates
