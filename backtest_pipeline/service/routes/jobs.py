"""Jobs: long computations, submitted here and run by Dagster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from backtest_pipeline.pipeline.jobs import requests as jobs
from backtest_pipeline.pipeline.specs import JobSpec
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.service.auth.authentication import Runner, User, Viewer
from backtest_pipeline.service.job_events import JobEvents, mark
from backtest_pipeline.service.pool import Pool, Work
from backtest_pipeline.service.pool_worker import WorkerTask
from backtest_pipeline.service.problem_handlers import require_json
from backtest_pipeline.service.problems import AUTHENTICATED, SENT, Problem, documented
from backtest_pipeline.service.routes.filters import JobQuery
from backtest_pipeline.service.routes.responses import JobDetail, Jobs
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
    "RUN_TIMEOUT",  # of a check in a worker
)
_RECONNECT_MS = 2_000

JobId = Annotated[UUID, Path(description="Id of the job.")]
Seen = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=64, description="Id of the last event received."),
]


@router.post("", status_code=202, responses=_ASKABLE, dependencies=[Depends(require_json)])
async def submit(
    spec: JobSpec, store: Store, user: Runner, request: Request, response: Response
) -> JobDetail:
    """Submit a job; `Location` is its address."""
    return await _submitted(spec, store, user, request, response)


async def _submitted(
    spec: JobSpec,
    store: Workspace,
    user: User,
    request: Request,
    response: Response,
    resumes: UUID | None = None,
) -> JobDetail:
    """A recorded job; where Python of a user's own checks it, a worker does that."""
    settings: Settings = request.app.state.settings
    checked_elsewhere = await anyio.to_thread.run_sync(jobs.runs_own_python, spec)
    if checked_elsewhere:
        pool: Pool = request.app.state.pool
        await pool.execute(Work(spec.model_dump_json(), user.name, task=WorkerTask.CHECK_JOB))

    def submitted() -> JobDetail:
        job = jobs.submit(
            store.database,
            spec,
            user.name,
            most_combinations=settings.optimizer_max_combinations,
            resumes=resumes,
            is_sound=checked_elsewhere,
        )
        return JobDetail.model_validate(job)

    job = await anyio.to_thread.run_sync(submitted)
    response.headers["Location"] = f"{router.prefix}/{job.job_id}"
    return job


@router.get("")
def list_all(filters: Annotated[JobQuery, Query()], store: Store, _user: Viewer) -> Jobs:
    """List jobs, newest first."""
    chosen = JobFilter(**filters.model_dump(exclude={"limit", "after"}))
    with store.database.begin() as connection:
        page = list_jobs(connection, chosen, filters.limit, filters.after)
    return Jobs.model_validate(page, from_attributes=True)


@router.get("/{job_id}", responses=_KNOWN)
def get_job(job_id: JobId, store: Store, _user: Viewer) -> JobDetail:
    """Show the current state of a job."""
    with store.database.begin() as connection:
        return JobDetail.model_validate(read_job(connection, job_id))


@router.get("/{job_id}/units", responses=_KNOWN)
def get_units(job_id: JobId, store: Store, _user: Viewer) -> dict[str, dict[str, Any]]:
    """Show the result of each stored unit of a job, by unit name."""
    with store.database.begin() as connection:
        read_job(connection, job_id)
        return {name: unit["result"] for name, unit in unit_results(connection, job_id).items()}


@router.delete("/{job_id}", responses=documented("JOB_NOT_FOUND", "CONFLICT"))
def cancel(job_id: JobId, store: Store, user: Runner, request: Request) -> JobDetail:
    """Cancel a job of your own, or as an admin any: at once if pending, else within seconds."""
    from backtest_pipeline.launch import cancel_job  # Dagster takes seconds to import

    settings: Settings = request.app.state.settings
    with store.database.begin() as connection:
        owner = read_job(connection, job_id).created_by
    if user.removes_of not in (owner, None):
        raise Problem("FORBIDDEN", f"the job is {owner}'s; only they or an admin may cancel it")
    return JobDetail.model_validate(cancel_job(settings, store.database, job_id, user.name))


@router.post(
    "/{job_id}/resume",
    status_code=202,
    responses={**_ASKABLE, **documented("JOB_NOT_FOUND", "CONFLICT")},
)
async def resume(
    job_id: JobId, store: Store, user: Runner, request: Request, response: Response
) -> JobDetail:
    """Resume a failed or cancelled job as a new one; stored units are not computed again."""
    spec = await anyio.to_thread.run_sync(jobs.job_to_resume, store.database, job_id)
    return await _submitted(spec, store, user, request, response, job_id)


def _require_new_events(
    job_id: JobId, store: Store, user: Viewer, request: Request, seen: Seen = None
) -> None:
    """Before a stream starts: the user has a free slot, and the end was not already seen."""
    request.app.state.job_events.require_slot(user.name)
    with store.database.begin() as connection:
        job = read_job(connection, job_id)
    if job.is_terminal and mark(job) == seen:
        raise HTTPException(204)  # tells a browser not to reconnect


@router.get(
    "/{job_id}/events",
    responses={**_KNOWN, 204: {"description": "The job has ended, with no new event."}},
    response_class=EventSourceResponse,
    dependencies=[Depends(_require_new_events)],
)
async def events(
    job_id: JobId, request: Request, seen: Seen = None
) -> AsyncIterator[ServerSentEvent]:
    """Stream a job's state now and at each change until it ends; a comment every 15 s."""
    job_events: JobEvents = request.app.state.job_events
    async for job in job_events.changes(job_id, seen, request.state.user):
        yield ServerSentEvent(
            data=JobDetail.model_validate(job),
            event="ended" if job.is_terminal else "changed",
            id=mark(job),
            retry=_RECONNECT_MS,
        )
