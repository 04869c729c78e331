"""Plan books: their plans, what each plan changed, and replans on request."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from backtest_pipeline.market.field_problems import LOWER_NAME, PLAIN
from backtest_pipeline.pipeline.planning import books
from backtest_pipeline.service.auth.authentication import Runner, Viewer
from backtest_pipeline.service.problem_handlers import require_json_if_any
from backtest_pipeline.service.problems import AUTHENTICATED, SENT, documented
from backtest_pipeline.service.routes.store import Store

router = APIRouter(prefix="/plans", tags=["plans"], responses=documented(*AUTHENTICATED))
_KNOWN = documented("BAD_PARAMS")
Book = Annotated[str, Path(max_length=63, pattern=LOWER_NAME, description="Name of a plan book.")]
Number = Annotated[int, Path(ge=1, le=10_000_000, description="Sequence of the plan.")]
Other = Annotated[int, Query(ge=1, le=10_000_000, description="Sequence of a plan.")]


class PlanBookInfo(BaseModel):
    """Symbols at timeframes that one strategist plans for."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    symbols: list[str]
    timeframes: list[str]
    strategist: str
    config: dict[str, Any] = Field(description="Options of the strategist.")
    replans: dict[str, Any] = Field(description="When it is planned again.")
    start: date | None
    created_by: str
    created_at: datetime


class PlanBooks(BaseModel):
    """All plan books, by name."""

    rows: list[PlanBookInfo]


class BookPlan(BaseModel):
    """A plan of a book, and how it came about."""

    model_config = ConfigDict(from_attributes=True)

    sequence: int
    plan_id: str
    generated_at: datetime = Field(description="The last instant whose data it saw.")
    generated_at_actual: datetime = Field(description="Wall-clock time at which it was made.")
    effective_ts: datetime = Field(description="Market time from which it applies.")
    valid_until: datetime = Field(description="No entries after it, market time.")
    replan_reasons: list[str]
    origin: str = Field(description="valid, retried or fallback.")
    origin_detail: str
    model: str | None
    suppressed: int = Field(description="Replans after it that would have changed nothing.")
    plan: dict[str, Any]


class ReplanRequest(BaseModel):
    """A trigger of a replan, and whether it is answered."""

    request_id: int
    reason: str
    detail: str
    requested_by: str
    requested_at: datetime
    status: str = Field(description="waiting, planned, or suppressed: nothing would have changed.")
    attempt: int
    error: str | None
    sequence: int | None = Field(description="The plan that answers it.")
    origin: str | None = Field(description="valid, retried or fallback; null while it waits.")
    origin_detail: str | None = Field(description="Why it was retried or fell back.")


class BookHistory(BaseModel):
    """A plan book with its plans in order, and its newest requests for replans."""

    book: PlanBookInfo
    plans: list[BookPlan]
    requests: list[ReplanRequest]


class PlanDifference(BaseModel):
    """What a plan changed against another one of its book."""

    model_config = ConfigDict(from_attributes=True)

    before: int
    after: int
    replan_reasons: list[str] = Field(description="Why the later one was made.")
    fields: dict[str, tuple[Any, Any]] = Field(description="Before and after, null: the default.")
    added: list[dict[str, Any]]
    removed: list[dict[str, Any]]
    kept: int = Field(description="Triggers that both have.")


class ReplanKey(BaseModel):
    """A key that tells the request from others: the same one asks once."""

    model_config = ConfigDict(extra="forbid")

    key: str | None = Field(None, min_length=1, max_length=100, pattern=PLAIN)


class ReplanAsked(BaseModel):
    """Whether the request is new; the sensor `replans` launches it."""

    book: str
    is_new: bool


@router.get("")
def list_books(store: Store, _user: Viewer) -> PlanBooks:
    """List the plan books."""
    rows = [PlanBookInfo.model_validate(book) for book in books.all_books(store)]
    return PlanBooks(rows=rows)


@router.get("/{book}", responses=_KNOWN)
def show_book(book: Book, store: Store, _user: Viewer) -> BookHistory:
    """Show a plan book with its plans and its newest requests for replans."""
    return BookHistory.model_validate(books.show_book(store, book), from_attributes=True)


@router.get("/{book}/diff", responses=_KNOWN)
def diff(book: Book, store: Store, _user: Viewer, before: Other, after: Other) -> PlanDifference:
    """Show what a plan changed against another one."""
    return PlanDifference.model_validate(books.compare_plans(store, book, before, after))


@router.get("/{book}/{sequence}", responses=_KNOWN)
def show_plan(book: Book, sequence: Number, store: Store, _user: Viewer) -> BookPlan:
    """Show a plan of a book."""
    return BookPlan.model_validate(books.show_plan(store, book, sequence))


@router.post(
    "/{book}/replan",
    status_code=202,
    responses={**_KNOWN, **documented(*SENT)},
    dependencies=[Depends(require_json_if_any)],
)
def replan(book: Book, store: Store, user: Runner, asked: ReplanKey | None = None) -> ReplanAsked:
    """Ask for a replan of a book, which Dagster's daemon launches; anew each time without a key."""
    key = None if asked is None else asked.key
    return ReplanAsked(book=book, is_new=books.request_replan(store, book, user.name, key))
