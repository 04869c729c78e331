"""`backtest-pipeline jobs`: list, watch, cancel and resume computations that Dagster runs."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from backtest_pipeline.cli.console import console, fail, print_json, rows_table, say
from backtest_pipeline.cli.options import After, AnyTimeframe, AsJson, Asset
from backtest_pipeline.market.errors import JobNotFound
from backtest_pipeline.pipeline.spec_options import day_of

if TYPE_CHECKING:
    from backtest_pipeline.storage.postgres.database import Database
    from backtest_pipeline.storage.settings import Settings
    from backtest_pipeline.storage.tables.jobs import Job

app = typer.Typer(
    name="jobs", help="Jobs, computed by Dagster: list, watch, cancel.", no_args_is_help=True
)


def _id_of(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise JobNotFound(
            f"{text!r} is not a job id; `backtest-pipeline jobs list` lists them"
        ) from None


JobId = Annotated[UUID, typer.Argument(help="Id of the job.", parser=_id_of, metavar="JOB_ID")]
_POLL_S = 1.0


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option(help="Submitted by this user.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="run, walkforward, portfolio, optimize, cross_section or refresh."),
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="For example ema_crossover.")] = None,
    asset: Asset = None,
    tf: AnyTimeframe = None,
    status: Annotated[
        str | None, typer.Option(help="pending, running, completed, failed or cancelled.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Submitted on this UTC day or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Submitted before this UTC day.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Text to look for in ids, names and error messages.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Jobs to show.")] = 20,
    after: After = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    from backtest_pipeline.storage.tables.job_queue import JobFilter, list_jobs

    filters = JobFilter(
        user,
        kind,
        strategy,
        asset,
        tf,
        status,
        day_of(since, "--since"),
        day_of(until, "--until"),
        text,
    )
    with _database() as (_, database), database.begin() as connection:
        page = list_jobs(connection, filters, limit, after)
    if as_json:
        print_json({"jobs": [_as_json(job) for job in page.rows], "next": page.next})
    elif not page.rows:
        say("no job matches these filters")
    else:
        console.print(rows_table("Jobs", [_row(job) for job in page.rows]))
        if page.next:
            say(f"more jobs: repeat with --after {page.next}")


@app.command()
def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job and its stored units of work."""
    from backtest_pipeline.storage.tables.jobs import read_job, unit_results

    with _database() as (_, database), database.begin() as connection:
        job = read_job(connection, job_id)
        units = unit_results(connection, job.job_id)
    if as_json:
        print_json(
            _as_json(job)
            | {
                "config": job.config,
                "units": {
                    name: {"run_ids": [str(i) for i in unit["run_ids"]], "result": unit["result"]}
                    for name, unit in units.items()
                },
            }
        )
        return
    for name, value in _as_json(job).items():
        if value not in (None, "", []):
            say(f"{name}: {value if not isinstance(value, list) else ', '.join(map(str, value))}")
    for name, unit in units.items():
        say(f"  {name}: {len(unit['run_ids'])} runs, stored {unit['stored_at']:%Y-%m-%d %H:%M:%S}")


@app.command()
def cancel(job_id: JobId) -> None:
    """Cancel a pending or running job."""
    from backtest_pipeline.launch import cancel_job

    with _database() as (settings, database):
        job = cancel_job(settings, database, job_id, getpass.getuser())
    say(f"job {job.job_id}: {'cancelled' if job.is_terminal else 'stopping'}")


@app.command()
def resume(job_id: JobId) -> None:
    """Resume a failed or cancelled job as a new one; stored units are not computed again."""
    from backtest_pipeline.pipeline.jobs.requests import resume as resume_job

    with _database() as (settings, database):
        job = resume_job(
            database,
            job_id,
            getpass.getuser(),
            most_combinations=settings.optimizer_max_combinations,
        )
    say(f"new job {job.job_id}: {job.units_stored} of {job.n_units} units are already stored")


@app.command()
def watch(job_id: JobId) -> None:
    """Print a job's progress until it ends; exit code 1 if it failed or was cancelled."""
    from backtest_pipeline.storage.tables.jobs import read_job

    printed = None
    with _database() as (_, database):
        while True:
            with database.begin() as connection:
                job = read_job(connection, job_id)
            now = (job.status, job.attempt_count, round(job.progress_pct), job.stage)
            if now != printed:
                say(
                    f"{job.status}, attempt {job.attempt_count}, {job.progress_pct:.0f} %, "
                    f"{job.units_stored} of {job.n_units} units {job.stage}".rstrip()
                )
                printed = now
            if job.is_terminal:
                break
            time.sleep(_POLL_S)
    if job.status != "completed":
        why = job.error_message or f"by {job.cancel_requested_by}"
        fail(f"job {job.job_id} {job.status}: {why}")


@contextmanager
def _database() -> Iterator[tuple[Settings, Database]]:
    """The store's database without its artifacts, which jobs do not need."""
    from backtest_pipeline.cli.up import ensure_schema
    from backtest_pipeline.storage.postgres.database import open_database
    from backtest_pipeline.storage.settings import load_settings

    settings = load_settings()
    ensure_schema(settings)
    database = open_database(settings)
    try:
        yield settings, database
    finally:
        database.close()


def _row(job: Job) -> dict[str, Any]:
    return {
        "job": str(job.job_id),
        "kind": job.kind,
        "strategy": job.strategy or "",
        "by": job.created_by,
        "created": f"{job.created_at:%Y-%m-%d %H:%M}",
        "status": job.status,
        "done": f"{job.units_stored}/{job.n_units}",
    }


def _as_json(job: Job) -> dict[str, Any]:
    hidden = ("config", "config_hash")
    return {name: _plain(value) for name, value in vars(job).items() if name not in hidden}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, UUID) else value
