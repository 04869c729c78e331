"""Response models: pages of lists, and series by column."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

import pyarrow as pa
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field, computed_field

from backtest_pipeline.research.ranking.trials import CountingRule
from backtest_pipeline.storage.tables.jobs import Status


class JobDetail(BaseModel):
    """A job; `error_code` and `error_message` say why it failed."""

    model_config = ConfigDict(from_attributes=True)

    job_id: UUID
    kind: str
    status: Status
    config: dict[str, Any] = Field(description="The submitted spec.")
    strategy: str | None
    symbols: list[str]
    timeframes: list[str]
    created_by: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    progress_pct: float
    stage: str
    n_units: int = Field(description="Units of work, such as an asset at a timeframe.")
    units_stored: int
    attempt_count: int
    cancel_requested_at: datetime | None
    timeout_s: int
    error_code: str | None
    error_message: str | None
    dagster_run_id: str | None
    result_run_ids: list[UUID]
    resumes: UUID | None = Field(description="The job that this one resumes.")


class Jobs(BaseModel):
    """A page of jobs, newest first."""

    rows: list[JobDetail]
    next: str | None = Field(description="Pass it as `after` to get the next page.")


class RunRow(BaseModel):
    """A stored run in a list; undefined metrics are null, returns are fractions, not percent."""

    run_id: UUID
    signal_name: str
    strategy: str
    params: dict[str, Any]
    symbol: str
    synthetic: bool = Field(description="Whether the bars are synthetic, not of a real market.")
    timeframe: str
    split: str
    window_start: date | None
    window_end: date | None
    status: str
    completed_at: datetime
    is_current: bool
    pinned: bool
    quarantined_at: datetime | None
    total_return: float | None
    sharpe: float | None
    max_drawdown: float | None
    trade_count: int | None

    @computed_field(description="Path of its report, a page.")
    @property
    def report(self) -> str:
        return f"/backtests/{self.run_id}/report"


class Runs(BaseModel):
    """A page of runs, newest first."""

    rows: list[RunRow]
    next: str | None = Field(description="Pass it as `after` to get the next page.")


class Trade(BaseModel):
    """A trade; profit is after costs, in the quote currency."""

    trade_no: int
    entry_ts: datetime
    exit_ts: datetime
    entry_price: float
    exit_price: float
    direction: str
    size: float
    fees: float
    slippage_cost: float
    pnl: float
    pnl_pct: float
    mae: float
    mfe: float
    bars_held: int
    entry_stop: float | None = Field(description="the stop as it was set at the entry")
    entry_stop_kind: str | None
    exit_stop: float | None = Field(description="the stop as it stood at the exit")
    exit_stop_kind: str | None
    exit_reason: str
    is_open: bool
    entry_after_gap: bool
    exit_after_gap: bool | None = Field(description="null in runs that did not record it")
    held_across_gap: bool | None = Field(description="null in runs that did not record it")
    symbol: str | None = Field(
        description="the asset that was traded, where several share an account; else null"
    )
    is_part: bool | None = Field(
        description="whether a part of the position went on; null in runs on one asset"
    )


class TradesPage(BaseModel):
    """A page of trades, by number."""

    rows: list[Trade]
    next: str | None


class RunSummary(BaseModel):
    """Results and metrics of a run; `undefined` says why a metric is null."""

    run_id: UUID
    name: str
    results: dict[str, Any]
    metrics: dict[str, float | None]
    significance: dict[str, float | None]
    counting_rule: CountingRule = Field(description="what n_trials counts")
    undefined: dict[str, str]


class SeriesColumns(BaseModel):
    """Columns of equal length: `ts` (bar closes) or `day`, then values; null is undefined."""

    run_id: UUID
    columns: dict[str, list[datetime] | list[date] | list[float | None]]


def series_of(run_id: UUID, table: pa.Table) -> SeriesColumns:
    """A table as columns."""
    return SeriesColumns(
        run_id=run_id, columns={n: table[n].to_pylist() for n in table.column_names}
    )


def html_page(html: str, policy: str) -> HTMLResponse:
    """A page under its content security policy, which no other page may frame."""
    policy = f"{policy}; frame-ancestors 'none'"
    return HTMLResponse(html, headers={"Content-Security-Policy": policy})
