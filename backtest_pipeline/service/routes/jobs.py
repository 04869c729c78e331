"""Questions that may take long: asked here, answered by workers of Dagster, watched as they go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from backtest_pipeline.pipeline.jobs import requests as jobs
from backtest_pipeline.pipeline.specs import JobSpec
from backtest_pipeline.service.authentication import Runner, Viewer
from backtest_pipeline.service.job_events import Watching, mark
from backtest_pipeline.service.problem_handlers import require_json
from backtest_pipeline.service.problems import AUTHENTICATED, SENT, documented
from backtest_pipeline.service.routes.filters import JobQuery
from backtest_pipeline.service.routes.responses import JobFacts, Jobs
from backtest_pipeline.service.routes.store import Store
from backtest_pipeline.storage.settings import Settings
from backtest_pipeline.storage.tables.job_queue import JobFilter, list_jobs
from backtest_pipeline.storage.tables.jobs import read_job, unit_results

router = APIRouter(prefix="/backtest/jobs", tags=["jobs"], responses=documented(*AUTHENTICATED))
_KNOWN = documented("JOB_NOT_FOUND")
_ASKABLE = documented(
    *AUTHENTICATED,
    *SENT,
    *("BAD_RANGE", "BAD_SYMBOL", "BAD_SYMBOLS", "UNKNOWN_STRATEGY", "EMPTY_GRID", "GRID_TOO_LARGE"),
)
_RECONNECT_MS = 2_000

JobId = Annotated[UUID, Path(description="As lists and answers give it.")]
Seen = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=64, description="Of the last event.")
]


@router.post("", status_code=202, responses=_ASKABLE, dependencies=[Depends(require_json)])
def submit(
    spec: JobSpec, store: Store, user: Runner, request: Request, response: Response
) -> JobFacts:
    """Ask; the answer is at the address in `Location`, and in its events."""
    settings: Settings = request.app.state.settings
    job = jobs.submit(
        store.database,
        spec,
        user.name,
        most_combinations=settings.optimizer_max_combinations,
    )
    response.headers["Location"] = f"{router.prefix}/{job.job_id}"
    return JobFacts.model_validate(job)


@router.get("")
def list_all(asked: Annotated[JobQuery, Query()], store: Store, _user: Viewer) -> Jobs:
    """Jobs, the newest first."""
    wanted = JobFilter(**asked.model_dump(exclude={"limit", "after"}))
    with store.database.begin() as connection:
        page = list_jobs(connection, wanted, asked.limit, asked.after)
    return Jobs.model_validate(page, from_attributes=True)


@router.get("/{job_id}", responses=_KNOWN)
def get_job(job_id: JobId, store: Store, _user: Viewer) -> JobFacts:
    """A job as it is now."""
    with store.database.begin() as connection:
        return JobFacts.model_validate(read_job(connection, job_id))


@router.get("/{job_id}/units", responses=_KNOWN)
def get_units(job_id: JobId, store: Store, _user: Viewer) -> dict[str, dict[str, Any]]:
    """The result of each stored unit of a job's work, by its name."""
    with store.database.begin() as connection:
        read_job(connection, job_id)
        return {name: unit["result"] for name, unit in unit_results(connection, job_id).items()}


@router.delete("/{job_id}", responses=documented("JOB_NOT_FOUND", "CONFLICT"))
def cancel(job_id: JobId, store: Store, user: Runner, request: Request) -> JobFacts:
    """Cancel a job: at once while it waits, between two units of its work while it runs."""
    from backtest_pipeline.launch import cancel_job  # Dagster takes seconds to import

    settings: Settings = request.app.state.settings
    return JobFacts.model_validate(cancel_job(settings, store.database, job_id, user.name))


@router.post(
    "/{job_id}/resume",
    status_code=202,
    responses={**_ASKABLE, **documented("JOB_NOT_FOUND", "CONFLICT")},
)
def resume(
    job_id: JobId, store: Store, user: Runner, request: Request, response: Response
) -> JobFacts:
    """Ask again what a failed or cancelled job was asked, without the units that it stored."""
    settings: Settings = request.app.state.settings
    job = jobs.resume(
        store.database,
        job_id,
        user.name,
        most_combinations=settings.optimizer_max_combinations,
    )
    response.headers["Location"] = f"{router.prefix}/{job.job_id}"
    return JobFacts.model_validate(job)


def _has_news(
    job_id: JobId, store: Store, user: Viewer, request: Request, seen: Seen = None
) -> None:
    """Before a stream begins: a slot is free, and the job has not ended as was seen already."""
    request.app.state.watching.require_slot(user.name)
    with store.database.begin() as connection:
        job = read_job(connection, job_id)
    if job.is_terminal and mark(job) == seen:
        raise HTTPException(204)  # tells a browser not to connect again


@router.get(
    "/{job_id}/events",
    responses={**_KNOWN, 204: {"description": "It has ended, and that was seen."}},
    response_class=EventSourceResponse,
    dependencies=[Depends(_has_news)],
)
async def events(
    job_id: JobId, request: Request, seen: Seen = None
) -> AsyncIterator[ServerSentEvent]:
    """A job as it is, and again whenever it changes, until it ends; a comment each 15 s."""
    watching: Watching = request.app.state.watching
    async for job in watching.changes(job_id, seen, request.state.user):
        yield ServerSentEvent(
            data=JobFacts.model_validate(job),
            event="ended" if job.is_terminal else "changed",
            id=mark(job),
            retry=_RECONNECT_MS,
        )
