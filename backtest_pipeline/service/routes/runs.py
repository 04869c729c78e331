"""Stored runs: list, show, compare, pin and delete."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.field_problems import PLAIN
from backtest_pipeline.pipeline.runs import query
from backtest_pipeline.pipeline.runs.compare import RunComparison, compare_runs
from backtest_pipeline.pipeline.runs.query import RunDetail
from backtest_pipeline.pipeline.runs.reports.report import report_page, run_artifact, run_zoom_page
from backtest_pipeline.pipeline.runs.retention import delete_runs
from backtest_pipeline.report.zoom_page import ZOOM_POLICY
from backtest_pipeline.service.auth.authentication import Runner, Viewer
from backtest_pipeline.service.problem_handlers import require_json
from backtest_pipeline.service.problems import AUTHENTICATED, SENT, Problem, documented
from backtest_pipeline.service.routes.filters import After, ArtifactName, Limit, RunQuery
from backtest_pipeline.service.routes.responses import (
    Runs,
    RunSummary,
    SeriesColumns,
    TradesPage,
    html_page,
    series_of,
)
from backtest_pipeline.service.routes.store import Store
from backtest_pipeline.storage.run_tables.run_search import RunFilter

router = APIRouter(prefix="/backtests", tags=["results"], responses=documented(*AUTHENTICATED))
_STORED = documented("RUN_NOT_FOUND", "RESULT_PATH_MISSING")
_IN_ROWS = documented("RUN_NOT_FOUND")

RunId = Annotated[UUID, Path(description="Id of the run.")]
Points = Annotated[
    int,
    Query(ge=100, le=100_000, description="Most bars to return; extremes are kept."),
]


class RunsToCompare(BaseModel):
    """Two or more different runs."""

    model_config = ConfigDict(extra="forbid")

    run_ids: list[UUID] = Field(min_length=2, max_length=20)


class Pin(BaseModel):
    """Why a run is kept."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field("", max_length=500, pattern=PLAIN)


@router.get("")
def list_runs(filters: Annotated[RunQuery, Query()], store: Store, _user: Viewer) -> Runs:
    """List stored runs, newest first."""
    values = filters.model_dump(exclude={"limit", "after"})
    page = query.list_runs(store, RunFilter(**values), limit=filters.limit, after=filters.after)
    return Runs.model_validate(page, from_attributes=True)


@router.post(
    "/compare",
    responses={**_STORED, **documented(*SENT)},
    dependencies=[Depends(require_json)],
)
def compare(runs: RunsToCompare, store: Store, _user: Viewer) -> RunComparison:
    """Compare runs side by side: specs, inputs and results."""
    return compare_runs(store, runs.run_ids)


@router.get("/{run_id}", responses=_STORED)
def get_run(run_id: RunId, store: Store, _user: Viewer) -> RunDetail:
    """Show everything about a run except its series."""
    return query.get_run(store, run_id)


@router.get("/{run_id}/summary", responses=_IN_ROWS)
def summary(run_id: RunId, store: Store, _user: Viewer) -> RunSummary:
    """Show the results and metrics of a run, also where its files are missing."""
    return RunSummary.model_validate(query.run_summary(store, run_id), from_attributes=True)


@router.get("/{run_id}/trades", responses=_IN_ROWS)
def trades(
    run_id: RunId, store: Store, _user: Viewer, limit: Limit = 100, after: After = None
) -> TradesPage:
    """List the trades of a run, by number."""
    page = query.run_trades(store, run_id, limit=limit, after=after)
    return TradesPage.model_validate(page, from_attributes=True)


@router.get("/{run_id}/equity", responses=_STORED)
def equity(run_id: RunId, store: Store, _user: Viewer, points: Points = 2_000) -> SeriesColumns:
    """Show equity and benchmark by bar, in quote currency."""
    return series_of(run_id, query.run_equity(store, run_id, points=points))


@router.get("/{run_id}/metrics/timeseries", responses=_STORED)
def timeseries(run_id: RunId, store: Store, _user: Viewer, points: Points = 2_000) -> SeriesColumns:
    """Show equity, drawdown, exposure and benchmark by bar."""
    return series_of(run_id, query.run_timeseries(store, run_id, points=points))


@router.get("/{run_id}/metrics/rolling", responses=_STORED)
def rolling(
    run_id: RunId,
    store: Store,
    _user: Viewer,
    window: Annotated[int, Query(ge=2, le=10_000, description="Length of the window, days.")] = 90,
) -> SeriesColumns:
    """Show rolling return, volatility and Sharpe ratio by day."""
    return series_of(run_id, query.run_rolling(store, run_id, window))


@router.get(
    "/{run_id}/artifacts/{name}",
    responses={
        **documented("RUN_NOT_FOUND", "NOT_FOUND", "RESULT_PATH_MISSING"),
        200: {"content": {"application/octet-stream": {}}},
    },
    response_class=Response,
)
def artifact(run_id: RunId, name: ArtifactName, store: Store, _user: Viewer) -> Response:
    """Download a file of a run, checked against its manifest.

    Runs that were computed together share files; the column `run_id` tells their rows apart.
    """
    try:
        content = run_artifact(store, run_id, name)
    except UnknownName as error:
        raise Problem("NOT_FOUND", str(error)) from error
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{name.rpartition("/")[2]}"'},
    )


@router.get("/{run_id}/report", responses=_IN_ROWS, response_class=HTMLResponse)
def report(run_id: RunId, store: Store, _user: Viewer) -> HTMLResponse:
    """Show the report of a run, one self-contained HTML page; what is missing is said there."""
    document = report_page(store, run_id)
    return html_page(document.html, document.policy)


@router.get("/{run_id}/report/zoom", responses=_IN_ROWS, response_class=HTMLResponse)
def zoom(run_id: RunId, store: Store, _user: Viewer) -> HTMLResponse:
    """Show the curves of a run to zoom into; the page's scripts are those of `/page-files`."""
    return html_page(run_zoom_page(store, run_id, "../../../page-files/"), ZOOM_POLICY)


@router.delete("/{run_id}", status_code=204, responses=documented("RUN_NOT_FOUND", "CONFLICT"))
def delete(run_id: RunId, store: Store, user: Runner) -> None:
    """Delete a run of your own, or as an admin any, with its files; 409 if it is still needed."""
    try:
        delete_runs(store, [run_id], user.removes_of)
    except InvalidInput as error:
        raise Problem("CONFLICT", str(error)) from error


@router.put(
    "/{run_id}/pin",
    status_code=204,
    responses={**documented("RUN_NOT_FOUND"), **documented(*SENT)},
    dependencies=[Depends(require_json)],
)
def pin(run_id: RunId, pinned: Pin, store: Store, user: Runner) -> None:
    """Pin a run: retention never deletes it."""
    query.pin(store, [run_id], user.name, pinned.note, user.removes_of)


@router.delete("/{run_id}/pin", status_code=204, responses=documented("RUN_NOT_FOUND"))
def unpin(run_id: RunId, store: Store, user: Runner) -> None:
    """Unpin a run that you have pinned, or as an admin any: retention may delete it again."""
    query.unpin(store, [run_id], user.removes_of)
