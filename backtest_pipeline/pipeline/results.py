"""Result models, one per use case, the same for every caller.

Python returns these models, the service sends them, and `--json` prints them. An undefined metric
is null, with its reason in `undefined`; ratios are fractions (not percent), timestamps are UTC.
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from backtest_pipeline.research.ranking.trials import CountingRule
from backtest_pipeline.trading.engine_names import EngineName

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from backtest_pipeline.pipeline.runs.reports.loaded_runs import LoadedRun

Metrics = dict[str, float | None]
Interval = tuple[float | None, float | None]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class RunResult(_Model):
    """A stored backtest; see `/backtests/{run_id}` for its trades and series."""

    kind: Literal["run", "walkforward", "robustness"] = "run"
    run_id: UUID
    strategy: str
    preset: str | None = Field(description="the registered preset that has these parameters")
    params: dict[str, Any] = Field(description="all parameters of the strategy")
    symbol: str
    timeframe: str
    start: date | None = Field(description="first UTC day of the window; null is unbounded")
    end: date | None = Field(description="UTC day after the window's last; null is unbounded")
    first_ts: datetime = Field(description="close of the first bar, UTC")
    last_ts: datetime = Field(description="close of the last bar, UTC")
    n_bars: int
    synthetic: bool = Field(description="whether the bars are synthetic, not of a real market")
    engine: EngineName = Field(description="who simulated it: account or vectorbt")
    pending: str | None = Field(
        description="position (long, short or flat) that the order pending for the next open "
        "leads to; null for no pending order"
    )
    liquidated: bool
    blocked_entries: int
    conflicting_entries: int = Field(
        description="bars on which both sides would have been entered; nothing was done on them"
    )
    metrics: Metrics = Field(description="docs/metrics.md; fractions, not percent")
    sampling: Literal["daily", "bars"] = Field(
        description="whether value at risk, shortfall, skew and kurtosis are of daily returns, or "
        "of those from bar to bar: where bars are longer than a day and no daily bars mark the run"
    )
    significance: Metrics
    counting_rule: CountingRule = Field(
        description="what n_trials counts, by which dsr is deflated; docs/research.md"
    )
    undefined: dict[str, str] = Field(description="reason for each null metric")
    bands: dict[str, Interval] | None = Field(
        default=None,
        description="nominal 90 % bootstrap intervals by metric, if requested: one band "
        "of a run, of 1,000 draws, which is stored and which every command and page shows",
    )
    rows_by_reason: dict[str, int] = Field(
        description="number of source rows skipped or flagged, by reason"
    )
    trades_by_gap: dict[str, int] = Field(
        description="trades that were entered after, left after or held across missing bars"
    )
    not_fetched_since: datetime | None = Field(
        description="close of the first bar missing from the cache, if the exchange is offline"
    )
    snapshot_id: str
    dataset_version_ids: dict[str, str]
    config_hash: str
    result_fingerprint: str
    artifact_uri: str = Field(description="artifact folder of its series")
    notes: list[str] = Field(default=[], description="defaults applied where nothing was given")

    @property
    def run_ids(self) -> list[UUID]:
        return [self.run_id]

    def report(self, path: str | Path, *, replace: bool = False) -> Path:
        """Write the report of the run as one file that opens offline; see docs/report.md.

        Args:
            path: the file, or a folder to put `<run id>.html` in.
            replace: whether a file that exists is written over.

        Raises:
            ReportNotWritten: where a file exists or cannot be written.

        Examples:
            >>> import tempfile
            >>> from backtest_pipeline import execute
            >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
            >>> result.report(tempfile.mkdtemp()).suffix
            '.html'
        """
        return self._loaded().report(path, replace=replace)

    def plot(self) -> Figure:
        """The run as a Plotly figure: of a walk-forward with its folds and chosen parameters."""
        return self._loaded().plot()

    def _repr_html_(self) -> str:
        return self._loaded()._repr_html_()

    def _loaded(self) -> LoadedRun:
        from backtest_pipeline.pipeline.runs.reports.loaded_runs import (
            loaded_run,
            loaded_walk_forward,
        )
        from backtest_pipeline.pipeline.workspace import open_workspace

        load = loaded_walk_forward if self.kind == "walkforward" else loaded_run
        with open_workspace() as workspace:
            return load(workspace, self.run_id)

    def to_vectorbt(self) -> Any:
        """The run as a `vectorbt.Portfolio`; see `load_vectorbt`, which raises the same.

        Examples:
            >>> from backtest_pipeline import execute
            >>> result = execute({"symbol": "S-ALPHA", "strategy": "ema_crossover"})
            >>> len(result.to_vectorbt().trades.records) == result.metrics["trade_count"]
            True
        """
        from backtest_pipeline.pipeline.stored_runs import load_vectorbt  # only where it is asked

        return load_vectorbt(self.run_id)


class FoldResult(_Model):
    """A training window, the parameters chosen on it, and their result on the test window."""

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


class WalkForwardResult(RunResult):
    """A stitched out-of-sample run with its folds; `params` are the values to choose from."""

    kind: Literal["walkforward"] = "walkforward"  # pyright: ignore[reportIncompatibleVariableOverride]
    verdict: Literal["passed", "overfit", "insignificant", "undefined"]
    reason: str
    efficiency: float | None
    threshold: float
    train_sharpe: float | None
    test_sharpe: float | None
    n_folds: int
    n_judged: int
    n_walk_forwards: int = Field(
        description="as one of how many walk-forwards on the symbol and timeframe it is judged"
    )
    declared_at: datetime | None = Field(
        description="when it was declared, before the first trial of its strategy there; null if "
        "it was not"
    )
    folds: list[FoldResult]


class Declaration(_Model):
    """A walk-forward that was declared before the first trial of its strategy."""

    declaration_id: UUID
    strategy: str
    symbol: str
    timeframe: str
    start: date | None = Field(description="first UTC day of the window; null is unbounded")
    end: date | None = Field(description="UTC day after the window's last; null is unbounded")
    params: dict[str, list[Any]] = Field(description="values to choose from, by parameter")
    declared_at: datetime = Field(description="stamp of the database, UTC")


class RobustnessResult(RunResult):
    """A backtest with its robustness tests; docs/robustness.md explains the numbers."""

    kind: Literal["robustness"] = "robustness"  # pyright: ignore[reportIncompatibleVariableOverride]
    draws: int
    seed: int
    fragile: bool | None
    reasons: list[str]
    numbers: Metrics
    envelope: list[dict[str, Any]]
    robustness_uri: str


class Combination(_Model):
    """A combination of parameters and its metrics."""

    params: dict[str, Any]
    metrics: Metrics


class NeighbourhoodResult(_Model):
    """The metric of the best combination's neighbours in the parameter grid."""

    shape: str
    neighbours: int
    undefined: int
    median: float | None
    worst: float | None
    rank: float | None


class SweepResult(_Model):
    """A sweep: each combination counts as a trial, and the best is stored as a run."""

    kind: Literal["optimize"] = "optimize"
    strategy: str
    symbol: str
    timeframe: str
    n_bars: int
    metric: str
    n_combinations: int
    left_out: int = Field(description="number of invalid combinations left out")
    ranked: list[Combination] = Field(description="best combinations first")
    median: Combination
    worst: Combination
    neighbourhood: NeighbourhoodResult
    best_run: RunResult
    selection: Metrics = Field(
        description="significance of the best combination, given all trials; docs/research.md"
    )
    bands: dict[str, Interval]
    undefined: dict[str, str]
    warning: str

    @property
    def run_ids(self) -> list[UUID]:
        return self.best_run.run_ids


class Member(_Model):
    """A member of a portfolio: a symbol and its run."""

    symbol: str
    run_id: UUID
    total_return: float | None
    sharpe: float | None


class PortfolioResult(_Model):
    """A stored portfolio, with the runs of its members."""

    kind: Literal["portfolio"] = "portfolio"
    portfolio_id: UUID
    strategy: str
    name: str = Field(description="name of the preset, or the strategy with its parameters")
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


class CrossSectionResult(_Model):
    """A stored cross-section; see `/backtests/{run_id}` for its trades, series and files."""

    kind: Literal["cross_section"] = "cross_section"
    run_id: UUID
    strategy: str = Field(description="name of the cross-section")
    params: dict[str, Any] = Field(description="all that it says; docs/cross-section.md")
    symbols: list[str] = Field(description="the universe")
    timeframe: str
    start: date | None = Field(description="first UTC day of the window; null is unbounded")
    end: date | None = Field(description="UTC day after the window's last; null is unbounded")
    first_ts: datetime = Field(description="close of the first bar, UTC")
    last_ts: datetime = Field(description="close of the last bar, UTC")
    n_bars: int
    synthetic: bool = Field(description="whether bars are synthetic, not of a real market")
    liquidated: bool
    metrics: Metrics = Field(description="docs/metrics.md; fractions, not percent")
    significance: Metrics
    information: Metrics = Field(
        description="information coefficients and what goes with them; docs/cross-section.md"
    )
    horizon: int = Field(description="bars that the forward returns of the coefficients reach")
    dates_with_ic: int
    quantiles: list[dict[str, float | None]] = Field(
        description="mean forward return and turnover of each quantile, the lowest scores first"
    )
    rebalances: dict[str, int] = Field(description="number of rebalances by what came of them")
    mean_turnover: float | None = Field(
        description="traded at a rebalance, purchases and sales, as a fraction of the equity"
    )
    delisted: int = Field(description="positions that were closed by the delisting return")
    delisting_return: float
    bars_left_out: dict[str, int] = Field(
        description="bars of the window by asset, from the first one on that cannot be traded on; "
        "the asset counts as delisted there"
    )
    orders_dropped: int = Field(description="orders for assets that had no bar in time")
    undefined: dict[str, str] = Field(description="reason for each null figure")
    snapshot_id: str
    dataset_version_ids: dict[str, str]
    config_hash: str
    result_fingerprint: str
    artifact_uri: str = Field(description="artifact folder of its series and files")
    notes: list[str] = Field(default=[], description="what limits the figures")

    @property
    def run_ids(self) -> list[UUID]:
        return [self.run_id]


Result = Annotated[
    RunResult
    | WalkForwardResult
    | RobustnessResult
    | SweepResult
    | PortfolioResult
    | CrossSectionResult,
    Field(discriminator="kind"),
]
