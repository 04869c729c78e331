"""Stored portfolios: requested ones, and those of the rollups."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path
from fastapi.responses import HTMLResponse

from backtest_pipeline.pipeline.result_rows import stored_portfolio_result
from backtest_pipeline.pipeline.results import PortfolioResult
from backtest_pipeline.pipeline.runs import query
from backtest_pipeline.pipeline.runs.reports.report import portfolio_page
from backtest_pipeline.service.auth.authentication import Runner, Viewer
from backtest_pipeline.service.problem_handlers import require_json
from backtest_pipeline.service.problems import AUTHENTICATED, SENT, documented
from backtest_pipeline.service.routes.responses import html_page
from backtest_pipeline.service.routes.runs import Pin
from backtest_pipeline.service.routes.store import Store

router = APIRouter(
    prefix="/portfolios/{portfolio_id}",
    tags=["portfolios"],
    responses=documented(*AUTHENTICATED, "RUN_NOT_FOUND"),
)
PortfolioId = Annotated[UUID, Path(examples=["6f1c2a34-5b6d-5e7f-8a9b-0c1d2e3f4a5b"])]


@router.get("")
def portfolio(portfolio_id: PortfolioId, store: Store, _user: Viewer) -> PortfolioResult:
    """Show a stored portfolio; members whose runs were deleted are left out."""
    return stored_portfolio_result(store, portfolio_id)


@router.get("/report", response_class=HTMLResponse)
def report(portfolio_id: PortfolioId, store: Store, _user: Viewer) -> HTMLResponse:
    """Show the report of a portfolio, one self-contained HTML page."""
    document = portfolio_page(store, portfolio_id)
    return html_page(document.html, document.policy)


@router.put(
    "/pin",
    status_code=204,
    responses=documented(*SENT),
    dependencies=[Depends(require_json)],
)
def pin(portfolio_id: PortfolioId, pinned: Pin, store: Store, user: Runner) -> None:
    """Pin a portfolio: retention never deletes it."""
    query.pin(store, [portfolio_id], user.name, pinned.note, user.removes_of)


@router.delete("/pin", status_code=204)
def unpin(portfolio_id: PortfolioId, store: Store, user: Runner) -> None:
    """Unpin a portfolio that you have pinned, or as an admin any: retention may delete it."""
    query.unpin(store, [portfolio_id], user.removes_of)
