"""Jobs: long-running specs, submitted here and executed by a worker that Dagster launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from uuid import UUID

from backtest_pipeline.market.errors import InvalidInput, JobConflict
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.given_rules import names_own_python, strategies_for
from backtest_pipeline.pipeline.runs.identity import hash_of
from backtest_pipeline.pipeline.soundness import require_sound
from backtest_pipeline.pipeline.specs import (
    CrossSectionSpec,
    ExecutableSpec,
    JobSpec,
    PortfolioSpec,
    RefreshSpec,
    Spec,
    StrategySpec,
)
from backtest_pipeline.pipeline.use_cases.cross_section import rule_of_spec
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.job_queue import (
    Attempt,
    abandoned_attempts,
    not_launched,
    pending_attempts,
    take_over,
)
from backtest_pipeline.storage.tables.jobs import Job, create_job, read_job
from backtest_pipeline.strategies.registry import DEFAULT_STRATEGY, strategy_of

MOST_UNITS = 10_000


def submit(
    database: Database,
    job: JobSpec,
    user: str,
    *,
    most_combinations: int,
    resumes: UUID | None = None,
    is_sound: bool = False,
) -> Job:
    """Record a job; Dagster launches it.

    Args:
        database: the store's database.
        job: the job to submit.
        user: name of the caller.
        most_combinations: maximum size of a sweep's grid.
        resumes: an ended job with the same spec, whose stored units are reused.
        is_sound: whether `require_sound_job` was called already, elsewhere.

    Raises:
        UnknownName, InvalidInput: for a spec that is invalid whatever the data are.
    """
    units = units_of(job)
    config = job.model_dump(mode="json")
    spec = _whole(job)
    if not is_sound:
        require_sound_job(job, most_combinations)
    partitions = [partition for _, partitions in units.values() for partition in partitions]
    with database.begin() as connection:
        return create_job(
            connection,
            kind=spec.kind,
            config=config,
            config_hash=hash_of(config),
            strategy=None if isinstance(spec, RefreshSpec) else _strategy_name(spec),
            symbols=sorted({p.asset for p in partitions}),
            timeframes=sorted(
                {timeframe(tf).name for tf in _timeframes(job)},
                key=lambda tf: timeframe(tf).sort_key,
            ),
            created_by=user,
            n_units=len(units),
            timeout_s=job.timeout_s,
            resumes=resumes,
        )


def require_sound_job(job: JobSpec, most_combinations: int) -> None:
    """Raise UnknownName or InvalidInput for a job that would fail whatever the bars are.

    Code of its strategy checks the parameters.
    """
    spec = _whole(job)
    if not isinstance(spec, RefreshSpec):
        require_sound(spec, most_combinations)


def runs_own_python(job: JobSpec) -> bool:
    """Whether `require_sound_job` runs Python of a user's own, which may take any time."""
    return isinstance(job.spec, StrategySpec) and names_own_python(job.spec)


def _whole(job: JobSpec) -> Spec:
    """The spec of a job; of several symbols together with those that the job names."""
    if isinstance(job.spec, PortfolioSpec | CrossSectionSpec):
        return job.spec.model_copy(update={"symbols": job.symbols or job.spec.symbols})
    return job.spec


def job_to_resume(database: Database, job_id: UUID) -> JobSpec:
    """What an ended job was asked for, to be submitted again without the units that it has stored.

    Raises:
        JobNotFound: for an unknown id.
        JobConflict: for a job that has not ended, or has completed.
    """
    with database.begin() as connection:
        job = read_job(connection, job_id)
    if job.status not in ("failed", "cancelled"):
        raise JobConflict(
            f"job {job_id} is {job.status}; only failed or cancelled jobs can be resumed"
        )
    return JobSpec.model_validate(job.config)


def resume(database: Database, job_id: UUID, user: str, *, most_combinations: int) -> Job:
    """Submit an ended job again; raises as `job_to_resume` and `submit`."""
    spec = job_to_resume(database, job_id)
    return submit(database, spec, user, most_combinations=most_combinations, resumes=job_id)


Unit = tuple[ExecutableSpec | None, Sequence[Partition]]
"""A spec (None for a refresh), and the partitions that it names."""


def units_of(job: JobSpec) -> dict[str, Unit]:
    """The units of work of a job, by name; stored units are not computed again.

    Raises:
        UnknownName: for an unknown timeframe.
        InvalidInput: for too many units.
    """
    spec, timeframes = job.spec, _timeframes(job)
    if isinstance(spec, PortfolioSpec | CrossSectionSpec):
        symbols = list(dict.fromkeys(job.symbols)) or spec.symbols
        units: dict[str, Unit] = {
            tf: (
                spec.model_copy(update={"symbols": symbols, "timeframe": tf}),
                [Partition(symbol, timeframe(tf).name) for symbol in symbols],
            )
            for tf in timeframes
        }
    else:
        named = spec.symbols if isinstance(spec, RefreshSpec) else [spec.symbol]
        symbols = list(dict.fromkeys(job.symbols or named))
        units = {}
        for symbol, tf in product(symbols, timeframes):
            partition = Partition(symbol, timeframe(tf).name)
            own = None
            if not isinstance(spec, RefreshSpec):
                own = spec.model_copy(update={"symbol": symbol, "timeframe": tf})
            units[str(partition)] = (own, [partition])
    if len(units) > MOST_UNITS:
        raise InvalidInput(
            f"{len(symbols):,} symbols at {len(timeframes):,} timeframes are {len(units):,} units "
            f"of work, and a job may have at most {MOST_UNITS:,}; split it into several jobs"
        )
    return units


def _timeframes(job: JobSpec) -> list[str]:
    named = job.spec.timeframes if isinstance(job.spec, RefreshSpec) else [job.spec.timeframe]
    return list(dict.fromkeys(job.timeframes or named))


def _strategy_name(spec: ExecutableSpec) -> str:
    """The name that jobs are listed by: the preset, or the strategy."""
    if isinstance(spec, CrossSectionSpec):
        return rule_of_spec(spec).name
    with strategies_for(spec) as named:
        preset = getattr(named, "preset", None)
        return preset or strategy_of(named.strategy or DEFAULT_STRATEGY).name


@dataclass(frozen=True)
class Ended:
    """How the Dagster run of an attempt ended: whether it was cancelled, and the reason."""

    cancelled: bool
    why: str


@dataclass(frozen=True)
class Launched:
    """The state of the Dagster runs of attempts, by `(job_id, attempt)`.

    Attributes:
        under_way: attempts whose run is queued or running.
        ended: attempts whose run has ended.
    """

    under_way: frozenset[tuple[UUID, int]]
    ended: Mapping[tuple[UUID, int], Ended]


def reconcile(
    database: Database, launched: Callable[[Sequence[Attempt]], Launched]
) -> list[Attempt]:
    """Update jobs after the state of their workers; returns the attempts to launch.

    Any number of processes may do this concurrently: an attempt with a valid lease is left alone,
    whatever Dagster reports about its run.
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
    known, to_launch = launched(pending), []
    for attempt in pending:
        key = (attempt.job_id, attempt.attempt)
        if key in known.ended:
            end = known.ended[key]
            with database.begin() as connection:
                not_launched(connection, attempt, cancelled=end.cancelled, why=end.why)
        elif key not in known.under_way:
            to_launch.append(attempt)
    return to_launch
