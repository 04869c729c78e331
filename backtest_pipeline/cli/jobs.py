"""`backtest-pipeline jobs`: what was requested, how far it is, and its end."""

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
from backtest_pipeline.cli.options import Asset
from backtest_pipeline.market.errors import JobNotFound
from backtest_pipeline.pipeline.spec_options import day_of

if TYPE_CHECKING:
    from backtest_pipeline.storage.postgres.database import Database
    from backtest_pipeline.storage.settings import Settings
    from backtest_pipeline.storage.tables.jobs import Job

app = typer.Typer(
    name="jobs", help="Requested computations, which Dagster runs.", no_args_is_help=True
)

JobId = Annotated[str, typer.Argument(help="Id of the job.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_POLL_S = 1.0


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option(help="Who asked.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="run, walkforward, portfolio, optimize or refresh.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Signal type.")] = None,
    asset: Asset = None,
    tf: Annotated[str | None, typer.Option(help="Timeframe.")] = None,
    status: Annotated[
        str | None, typer.Option(help="pending, running, completed, failed or cancelled.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="First UTC day, YYYY-MM-DD.")] = None,
    until: Annotated[str | None, typer.Option(help="Day after the last, YYYY-MM-DD.")] = None,
    text: Annotated[str | None, typer.Option(help="Somewhere in id, names or error.")] = None,
    limit: Annotated[int, typer.Option(help="Rows of the page.")] = 20,
    after: Annotated[str | None, typer.Option(help="Cursor of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    from backtest_pipeline.storage.tables.job_queue import JobFilter, list_jobs

    wanted = JobFilter(
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
        page = list_jobs(connection, wanted, limit, after)
    if as_json:
        print_json({"jobs": [_as_json(job) for job in page.rows], "next": page.next})
    elif not page.rows:
        say("no such job")
    else:
        console.print(rows_table("Jobs", [_row(job) for job in page.rows]))
        if page.next:
            say(f"more: --after {page.next}")


@app.command()
def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job, and the units of work that it has stored."""
    from backtest_pipeline.storage.tables.jobs import read_job, unit_results

    with _database() as (_, database), database.begin() as connection:
        job = read_job(connection, _id_of(job_id))
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
    """Cancel a job that waits or runs."""
    from backtest_pipeline.launch import cancel_job

    with _database() as (settings, database):
        job = cancel_job(settings, database, _id_of(job_id), getpass.getuser())
    say(f"job {job.job_id}: {'cancelled' if job.is_terminal else 'is asked to stop'}")


@app.command()
def resume(job_id: JobId) -> None:
    """Ask the question of a failed or cancelled job again, without what it has stored."""
    from backtest_pipeline.pipeline.jobs.requests import resume as go_on

    with _database() as (settings, database):
        job = go_on(
            database,
            _id_of(job_id),
            getpass.getuser(),
            most_combinations=settings.optimizer_max_combinations,
        )
    say(f"job {job.job_id} goes on with {job.units_stored} of {job.n_units} units stored")


@app.command()
def watch(job_id: JobId) -> None:
    """Print how far a job is until it ends; exit code 1 where it does not end well."""
    from backtest_pipeline.storage.tables.jobs import read_job

    told = None
    with _database() as (_, database):
        while True:
            with database.begin() as connection:
                job = read_job(connection, _id_of(job_id))
            now = (job.status, job.attempt_count, round(job.progress_pct), job.stage)
            if now != told:
                say(
                    f"{job.status}, attempt {job.attempt_count}, {job.progress_pct:.0f} %, "
                    f"{job.units_stored} of {job.n_units} units {job.stage}".rstrip()
                )
                told = now
            if job.is_terminal:
                break
            time.sleep(_POLL_S)
    if job.status != "completed":
        why = job.error_message or f"by {job.cancel_requested_by}"
        fail(f"job {job.job_id} {job.status}: {why}")


@contextmanager
def _database() -> Iterator[tuple[Settings, Database]]:
    """The store's database alone: what jobs are known by needs no artifacts."""
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


def _id_of(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise JobNotFound(f"{text!r} is no id of a job; `jobs list` shows all") from None


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
