"""Runs in the order of what they prove: deflated significance, gates, and composite scores.

The Sharpe ratio of the best of many runs says how many were tried. A run is therefore ranked by
its deflated Sharpe ratio: the probability that its true Sharpe ratio is above what the best of its
family, were all of them worth nothing, would reach by luck. Who may choose the family too has one
more chance per family, which the gates allow for (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.research.ranking.trials import Family, deflate
from backtest_pipeline.simulation.metrics.significance import SharpeMoments

LEADERBOARD_VERSION = 2
"""Raise it when the same runs are ranked, scored or gated otherwise."""
TRIED = ("n_trials", "n_trials_effective", "n_families")
RUN_COLUMNS = (
    *("n_days", "sharpe", "sortino", "calmar", "annual_volatility", "skew", "kurtosis"),
    *("max_drawdown", "max_drawdown_duration_days", "expected_shortfall_95", "total_return"),
    *("trade_count", "profit_factor", "win_rate", "turnover", "information_ratio"),
    *("costs_paid", "initial_cash"),
    *TRIED,
)
"""What a board reads of each run: metrics of docs/metrics.md, and

- n_days: daily returns that the Sharpe ratio was measured on;
- costs_paid: fees, slippage and funding;
- initial_cash: starting equity, in the currency of the costs;
- n_trials, n_trials_effective: trials of the run's family, that the best of it was chosen from:
  each counting, and of their own kind;
- n_families: families that were tried.
"""
DERIVED = ("psr", "dsr", "dsr_effective", "dsr_across_families", "cost_share")

GATED = (*RUN_COLUMNS, *DERIVED)


def with_significance(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with DERIVED columns; NaN where undefined.

    - psr: probability that the true Sharpe ratio is above zero, as if the run were the only one;
    - dsr: the same above what the best of `n_trials` would reach by luck;
    - dsr_effective: the same for `n_trials_effective`;
    - dsr_across_families: 1 - n_families * (1 - dsr), at least 0 (Bonferroni): what is left of the
      probability where the best of all families is taken;
    - cost_share: costs / (profit + costs), undefined where nothing was earned before costs.

    Args:
        runs: RUN_COLUMNS, one row per run; `sharpe` is annual, of 365 days.
    """
    measured = (runs[name].to_numpy(float) for name in ("sharpe", "skew", "kurtosis", "n_days"))
    sharpe, skew, kurtosis, n_days = measured
    families = [
        Family(int(n), float(effective))
        for n, effective in zip(runs["n_trials"], runs["n_trials_effective"], strict=True)
    ]
    worth = deflate(SharpeMoments(sharpe / np.sqrt(365.0), skew, kurtosis, n_days), families)
    earned = runs["total_return"] * runs["initial_cash"] + runs["costs_paid"]
    return runs.assign(
        **vars(worth),
        dsr_across_families=np.maximum(1 - runs["n_families"] * (1 - worth.dsr), 0.0),
        cost_share=(runs["costs_paid"] / earned.where(earned > 0)).astype(float),
    )


@dataclass(frozen=True)
class Component:
    """A metric within a score, and which way is better."""

    metric: str
    higher_is_better: bool
    weight: float


@dataclass(frozen=True)
class Scheme:
    """A composite score: the weighted mean of what share of the board a run is ahead of."""

    name: str
    about: str
    components: tuple[Component, ...]


SCHEMES = (
    Scheme(
        "balanced",
        "significance, return for risk, drawdown and costs",
        (
            Component("dsr", True, 3),
            Component("sharpe", True, 2),
            Component("calmar", True, 2),
            Component("max_drawdown", True, 2),
            Component("cost_share", False, 1),
        ),
    ),
    Scheme(
        "risk_focus",
        "how little there was to bear",
        (
            # A drawdown is negative, and so is a shortfall: the higher, the smaller the loss.
            Component("max_drawdown", True, 3),
            Component("expected_shortfall_95", True, 2),
            Component("annual_volatility", False, 2),
            Component("max_drawdown_duration_days", False, 2),
            Component("sortino", True, 1),
        ),
    ),
    Scheme(
        "quality",
        "how much evidence there is, and how even the trades are",
        (
            Component("dsr", True, 4),
            Component("trade_count", True, 2),
            Component("profit_factor", True, 2),
            Component("win_rate", True, 1),
            Component("information_ratio", True, 1),
        ),
    ),
    Scheme(
        "low_cost",
        "how little of what was earned went to the venue",
        (
            Component("cost_share", False, 4),
            Component("turnover", False, 3),
            Component("sharpe", True, 2),
            Component("dsr", True, 1),
        ),
    ),
)


def scheme_of(name: str) -> Scheme:
    """The scheme of this name; raises UnknownName where there is none."""
    for scheme in SCHEMES:
        if scheme.name == name:
            return scheme
    raise UnknownName("scheme", name, [scheme.name for scheme in SCHEMES])


def score(runs: pd.DataFrame, scheme: Scheme) -> np.ndarray:
    """Composite score of each run, between 0 and 1.

    Each component is the share of the board's other runs that the run is ahead of, ties counting
    half; an undefined metric is behind all that are defined and counts 0. Shares of a board know
    no outlier, and where one run improves in a component, no other run gains: a better run is
    never scored lower, which dividing by a deviation that the run itself changes cannot promise.

    Args:
        runs: RUN_COLUMNS and DERIVED.
        scheme: its components.

    Returns:
        float64 `(n_runs,)`; a run that is alone is at 0.5 in all that is defined.
    """
    total = sum(component.weight for component in scheme.components)
    shares = [component.weight * _share_behind(runs, component) for component in scheme.components]
    return np.sum(shares, axis=0) / total


def _share_behind(runs: pd.DataFrame, component: Component) -> np.ndarray:
    values = pd.Series(runs[component.metric]).astype(float)
    known = values.notna().to_numpy()
    others = len(values) - 1
    if others == 0:
        return np.where(known, 0.5, 0.0)
    ranks = values.rank(ascending=component.higher_is_better).to_numpy()
    return np.where(known, (ranks - 1 + np.count_nonzero(~known)) / others, 0.0)


@dataclass(frozen=True)
class Gate:
    """A bound that a metric must keep; an undefined metric keeps none.

    Attributes:
        name: what the bound asks for.
        metric: of RUN_COLUMNS or DERIVED.
        at_least, at_most: the bound, one of the two.
    """

    name: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise InvalidInput(f"gate {self.name}: give at_least or at_most, one of the two")
        bound = self.at_most if self.at_least is None else self.at_least
        if not isinstance(bound, int | float) or not math.isfinite(bound):
            raise InvalidInput(f"gate {self.name}: the bound must be a number, not {bound!r}")
        if self.metric not in GATED:
            raise UnknownName(f"metric of gate {self.name}", self.metric, GATED)

    def passed(self, runs: pd.DataFrame) -> np.ndarray:
        """bool `(n_runs,)`."""
        values = pd.Series(runs[self.metric]).to_numpy(float)
        least = -np.inf if self.at_least is None else self.at_least
        most = np.inf if self.at_most is None else self.at_most
        return (values >= least) & (values <= most)


@dataclass(frozen=True)
class Board:
    """Runs in their order.

    Attributes:
        runs: as given, with DERIVED, and `rank` from 1 on; the first row is the best.
        scores: float64, one column per scheme, on the index of `runs`.
        gates: bool, one column per gate, on the index of `runs`.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    gates: pd.DataFrame

    @property
    def passed(self) -> np.ndarray:
        """Whether each run passes every gate, bool `(n_runs,)`."""
        return np.logical_and.reduce(self.gates.to_numpy(bool), axis=1)


def board(judged: pd.DataFrame, gates: Sequence[Gate]) -> Board:
    """The runs ranked by their deflated Sharpe ratio.

    Equal probabilities (it reaches 1 where a run is beyond doubt) are told apart by the balanced
    score, then by the order of the rows.

    Args:
        judged: RUN_COLUMNS and DERIVED; `dsr` is defined in every row.
        gates: bounds to be passed.

    Raises:
        InvalidInput: without a gate, or for a run without a `dsr`.
    """
    if not gates:
        raise InvalidInput("a board needs a gate at least: without one every run passes")
    if np.isnan(judged["dsr"].to_numpy(float)).any():
        raise InvalidInput("a run without a deflated Sharpe ratio has no rank; leave it out")
    scores = pd.DataFrame({s.name: score(judged, s) for s in SCHEMES}, index=judged.index)
    order = np.lexsort((-scores["balanced"].to_numpy(), -judged["dsr"].to_numpy(float)))
    ranked = judged.iloc[order].assign(rank=np.arange(1, len(order) + 1))
    passed = {gate.name: gate.passed(ranked) for gate in gates}
    return Board(ranked, scores.iloc[order], pd.DataFrame(passed, index=ranked.index))


def gates_of(rows: Sequence[Mapping[str, object]]) -> tuple[Gate, ...]:
    """Gates from JSON values.

    Raises:
        InvalidInput: for a row that is no gate, no gate at all, or a name that is there twice.
    """
    try:
        gates = tuple(Gate(**row) for row in rows)  # pyright: ignore[reportArgumentType]
    except TypeError as error:
        raise InvalidInput(
            f"a gate has a name, a metric, and at_least or at_most as a number: {error}"
        ) from error
    if not gates or len({gate.name for gate in gates}) < len(gates):
        raise InvalidInput("a set of gates holds one at least, and each name once")
    return gates
