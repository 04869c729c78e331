"""Jobs: questions that may take long, asked now and answered by a worker of the orchestrator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from uuid import UUID

from backtest_pipeline.market.errors import InvalidInput, JobConflict
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.answering import Answerable, rollup_config, walk_plan
from backtest_pipeline.pipeline.api import full_signal_type
from backtest_pipeline.pipeline.exploration import require_metric
from backtest_pipeline.pipeline.identity import hash_of
from backtest_pipeline.pipeline.questions import (
    JobQuestion,
    OptimizeQuestion,
    PortfolioQuestion,
    RefreshQuestion,
    WalkForwardQuestion,
)
from backtest_pipeline.pipeline.traded import require_window
from backtest_pipeline.research.efficiency import WFO_THRESHOLD
from backtest_pipeline.storage.database import Database
from backtest_pipeline.storage.job_queue import (
    Attempt,
    abandoned_attempts,
    not_launched,
    pending_attempts,
    take_over,
)
from backtest_pipeline.storage.jobs import Job, create_job, read_job
from backtest_pipeline.strategies.grid import parameter_grid, parameter_space
from backtest_pipeline.strategies.registry import strategy_of

MOST_UNITS = 10_000


def submit(
    database: Database,
    job: JobQuestion,
    user: str,
    *,
    most_combinations: int,
    resumes: UUID | None = None,
) -> Job:
    """Record a job; the orchestrator launches it.

    Args:
        database: the store's.
        job: what is asked.
        user: who asks.
        most_combinations: of a grid that is swept.
        resumes: an ended job of the same question, whose stored units are taken over.

    Raises:
        UnknownName, InvalidInput: for what can be seen to make no sense before it is begun.
    """
    units = units_of(job)
    require_sound(job, most_combinations)
    config = job.model_dump(mode="json")
    question = job.question
    partitions = [partition for _, partitions in units.values() for partition in partitions]
    with database.begin() as connection:
        return create_job(
            connection,
            kind=question.kind,
            config=config,
            config_hash=hash_of(config),
            strategy=None
            if isinstance(question, RefreshQuestion)
            else full_signal_type(question.strategy),
            symbols=sorted({p.asset for p in partitions}),
            timeframes=sorted(
                {p.timeframe for p in partitions}, key=lambda tf: timeframe(tf).sort_order
            ),
            created_by=user,
            n_units=len(units),
            timeout_s=job.timeout_s,
            resumes=resumes,
        )


def resume(database: Database, job_id: UUID, user: str, *, most_combinations: int) -> Job:
    """Ask the question of an ended job again, without the units that it has stored.

    Raises:
        JobNotFound: for an id that there is not.
        JobConflict: for a job that has not ended, or that is completed.
    """
    with database.begin() as connection:
        job = read_job(connection, job_id)
    if job.status not in ("failed", "cancelled"):
        raise JobConflict(
            f"job {job_id} is {job.status}; only a failed or cancelled one can be resumed"
        )
    question = JobQuestion.model_validate(job.config)
    return submit(database, question, user, most_combinations=most_combinations, resumes=job_id)


Unit = tuple[Answerable | None, Sequence[Partition]]
"""What is asked, None of a refresh, and the partitions that it is asked of."""


def units_of(job: JobQuestion) -> dict[str, Unit]:
    """The units of work of a job by name: what is stored of each is not computed again.

    Raises:
        UnknownName: for a timeframe that there is not.
        InvalidInput: for no or too many units.
    """
    question = job.question
    if isinstance(question, RefreshQuestion):
        named = [job.symbols or question.symbols, job.timeframes or question.timeframes]
    elif isinstance(question, PortfolioQuestion):
        named = [question.symbols, job.timeframes or [question.timeframe]]
    else:
        named = [job.symbols or [question.symbol], job.timeframes or [question.timeframe]]
    symbols, timeframes = (list(dict.fromkeys(names)) for names in named)
    if isinstance(question, PortfolioQuestion):
        symbols = list(dict.fromkeys(job.symbols)) or question.symbols
        units: dict[str, Unit] = {
            tf: (
                question.model_copy(update={"symbols": symbols, "timeframe": tf}),
                [Partition(symbol, timeframe(tf).name) for symbol in symbols],
            )
            for tf in timeframes
        }
    else:
        units = {}
        for symbol, tf in product(symbols, timeframes):
            partition = Partition(symbol, timeframe(tf).name)
            asked = None
            if not isinstance(question, RefreshQuestion):
                asked = question.model_copy(update={"symbol": symbol, "timeframe": tf})
            units[str(partition)] = (asked, [partition])
    if len(units) > MOST_UNITS:
        raise InvalidInput(
            f"{len(symbols):,} assets at {len(timeframes):,} timeframes are {len(units):,} units "
            f"of work, and {MOST_UNITS:,} are the limit; ask for fewer, in several jobs"
        )
    return units


def require_sound(job: JobQuestion, most_combinations: int) -> None:
    """Raises UnknownName or InvalidInput for what would fail whatever the bars are."""
    question = job.question
    if isinstance(question, RefreshQuestion):
        return
    require_window(question.asked().window)
    strategy = strategy_of(full_signal_type(question.strategy))
    if isinstance(question, OptimizeQuestion):
        require_metric(question.metric)
        parameter_grid(strategy, question.params, most_combinations)
    elif isinstance(question, WalkForwardQuestion):
        parameter_space(strategy, question.params)
        walk_plan(question, most_combinations, WFO_THRESHOLD)
    else:
        strategy.parse(question.params)
    if isinstance(question, PortfolioQuestion):
        symbols = job.symbols or question.symbols
        rollup_config(question.model_copy(update={"symbols": symbols}))


@dataclass(frozen=True)
class Ended:
    """How the orchestrator's run of an attempt ended: whether it was cancelled, and in words."""

    cancelled: bool
    why: str


@dataclass(frozen=True)
class Launched:
    """What the orchestrator knows of attempts, by `(job_id, attempt)`.

    Attributes:
        under_way: whose run waits or works.
        ended: whose run has ended.
    """

    under_way: frozenset[tuple[UUID, int]]
    ended: Mapping[tuple[UUID, int], Ended]


def reconcile(
    database: Database, launched: Callable[[Sequence[Attempt]], Launched]
) -> list[Attempt]:
    """Bring jobs in line with what became of their workers; returns what is to be launched.

    Any number of processes may do this at once, and at any time: an attempt whose lease is valid is
    left alone, whatever the orchestrator says of its run.
    """
    with database.begin() as connection:
        abandoned = abandoned_attempts(connection)
    if abandoned:
        known = launched(abandoned)
        for attempt in abandoned:
            end = known.ended.get((attempt.job_id, attempt.attempt))
            with database.begin() as connection:
                take_over(connection, attempt, cancelled=end is not None and end.cancelled)
    with database.begin() as connection:
        pending = pending_attempts(connection)
    if not pending:
        return []
    known, wanted = launched(pending), []
    for attempt in pending:
        key = (attempt.job_id, attempt.attempt)
        if key in known.ended:
            end = known.ended[key]
            with database.begin() as connection:
                not_launched(connection, attempt, cancelled=end.cancelled, why=end.why)
        elif key not in known.under_way:
            wanted.append(attempt)
    return wanted
