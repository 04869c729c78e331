"""Blocked entries and exits of runs, and the plans that runs followed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from backtest_pipeline.pipeline.runs import blocked_entries
from backtest_pipeline.service.auth.authentication import Viewer
from backtest_pipeline.service.problems import AUTHENTICATED, documented
from backtest_pipeline.service.routes.filters import After, BlockQuery, Limit
from backtest_pipeline.service.routes.runs import RunId
from backtest_pipeline.service.routes.store import Store
from backtest_pipeline.storage.run_tables.block_events import BlockFilter

Group = Literal["reason", "trigger", "symbol", "side", "day"]
router = APIRouter(tags=["blocks"], responses=documented(*AUTHENTICATED))
_STORED = documented("RUN_NOT_FOUND")
_RUN = "6f1c2a34-5b6d-5e7f-8a9b-0c1d2e3f4a5b"
_BLOCK = {
    "event_no": 1,
    "ts": "2024-03-01T23:59:59.999000Z",
    "symbol": "S-ALPHA",
    "timeframe": "1D",
    "trigger_id": None,
    "side": "long",
    "qty": 12.5,
    "reason": "insufficient_cash",
    "class": "risk_valid",
    "detail": "order below min_notional",
}
_COUNTED = {
    "run_id": _RUN,
    "signal_name": "ema_9_21",
    "strategy": "ema_crossover",
    "symbol": "S-ALPHA",
    "timeframe": "1D",
    "completed_at": "2024-06-01T08:00:00Z",
    "total": 3,
    "causes": [{"reason": "insufficient_cash", "class": "risk_valid", "count": 3}],
}
_PLAN = {
    "replan_sequence": 1,
    "plan_id": "p-1",
    "generated_at_actual": "2024-06-01T08:00:00Z",
    "effective_ts": "2024-03-01T00:00:00Z",
    "valid_until": "2024-03-02T00:00:00Z",
    "replan_reasons": ["initial_plan"],
    "origin": "valid",
    "model": None,
    "suppressed": 0,
    "plan": {"regime": "bull", "stance": "active"},
    "prompt_hash": None,
    "response_hash": None,
    "transcript": None,
    "opinion": None,
}


class Block(BaseModel):
    """A blocked entry or exit; `qty` is the size that was asked for, null if undefined."""

    model_config = ConfigDict(json_schema_extra={"example": _BLOCK})

    event_no: int
    ts: datetime = Field(description="Close of the bar at whose open it was due.")
    symbol: str
    timeframe: str
    trigger_id: str | None
    side: str
    qty: float | None
    reason: str
    class_: str = Field(alias="class")
    detail: str


class Blocks(BaseModel):
    """A page of blocked entries and exits, by number."""

    model_config = ConfigDict(json_schema_extra={"example": {"rows": [_BLOCK], "next": None}})

    rows: list[Block]
    next: str | None


class CauseCount(BaseModel):
    """Number of blocked entries and exits of a run for one reason."""

    reason: str
    class_: str = Field(alias="class")
    count: int


class CauseGroup(BaseModel):
    """Blocked entries and exits of a run with the same reason, trigger, symbol, side or day."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "of": "daily_cap",
                "class": "risk_valid",
                "count": 4,
                "share": 0.25,
                "first_ts": "2024-03-01T23:59:59.999000Z",
                "last_ts": "2024-05-01T23:59:59.999000Z",
                "detail": "day loss -2.3 % <= limit -2.0 %",
            }
        }
    )

    of: str | None = Field(description="The reason, trigger, symbol, side or day.")
    class_: str | None = Field(None, alias="class", description="Where counted by reason.")
    count: int
    share: float = Field(description="Of all blocked entries and exits of the run, fraction.")
    first_ts: datetime
    last_ts: datetime
    detail: str = Field(description="That of the newest.")


class CauseGroups(BaseModel):
    """Blocked entries and exits of a run, the most frequent first; by day, in order of time."""

    rows: list[CauseGroup]


class RunBlocks(BaseModel):
    """Blocked entries and exits of a run by reason, most frequent first."""

    run_id: UUID
    signal_name: str
    strategy: str
    symbol: str
    timeframe: str
    completed_at: datetime
    total: int
    causes: list[CauseCount]


class BlocksByRun(BaseModel):
    """A page of runs with blocked entries or exits, newest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"rows": [_COUNTED], "next": None}})

    rows: list[RunBlocks]
    next: str | None = Field(description="Pass it as `after` to get the next page.")


class PlanEntry(BaseModel):
    """A plan, why it was made, and when it took effect."""

    replan_sequence: int
    plan_id: str
    generated_at_actual: datetime = Field(description="Wall-clock time at which it was made.")
    effective_ts: datetime = Field(description="Market time from which it applies.")
    valid_until: datetime = Field(description="No entries after it, market time.")
    replan_reasons: list[str]
    origin: str = Field(description="valid, retried or fallback: how it came about.")
    model: str | None = Field(description="Language model that was asked; null if none was.")
    suppressed: int = Field(description="Replans after it that would have changed nothing.")
    plan: dict[str, Any]
    prompt_hash: str | None = Field(description="Null if no language model was used.")
    response_hash: str | None
    transcript: str | None = Field(description="Hash of the recorded conversation with the model.")
    opinion: str | None = Field(
        description="Hash of the conversation in which a model judged it after the run; null if "
        "none was asked."
    )


class Plans(BaseModel):
    """The plans that a run followed; empty for a run without a strategist."""

    model_config = ConfigDict(json_schema_extra={"example": {"rows": [_PLAN]}})

    rows: list[PlanEntry]


@router.get("/backtests/{run_id}/blocks", responses=_STORED)
def blocks(
    run_id: RunId, store: Store, _user: Viewer, limit: Limit = 100, after: After = None
) -> Blocks:
    """List the blocked entries and exits of a run, by number."""
    page = blocked_entries.run_blocks(store, run_id, limit=limit, after=after)
    return Blocks.model_validate(page, from_attributes=True)


@router.get("/backtests/{run_id}/blocks/causes", responses=_STORED)
def causes(run_id: RunId, store: Store, _user: Viewer, by: Group = "reason") -> CauseGroups:
    """Count the blocked entries and exits of a run by reason, trigger, symbol, side or day."""
    rows = blocked_entries.run_causes(store, run_id, by)
    column = "trigger_id" if by == "trigger" else by
    shown = [{**row, "of": None if row[column] is None else str(row[column])} for row in rows]
    return CauseGroups.model_validate({"rows": shown})


@router.get("/backtests/{run_id}/plans", responses=_STORED)
def plans(run_id: RunId, store: Store, _user: Viewer) -> Plans:
    """List the plans that a run followed, in order."""
    return Plans.model_validate({"rows": blocked_entries.run_plans(store, run_id)})


@router.get("/blocks")
def blocks_by_run(
    filters: Annotated[BlockQuery, Query()], store: Store, _user: Viewer
) -> BlocksByRun:
    """Count blocked entries and exits by run and reason, newest run first."""
    blocked = BlockFilter(**filters.model_dump(exclude={"limit", "after"}))
    page = blocked_entries.blocks_by_run(store, blocked, limit=filters.limit, after=filters.after)
    return BlocksByRun.model_validate(page, from_attributes=True)
