"""Dagster runs that were launched for requested jobs and replans, identified by their tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import dagster as dg

from backtest_pipeline.defs.partitions import RANGE_END, RANGE_START
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.jobs.requests import Ended, Launched
from backtest_pipeline.pipeline.planning.due_replans import ReplanRuns, StaleRun
from backtest_pipeline.storage.plan_tables.replan_requests import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    WaitingReplan,
)
from backtest_pipeline.storage.tables.job_queue import Attempt

JOB_TAG, ATTEMPT_TAG = "backtest/job", "backtest/attempt"
REPLAN_TAG, BOOK_TAG = "backtest/replan", "backtest/plan_book"
FOLLOW_TAG = "backtest/follow"
REASONS_TAG, SEQUENCE_TAG = "backtest/replan_reasons", "backtest/replan_sequence"
REPLANS_SENSOR = "replans"
PLANS_JOB, PORTFOLIOS_JOB = "plans_job", "planned_portfolios_job"
# Dagster terminates a run that is still going this long after the job's own timeout.
_GRACE_S = 120
_FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_GONE = (*_FAILED, dg.DagsterRunStatus.SUCCESS)


def run_request(attempt: Attempt) -> dg.RunRequest:
    """A run of the job `requested` for this attempt."""
    job_id, number = str(attempt.job_id), attempt.attempt
    return dg.RunRequest(
        run_key=f"{job_id}/{number}",
        run_config={"ops": {"work_on_job": {"config": {"job_id": job_id, "attempt": number}}}},
        tags={
            JOB_TAG: job_id,
            ATTEMPT_TAG: str(number),
            "dagster/max_runtime": str(attempt.timeout_s + _GRACE_S),
        },
    )


def launched_runs(instance: dg.DagsterInstance, attempts: Sequence[Attempt]) -> Launched:
    """The Dagster runs of these attempts: which are under way, and how the others ended."""
    ids = sorted({str(attempt.job_id) for attempt in attempts})
    under_way, ended = set(), {}
    for run in instance.get_runs(dg.RunsFilter(tags={JOB_TAG: ids})):
        key = (UUID(run.tags[JOB_TAG]), int(run.tags[ATTEMPT_TAG]))
        if run.status in _GONE:
            cancelled = run.status is dg.DagsterRunStatus.CANCELED
            ended[key] = Ended(cancelled, f"Dagster run {run.run_id} ended as {run.status.value}")
        else:
            under_way.add(key)
    return Launched(frozenset(under_way), ended)


def terminate_runs(instance: dg.DagsterInstance, job_id: UUID) -> list[str]:
    """Have Dagster cancel the queued and running runs of a job; returns their ids."""
    unfinished = [status for status in dg.DagsterRunStatus if status not in _GONE]
    of_job = dg.RunsFilter(tags={JOB_TAG: str(job_id)}, statuses=unfinished)
    runs = [run.run_id for run in instance.get_runs(of_job)]
    for run_id in runs:
        instance.run_coordinator.cancel_run(run_id)
    return runs


def replan_request(replan: WaitingReplan) -> dg.RunRequest:
    """A run that plans a book again and follows its plans; its key carries the attempt."""
    return _book_request(
        f"replan/{replan.request_id}/{replan.attempt}",
        (replan.book, replan.symbols, replan.timeframes[0]),
        {
            REPLAN_TAG: str(replan.request_id),
            ATTEMPT_TAG: str(replan.attempt),
            REASONS_TAG: ",".join(replan.reasons),
            SEQUENCE_TAG: str(replan.sequence),
        },
    )


def follow_requests(
    instance: dg.DagsterInstance, stale: Sequence[StaleRun], now_s: float
) -> list[dg.RunRequest]:
    """Runs that follow the plans of books over new data, those of them that are due.

    Of the same data and plans one is under way at most. After one that failed another is asked for,
    as late as after a failed replan; after one that succeeded none is, since there rightly is no
    result, unless another run has worked on the book's partition since.

    Args:
        instance: where the earlier runs are.
        stale: what is missing.
        now_s: seconds since 1970 UTC.
    """
    requests = []
    for one in stale:
        book, tf, state = one.book, one.timeframe, one.state
        attempt = _attempt_due(instance, one, now_s)
        if attempt is not None:
            tags = {FOLLOW_TAG: state, ATTEMPT_TAG: str(attempt)}
            key = f"follow/{book.name}/{tf}/{state}/{attempt}"
            of = (book.name, book.symbols, tf)
            requests.append(_book_request(key, of, tags, plans=False))
    return requests


def _attempt_due(instance: dg.DagsterInstance, stale: StaleRun, now_s: float) -> int | None:
    """Number of the attempt to follow the plans that is to be launched now; None where none is."""
    book = stale.book
    here = {BOOK_TAG: book.name, RANGE_START: _book_partition(book.symbols, stale.timeframe)}
    newest = instance.get_run_records(dg.RunsFilter(tags=here), limit=1)
    earlier = instance.get_run_records(dg.RunsFilter(tags={**here, FOLLOW_TAG: stale.state}))
    if not earlier:
        return 1
    last = earlier[0]
    attempt = 1 + max(int(record.dagster_run.tags[ATTEMPT_TAG]) for record in earlier)
    if newest[0].storage_id != last.storage_id:
        return attempt  # the data was another in between
    failed = [record.dagster_run.status in _FAILED for record in earlier]
    if not failed[0]:
        return None
    times = failed.index(False) if False in failed else len(failed)
    ended = last.end_time or last.create_timestamp.timestamp()
    wait = min(FIRST_WAIT_S * 2 ** (times - 1), LONGEST_WAIT_S)
    return attempt if now_s >= ended + wait else None


def _book_partition(symbols: Sequence[str], tf: str) -> str:
    """The partition that a book is worked on at a timeframe."""
    return str(Partition(symbols[0], tf)) if len(symbols) == 1 else tf


def _book_request(
    run_key: str,
    of: tuple[str, Sequence[str], str],
    tags: Mapping[str, str],
    *,
    plans: bool = True,
) -> dg.RunRequest:
    """A run on the partition of a book, given by its name, its symbols and the timeframe.

    Where it does not plan, requests for replans wait, and the run goes on where planning fails.
    """
    book, symbols, tf = of
    alone, key = len(symbols) == 1, _book_partition(symbols, tf)
    books = {"books": [book]}
    planning = books if plans else {**books, "follow_only": True}
    ops = (
        {"strategy_plans": planning, "planned_backtests": books}
        if alone
        else {"planned_portfolios": planning}
    )
    return dg.RunRequest(
        run_key=run_key,
        job_name=PLANS_JOB if alone else PORTFOLIOS_JOB,
        run_config={"ops": {name: {"config": config} for name, config in ops.items()}},
        tags={RANGE_START: key, RANGE_END: key, BOOK_TAG: book, **tags},
    )


def books_under_way(instance: dg.DagsterInstance) -> set[str]:
    """The plan books that a run which has not ended works on."""
    unfinished = [status for status in dg.DagsterRunStatus if status not in _GONE]
    runs = instance.get_runs(
        dg.RunsFilter(statuses=unfinished, tags={"dagster/sensor_name": REPLANS_SENSOR})
    )
    return {run.tags[BOOK_TAG] for run in runs if BOOK_TAG in run.tags}


def replan_runs(instance: dg.DagsterInstance, replans: Sequence[WaitingReplan]) -> ReplanRuns:
    """The Dagster runs of these replans: which are under way, and how the others ended."""
    ids = sorted({str(replan.request_id) for replan in replans})
    under_way, ended = set(), {}
    for run in instance.get_runs(dg.RunsFilter(tags={REPLAN_TAG: ids})):
        key = (int(run.tags[REPLAN_TAG]), int(run.tags[ATTEMPT_TAG]))
        if run.status in _GONE:
            ended[key] = (
                f"Dagster run {run.run_id} ended as {run.status.value} without having planned"
            )
        else:
            under_way.add(key)
    return ReplanRuns(frozenset(under_way), ended)
