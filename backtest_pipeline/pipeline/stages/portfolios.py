"""Portfolios of a timeframe: which ones there are, what identifies each, and building one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.pipeline.runs.identity import canonical_json
from backtest_pipeline.pipeline.runs.summary import Run
from backtest_pipeline.pipeline.stages.portfolio_members import Members
from backtest_pipeline.pipeline.versions import PORTFOLIO_CODE
from backtest_pipeline.research.portfolio.diversification import (
    LEAST_COMMON,
    Correlations,
    Diversification,
    contributions,
    diversification,
)
from backtest_pipeline.research.portfolio.portfolio import (
    FIXED,
    PortfolioCurve,
    PortfolioRules,
    form_portfolio,
)
from backtest_pipeline.research.portfolio.weights import EQUAL_WEIGHT, SCHEMES
from backtest_pipeline.simulation.metrics.metrics import (
    METRIC_NAMES,
    equity_metrics,
    undefined_reasons,
)
from backtest_pipeline.trading.costs import CostModel

_NAMESPACE = uuid.UUID("0c1f2c6e-8d1c-5d6e-8b7a-3a4f5e6d7c8b")
ENGINE, ENGINE_VERSION = "scipy", version("scipy")
ALL = "all"
"""The name that portfolios of all strategies have in place of a strategy's."""
_VARIES = "fewer than two returns, or no variation"
FIGURES = {
    "mean_member_sharpe": "no member has a Sharpe ratio",
    "diversification_benefit": "the portfolio or every member has no Sharpe ratio",
    "mean_pairwise_correlation": f"no two members share {LEAST_COMMON} returns that vary",
    "diversification_ratio": _VARIES,
    "effective_bets": _VARIES,
    "return_variance": _VARIES,
    "rebalance_cost": "no rebalance",
    "mean_turnover": "fewer than two rebalances",
}
"""Metrics of a portfolio beyond those of its equity, each with the reason when it is undefined."""


@dataclass(frozen=True)
class RollupConfig:
    """How portfolios are built.

    Attributes:
        costs: cost of a rebalance: fee and slippage on the capital moved.
        initial_cash: starting capital.
        schemes: weighting schemes, each at most once; each strategy gets a portfolio per scheme.
        rebalance, lookback, max_weight: see `research.portfolio.portfolio.PortfolioRules`.
        weights: weights of the scheme FIXED, in the order of the runs.
        risk_free: daily risk-free return, a fraction, that metrics are in excess of; use that of
            the members' runs, or the figures cannot be compared.

    Raises:
        UnknownName, InvalidInput: as PortfolioRules; InvalidInput also for missing or repeated
            schemes.
    """

    costs: CostModel = field(default_factory=CostModel)
    initial_cash: float = 10_000.0
    schemes: tuple[str, ...] = tuple(SCHEMES)
    rebalance: str = "monthly"
    lookback: int = 90
    max_weight: float = 1.0
    risk_free: float = 0.0
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.schemes or len(set(self.schemes)) < len(self.schemes):
            raise InvalidInput(
                f"schemes must be one or more distinct names, not {list(self.schemes)}"
            )
        for scheme in self.schemes:
            self.rules(scheme)

    def rules(self, scheme: str) -> PortfolioRules:
        """The portfolio rules of a scheme."""
        weights = self.weights if scheme == FIXED else ()
        return PortfolioRules(scheme, self.rebalance, self.lookback, self.max_weight, weights)

    @property
    def cost_rate(self) -> float:
        """Cost of moving capital, as a fraction of the capital moved."""
        return (self.costs.fee_bps + self.costs.slippage_bps) / 1e4


@dataclass(frozen=True)
class PortfolioPlan:
    """A portfolio to build: of one strategy's runs, or (ALL) of the strategies' portfolios.

    Attributes:
        run_id: hash of all that can change the result.
        signal_id: None for ALL.
        about: costs and rules, as stored.
        runs: the runs it is built from.
    """

    run_id: uuid.UUID
    timeframe: str
    signal_id: int | None
    signal_name: str
    rules: PortfolioRules
    about: Mapping[str, Any]
    runs: Sequence[Run]


def planned(timeframe: str, runs: Sequence[Run], config: RollupConfig) -> list[PortfolioPlan]:
    """The portfolios to build of these runs, by strategy and scheme, ALL strategies last."""
    by_signal = [
        list(group)
        for _, group in groupby(sorted(runs, key=itemgetter("signal_id")), itemgetter("signal_id"))
    ]

    def plan(
        scheme: str, signal: tuple[int | None, str], members: list[str], rests_on: Sequence[Run]
    ) -> PortfolioPlan:
        about = {
            **asdict(config.rules(scheme)),
            "cost_bps": config.costs.fee_bps + config.costs.slippage_bps,
            "initial_cash": config.initial_cash,
            "risk_free": config.risk_free,
        }
        if scheme in (EQUAL_WEIGHT, FIXED):
            del about["lookback"]
        if scheme != FIXED:
            del about["weights"]
        identity = canonical_json([timeframe, signal[1], about, sorted(members), PORTFOLIO_CODE])
        run_id = uuid.uuid5(_NAMESPACE, identity)
        return PortfolioPlan(run_id, timeframe, *signal, config.rules(scheme), about, rests_on)

    plans = [
        plan(
            scheme,
            (group[0]["signal_id"], group[0]["signal_name"]),
            [str(run["run_id"]) for run in group],
            group,
        )
        for group in by_signal
        for scheme in config.schemes
    ]
    for scheme in config.schemes if plans else ():
        ids = [str(p.run_id) for p in plans if p.signal_id is not None and p.rules.scheme == scheme]
        plans.append(plan(scheme, (None, ALL), ids, runs))
    return plans


@dataclass(frozen=True)
class Portfolio:
    """A simulated portfolio, from its first rebalance on.

    Attributes:
        members: its runs, or portfolios of runs.
        ts: int64 `(n_times,)`, microseconds UTC; empty where it was never formed.
        result: equity at the timestamps `ts`; `rebalance_rows` are positions in them.
        benchmark: float64 `(n_times,)`, equity of the members' benchmarks in equal parts,
            rebalanced on the same schedule at the same costs.
        correlations: between all members.
        diversification: each member's contribution to the risk.
    """

    plan: PortfolioPlan
    members: Members
    ts: np.ndarray
    result: PortfolioCurve
    benchmark: np.ndarray
    correlations: Correlations
    diversification: Diversification

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Metrics of the equity and of the diversification; NaN where undefined."""
        offsets = np.array([0, len(self.ts)])
        of_equity = equity_metrics(
            self.ts,
            offsets,
            self.result.equity[None, :],
            self.benchmark,
            risk_free=self.plan.about["risk_free"],
        )
        metrics = {name: float(of_equity[name][0]) for name in METRIC_NAMES if name in of_equity}
        sharpes = self.members.sharpes[np.isfinite(self.members.sharpes)]
        mean_sharpe = float(sharpes.mean()) if len(sharpes) else np.nan
        moved = self.result.turnover[1:]
        return {
            **metrics,
            "mean_member_sharpe": mean_sharpe,
            "diversification_benefit": metrics["sharpe"] - mean_sharpe,
            "mean_pairwise_correlation": self.correlations.mean_pairwise,
            "diversification_ratio": self.diversification.ratio,
            "effective_bets": self.diversification.effective_bets,
            "return_variance": self.diversification.variance,
            "rebalance_cost": self.result.cost if len(self.ts) else np.nan,
            "mean_turnover": float(moved.mean()) if len(moved) else np.nan,
        }

    @property
    def undefined(self) -> dict[str, str]:
        """The reason for each undefined metric, by name."""
        if not len(self.ts):
            never = (
                f"never formed: at no rebalance did a member have {self.plan.rules.lookback} "
                "returns with any variation"
            )
            members = {"mean_member_sharpe", "mean_pairwise_correlation"}
            reasons = {name: never for name in self.metrics if name not in members}
        else:
            reasons = undefined_reasons(
                {name: value for name, value in self.metrics.items() if name in METRIC_NAMES}
            )
        return {
            name: reasons.get(name) or FIGURES[name]
            for name, value in self.metrics.items()
            if np.isnan(value)
        }


def formed(
    plan: PortfolioPlan, members: Members, correlations: Correlations, config: RollupConfig
) -> Portfolio:
    """Build a planned portfolio of its members, with the benchmark and the diversification."""
    result = form_portfolio(
        members.curves, members.ts, config.initial_cash, config.cost_rate, plan.rules
    )
    ts, benchmark = members.ts[result.start :], np.empty(0)
    if len(ts):
        # Weights held at the first bar are decided at the bar before, as in the portfolio.
        decided = result.start - 1
        benchmark = form_portfolio(
            members.benchmarks[:, decided:],
            members.ts[decided:],
            config.initial_cash,
            config.cost_rate,
            PortfolioRules(rebalance=plan.rules.rebalance),
        ).equity[1:]
    added = contributions(members.curves, result)
    return Portfolio(
        plan, members, ts, result.since_start(), benchmark, correlations, diversification(added)
    )
