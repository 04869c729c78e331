"""Answers to questions: what the service, jobs and programs get, as typed JSON values.

A metric that is undefined is null, with the reason beside it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Metrics = dict[str, float | None]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class BacktestAnswer(_Answer):
    """A run, which is stored; the rest of it is at `/backtests/{run_id}`."""

    kind: Literal["run"] = "run"
    run_id: UUID
    strategy: str
    signal: str
    params: dict[str, Any]
    symbol: str
    timeframe: str
    first_ts: datetime = Field(description="close of the first bar, UTC")
    last_ts: datetime = Field(description="close of the last bar, UTC")
    n_bars: int
    pending: str | None = Field(description="what the last bar's signal does at the next open")
    liquidated: bool
    refused_entries: int
    metrics: Metrics = Field(description="docs/metrics.md; fractions, not percent")
    significance: Metrics
    undefined: dict[str, str] = Field(description="why a metric is null")
    snapshot_id: str
    dataset_version_ids: dict[str, str]
    config_hash: str
    result_fingerprint: str

    @property
    def run_ids(self) -> list[UUID]:
        return [self.run_id]


class Fold(_Answer):
    """A training window, what was chosen on it, and what that came to afterwards."""

    fold: int
    train_start: datetime
    train_end: datetime
    test_start: datetime
    test_end: datetime
    params: dict[str, Any] | None
    score: float | None
    n_combinations: int
    train: Metrics
    test: Metrics


class WalkForwardAnswer(BacktestAnswer):
    """The stitched out-of-sample run with its folds."""

    kind: Literal["walkforward"] = "walkforward"  # pyright: ignore[reportIncompatibleVariableOverride]
    verdict: Literal["passed", "overfit", "insignificant", "undefined"]
    reason: str
    efficiency: float | None
    threshold: float
    train_sharpe: float | None
    test_sharpe: float | None
    n_judged: int
    folds: list[Fold]


class Combination(_Answer):
    """A combination of parameters and what it came to."""

    params: dict[str, Any]
    metrics: Metrics


class OptimizeAnswer(_Answer):
    """A sweep; each combination counts as a trial, and the best is stored as a run."""

    kind: Literal["optimize"] = "optimize"
    strategy: str
    symbol: str
    timeframe: str
    n_bars: int
    metric: str
    n_combinations: int
    left_out: int = Field(description="combinations that make no sense")
    ranked: list[Combination]
    best_run: BacktestAnswer
    selection: Metrics = Field(description="how far the best can be luck; docs/research.md")
    undefined: dict[str, str]
    warning: str

    @property
    def run_ids(self) -> list[UUID]:
        return self.best_run.run_ids


class Member(_Answer):
    """An asset of a portfolio, with its run."""

    symbol: str
    run_id: UUID
    total_return: float | None
    sharpe: float | None


class PortfolioAnswer(_Answer):
    """A portfolio, which is stored with the runs of its members."""

    kind: Literal["portfolio"] = "portfolio"
    portfolio_id: UUID
    strategy: str
    signal: str
    timeframe: str
    scheme: str
    first_ts: datetime
    last_ts: datetime
    members: list[Member]
    n_rebalances: int
    left_out: dict[str, int]
    metrics: Metrics
    undefined: dict[str, str]
    snapshot_id: str
    result_fingerprint: str

    @property
    def run_ids(self) -> list[UUID]:
        return [member.run_id for member in self.members]


Answer = Annotated[
    BacktestAnswer | WalkForwardAnswer | OptimizeAnswer | PortfolioAnswer,
    Field(discriminator="kind"),
]
