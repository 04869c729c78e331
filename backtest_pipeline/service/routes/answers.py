"""What routes answer with that no use case names: pages of lists, and series by column."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

import pyarrow as pa
from pydantic import BaseModel, Field


class RunRow(BaseModel):
    """A stored run in a list; undefined metrics are null, fractions are not percent."""

    run_id: UUID
    signal_name: str
    signal_type: str
    params: dict[str, Any]
    symbol: str
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


class Runs(BaseModel):
    """A page of runs, the newest first."""

    rows: list[RunRow]
    next: str | None = Field(description="Ask with it as `after` for the rows after these.")


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
    exit_reason: str
    is_open: bool
    entry_after_gap: bool


class Trades(BaseModel):
    """A page of trades, by number."""

    rows: list[Trade]
    next: str | None


class RunSummary(BaseModel):
    """A run in figures; why one is null stands in `undefined`."""

    run_id: UUID
    name: str
    results: dict[str, Any]
    metrics: dict[str, float | None]
    significance: dict[str, float | None]
    undefined: dict[str, str]


class Series(BaseModel):
    """Columns of equal length: `ts` (close stamps), or `day`, then values; null is undefined."""

    run_id: UUID
    columns: dict[str, list[datetime] | list[date] | list[float | None]]


def series_of(run_id: UUID, table: pa.Table) -> Series:
    """A table as columns."""
    return Series(run_id=run_id, columns={n: table[n].to_pylist() for n in table.column_names})
