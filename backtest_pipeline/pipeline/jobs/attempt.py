"""A worker's attempt at a job: computes its units, renews its lease, and stops when requested."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import Any
from uuid import UUID

from backtest_pipeline.market.errors import (
    BacktestError,
    RunNotFound,
    StoreError,
    StoreUnavailable,
    public_message,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.jobs.requests import Unit, units_of
from backtest_pipeline.pipeline.monitoring.counters import count_stage
from backtest_pipeline.pipeline.specs import JobSpec, RefreshSpec
from backtest_pipeline.pipeline.stage import StageReport, Status
from backtest_pipeline.pipeline.use_cases.refresh import refresh_backtests, refresh_signals
from backtest_pipeline.pipeline.use_cases.spec_sources import source_of
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.logs import about
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.removals import block_removals
from backtest_pipeline.storage.run_tables.run_figures import current_figures
from backtest_pipeline.storage.run_tables.run_search import require_runs
from backtest_pipeline.storage.settings import Settings
from backtest_pipeline.storage.tables.job_queue import TIMEOUT
from backtest_pipeline.storage.tables.jobs import (
    Claim,
    Job,
    claim_job,
    complete,
    fail,
    heartbeat,
    read_job,
    stop_cancelled,
    store_unit,
    stored_units,
)

LEASE_S, BEAT_S = 30.0, 2.0
UNITS_FAILED, NO_UNITS = "UNITS_FAILED", "NO_UNITS"
_ERRORS_SHOWN = 5
_STAGES = ("bars", "features", "columns", "signals", "backtests")

logger = logging.getLogger(__name__)


class StopReason(StrEnum):
    """Why an attempt must stop."""

    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"
    LEASE_LOST = "lease lost"


class Stopped(BaseException):
    """The attempt must stop; raised between two units of work, or two parts of one.

    A BaseException like an interrupt, so that no handler takes it for a failure.
    """

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class LeaseKeeper:
    """Renews the lease of an attempt in a thread, and learns whether the attempt must stop.

    A worker that cannot renew its lease for two thirds of the lease's length stops by itself,
    before another attempt may take over the job.
    """

    def __init__(self, database: Database, claim: Claim, lease_s: float, beat_s: float) -> None:
        self._database, self._claim = database, claim
        self._lease_s, self._beat_s = lease_s, beat_s
        self._progress = (0.0, "")
        self._reason: StopReason | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def report(self, progress_pct: float, stage: str) -> None:
        """Set the progress that the next heartbeat reports, in percent."""
        self._progress = (progress_pct, stage)

    def check(self) -> None:
        """Raise Stopped if the attempt must stop."""
        if self._reason is not None:
            raise Stopped(self._reason)

    def _run(self) -> None:
        renewed_at = time.monotonic()
        while self._reason is None and not self._over.wait(self._beat_s):
            try:
                with self._database.begin() as connection:
                    beat = heartbeat(connection, self._claim, self._lease_s, *self._progress)
            except StoreError as error:
                logger.warning("job %s: no heartbeat: %s", self._claim.job_id, error)
                if time.monotonic() - renewed_at > self._lease_s * 2 / 3:
                    self._reason = StopReason.LEASE_LOST
                continue
            renewed_at = time.monotonic()
            if beat is None:
                self._reason = StopReason.LEASE_LOST
            elif beat.cancel_requested:
                self._reason = StopReason.CANCELLED
            elif beat.timed_out:
                self._reason = StopReason.TIMED_OUT

    @contextmanager
    def beating(self) -> Iterator[LeaseKeeper]:
        """Send heartbeats while the block runs."""
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()


def work_on(
    workspace: Workspace,
    settings: Settings,
    claim: Claim,
    *,
    dagster_run_id: str | None,
    simulation: SimulationConfig,
    on_report: Callable[[StageReport], None],
) -> Job | None:
    """Compute the units of a job that are not stored yet, and end the job.

    Args:
        workspace: the open store.
        settings: settings of this process.
        claim: the job and the attempt at it.
        dagster_run_id: id of the Dagster run that makes the attempt.
        simulation: simulation settings of refreshed backtests.
        on_report: called with the report of each stage of a refresh.

    Returns:
        The ended job; None where this attempt could not claim it, or lost its lease.

    Raises:
        StoreUnavailable: where the store is lost; the lease will expire, and another attempt
            continues from what is stored.
    """
    with workspace.database.begin() as connection:
        if not claim_job(connection, claim, dagster_run_id, LEASE_S):
            return None
        job = read_job(connection, claim.job_id)
    try:
        lease = LeaseKeeper(workspace.database, claim, LEASE_S, BEAT_S)
        with about(job=str(claim.job_id)), lease.beating():
            failures = _work(workspace, settings, claim, job, lease, simulation, on_report)
    except Stopped as stop:
        return _stopped(workspace, claim, job, stop.reason)
    except StoreUnavailable:
        raise
    except Exception as error:
        logger.exception("job %s failed", claim.job_id)
        code = error.code if isinstance(error, BacktestError) else BacktestError.code
        _end(workspace, claim, code, public_message(error))
        raise
    return _ended(workspace, claim, job, failures)


def _work(
    workspace: Workspace,
    settings: Settings,
    claim: Claim,
    job: Job,
    lease: LeaseKeeper,
    simulation: SimulationConfig,
    on_report: Callable[[StageReport], None],
) -> dict[str, str]:
    """Compute the units; returns the error of each failed one."""
    given = JobSpec.model_validate(job.config)
    units = units_of(given)
    with workspace.database.begin() as connection:
        stored = stored_units(connection, job.job_id)
    todo = {name: unit for name, unit in units.items() if name not in stored}
    done = len(units) - len(todo)

    def report(stage: str, part: int, parts: int) -> None:
        lease.report(100 * (done + (part / parts if parts else 0)) / len(units), stage)
        lease.check()

    if isinstance(given.spec, RefreshSpec):
        stages = _STAGES if workspace.external is None else _STAGES[1:]

        def report_stage(stage: str, part: int, parts: int) -> None:
            before = stages.index(stage) if stage in stages else len(stages) - 1
            lease.report(100 * (before + (part / parts if parts else 0)) / len(stages), stage)
            lease.check()

        listening = replace(workspace, progress=report_stage)
        return _refresh(listening, settings, claim, given.spec, todo, simulation, on_report)
    failures: dict[str, str] = {}
    for name, (spec, _) in todo.items():
        lease.report(100 * done / len(units), name)
        lease.check()
        assert spec is not None  # noqa: S101  (only a refresh's units have none)
        listening = replace(workspace, progress=report)
        try:
            result = execute(listening, settings, spec, job.created_by)
            while not _keep(workspace, claim, name, result.run_ids, result.model_dump(mode="json")):
                result = execute(listening, settings, spec, job.created_by)
        except StoreUnavailable:
            raise
        except BacktestError as error:
            logger.warning("job %s: %s failed: %s", claim.job_id, name, error)
            failures[name] = f"{error.code}: {public_message(error)}"
            continue
        done += 1
    return failures


def _refresh(
    workspace: Workspace,
    settings: Settings,
    claim: Claim,
    spec: RefreshSpec,
    todo: Mapping[str, Unit],
    simulation: SimulationConfig,
    on_report: Callable[[StageReport], None],
) -> dict[str, str]:
    """Run all stages over all partitions together; each partition is a unit."""
    partitions = [partition for _, named in todo.values() for partition in named]
    if not partitions:
        return {}
    source = source_of(workspace, settings, symbols=sorted({p.asset for p in partitions}))
    reports = []
    for report in refresh_signals(workspace, source, partitions, rebuild=spec.full_rebuild):
        on_report(report)
        count_stage(workspace, report)
        reports.append(report)
    last = refresh_backtests(workspace, partitions, simulation, rebuild=spec.full_rebuild)
    on_report(last)
    count_stage(workspace, last)
    failures = {
        str(outcome.partition): f"{report.stage}: {outcome.detail}"
        for report in (*reports, last)
        for outcome in report.incomplete
    }
    without = (Status.EMPTY, Status.NO_INPUT)
    if not failures and all(outcome.status in without for outcome in last.outcomes):
        return {str(outcome.partition): outcome.detail for outcome in last.outcomes}
    with workspace.database.begin() as connection:
        runs = current_figures(
            connection,
            (),
            symbols=[p.asset for p in partitions],
            timeframes=[p.timeframe for p in partitions],
        )
    run_ids: dict[Partition, list[UUID]] = {}
    for run in runs:
        run_ids.setdefault(Partition(run["symbol"], run["tf"]), []).append(run["run_id"])
    for outcome in last.outcomes:
        name = str(outcome.partition)
        if name not in failures:
            result = {"status": outcome.status.value, "detail": outcome.detail}
            _keep(workspace, claim, name, run_ids.get(outcome.partition, []), result)
    return failures


def _keep(
    workspace: Workspace, claim: Claim, unit: str, run_ids: list[UUID], result: Mapping[str, Any]
) -> bool:
    """Record a unit whose results are stored; False if one of its runs is being removed.

    From then on the job protects its runs from removal.
    """
    with workspace.database.begin() as connection:
        block_removals(connection)
        try:
            require_runs(connection, run_ids)
        except RunNotFound:
            return False
        if not store_unit(connection, claim, unit, run_ids, result):
            raise Stopped(StopReason.LEASE_LOST)
    return True


def _stopped(workspace: Workspace, claim: Claim, job: Job, reason: StopReason) -> Job | None:
    if reason is StopReason.LEASE_LOST:
        logger.warning("job %s: attempt %s lost its lease", claim.job_id, claim.attempt)
        return None
    with workspace.database.begin() as connection:
        if reason is StopReason.CANCELLED:
            ended = stop_cancelled(connection, claim, "")
        else:
            ended = fail(connection, claim, TIMEOUT, f"not finished within {job.timeout_s} s")
        return read_job(connection, claim.job_id) if ended else None


def _ended(workspace: Workspace, claim: Claim, job: Job, failures: Mapping[str, str]) -> Job | None:
    if not failures:
        with workspace.database.begin() as connection:
            if complete(connection, claim):
                return read_job(connection, claim.job_id)
        return _end(
            workspace, claim, NO_UNITS, f"not all of the {job.n_units} expected units are stored"
        )
    first = "; ".join(f"{name}: {why}" for name, why in list(failures.items())[:_ERRORS_SHOWN])
    more = f"; and {len(failures) - _ERRORS_SHOWN} others" if len(failures) > _ERRORS_SHOWN else ""
    message = f"{len(failures)} of {job.n_units} units failed: {first}{more}"
    return _end(workspace, claim, UNITS_FAILED, message)


def _end(workspace: Workspace, claim: Claim, code: str, message: str) -> Job | None:
    with workspace.database.begin() as connection:
        if not fail(connection, claim, code, message):
            return None
        return read_job(connection, claim.job_id)
