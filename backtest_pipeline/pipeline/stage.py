"""Runs stages over batches of partitions, each loaded lazily and stored in one transaction.

A batch holds many assets of one timeframe. Its size bounds the memory, and its transaction bounds
the work lost if the process is killed. Partitions whose result is already stored for the same
inputs and code are skipped before anything is loaded.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from backtest_pipeline.market.errors import (
    ArtifactCorrupt,
    ArtifactError,
    BacktestError,
    ConfigurationError,
    NotEnoughBars,
    PoolUnavailable,
    RowsRefused,
    StoreError,
    WorkGivenUp,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.pools.work_pool import HERE, PoolWork, Running, WorkPool
from backtest_pipeline.storage.postgres.writer_slots import waiting_until

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.workspace import Workspace

T = TypeVar("T")
U = TypeVar("U")
T_contra = TypeVar("T_contra", contravariant=True)

logger = logging.getLogger(__name__)

FEWEST_ROWS, MOST_ROWS = 30_000, 150_000
"""Rows of a batch, about: smaller ones cost the database more a row, larger ones memory."""

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, the number of partitions done, and their total."""


class Retrying(Protocol):
    """Does some work, and repeats it if the database connection is lost; see `postgres.retry`."""

    def __call__(self, what: str, work: Callable[[], T], given_up: Event | None = None, /) -> T: ...


def at_once(_what: str, work: Callable[[], T], _given_up: Event | None = None, /) -> T:
    """Do some work once, without retrying."""
    return work()


def unanalyzed(_tables: Sequence[str]) -> None:
    """Leave the planner's statistics to the server."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """A progress listener that does nothing."""


Listener = Callable[[Sequence["Outcome"]], None]
"""Called with the outcomes of each batch, as soon as it is stored."""


def unheard(_outcomes: Sequence[Outcome]) -> None:
    """A listener that does nothing."""


class Status(StrEnum):
    """The outcome of a partition in a stage.

    PARTIAL lacks the presets or strategies that failed on it. EMPTY is a result: there are rightly
    no rows, as before the first complete bar of a timeframe. NO_INPUT is none: what it would be
    computed from is not stored, or cannot be used.
    """

    STORED = "stored"
    PARTIAL = "partial"
    UNCHANGED = "unchanged"
    EMPTY = "empty"
    NO_INPUT = "no_input"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """One partition's outcome in a stage: rows written, and why there are none, or not all.

    `error` is the exception of a failed partition.
    """

    partition: Partition
    status: Status
    rows: int = 0
    detail: str = ""
    error: Exception | None = None

    @property
    def is_stored(self) -> bool:
        """Whether the store now holds the partition's result, be it without rows."""
        return self.status not in (Status.NO_INPUT, Status.FAILED)


def stored(
    partition: Partition, rows: int, failed: Mapping[str, str], kind: str = "preset"
) -> Outcome:
    """The outcome of a stored partition, on which these presets failed, by name and reason.

    `kind` is what the names are of, `preset` or `strategy`.
    """
    detail = "; ".join(f"{kind} {name} fails: {why}" for name, why in failed.items())
    return Outcome(partition, Status.PARTIAL if failed else Status.STORED, rows, detail)


@dataclass(frozen=True)
class StageReport:
    """The outcomes of all partitions in a stage."""

    stage: str
    outcomes: tuple[Outcome, ...] = field(repr=False)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.status is Status.FAILED)

    @property
    def incomplete(self) -> tuple[Outcome, ...]:
        """Those that failed, and those that lack what failed on them."""
        return tuple(o for o in self.outcomes if o.status in (Status.FAILED, Status.PARTIAL))

    @property
    def counts(self) -> dict[str, int]:
        """Number of partitions by status."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        return {status.value: counts[status] for status in Status if counts[status]}

    @property
    def rows(self) -> int:
        """Total rows written."""
        return sum(outcome.rows for outcome in self.outcomes)


@dataclass(frozen=True)
class Batches(Generic[T]):
    """Partitions, and a function that loads a batch of them, all of one timeframe."""

    partitions: tuple[Partition, ...]
    load: Callable[[str, Sequence[str]], T]

    def map(self, compute: Callable[[T], U]) -> Batches[U]:
        """The same partitions with `compute` applied to each batch when it is loaded."""
        return Batches(self.partitions, lambda tf, assets: compute(self.load(tf, assets)))

    def of(self, partitions: Iterable[Partition]) -> Batches[T]:
        """The same batches of other partitions."""
        return Batches(tuple(partitions), self.load)


Remade = Callable[["Workspace", Sequence[Partition], bool], tuple[Batches[Any], "Stage[Any]"]]
"""Makes a stage and its batches of some partitions, and whether to rebuild, in any process."""


class Stage(Protocol[T_contra]):
    """A stage: finds stale partitions and stores batches."""

    name: str

    @property
    def remade(self) -> Remade | None:
        """A picklable function that makes this stage in another process.

        None for a stage that only this process can run, such as one that has read a source.
        """
        ...

    @property
    def tables(self) -> Sequence[str]:
        """The tables that it writes in bulk."""
        ...

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        """The partitions whose stored result is missing, or made from other inputs or code."""
        ...

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The approximate number of rows of each partition, to size the batches."""
        ...

    def store(self, batch: T_contra, *, rebuild: bool) -> Iterable[Outcome]:
        """Write a batch in one transaction; with `rebuild`, even rows that are unchanged.

        Idempotent: storing a batch twice has the same effect as storing it once.
        """
        ...


# Problems of the environment, which the next batch would run into as well.
_ENVIRONMENT = (StoreError, ArtifactError, ConfigurationError, PoolUnavailable, WorkGivenUp)
# Errors of those kinds that concern the content of a single partition.
_OF_A_PARTITION = (RowsRefused, ArtifactCorrupt)


def of_the_environment(error: Exception) -> bool:
    """Whether the next partition would meet the same error."""
    return isinstance(error, _ENVIRONMENT) and not isinstance(error, _OF_A_PARTITION)


def run_stage(
    batches: Batches[T],
    stage: Stage[T],
    *,
    pool: WorkPool = HERE,
    batch_rows: int = MOST_ROWS,
    rebuild: bool = False,
    progress: Progress = silent,
    retrying: Retrying = at_once,
    listener: Listener = unheard,
    analyze: Callable[[Sequence[str]], object] = unanalyzed,
) -> StageReport:
    """Load, compute and store stale partitions; a failing partition does not stop the others.

    Args:
        batches: the partitions to compute.
        stage: the stage that stores them.
        pool: where batches are computed; all together, if there are few rows, in this process.
        batch_rows: approximate maximum of rows per batch.
        rebuild: recompute and write partitions that are not stale as well.
        progress: called after each batch.
        retrying: runs each batch; if the database connection is lost, the batch is loaded,
            computed and stored again.
        listener: called in this thread with the outcomes of what is unchanged, and then of each
            batch; after an error or an interrupt, also with those of the batches that were stored.
        analyze: has the planner look at the tables that were written, once at the end.

    Raises:
        StoreError, ArtifactError, ConfigurationError: for problems that would affect every batch.
            Batches that were stored remain stored.
    """

    def look() -> tuple[list[Partition], dict[Partition, int]]:
        stale = list(batches.partitions if rebuild else stage.stale(batches.partitions))
        return stale, stage.rows_expected(stale)

    stale, expected = retrying(stage.name, look)
    unchanged = set(batches.partitions) - set(stale)
    outcomes = [Outcome(p, Status.UNCHANGED) for p in batches.partitions if p in unchanged]
    done, total = len(outcomes), len(batches.partitions)
    if outcomes:
        listener(outcomes)
    progress(stage.name, done, total)
    n_rows = sum(expected.values())
    where = HERE if not pool.is_here and n_rows <= FEWEST_ROWS else pool
    size = batch_rows if where.is_here else rows_a_batch(n_rows, where.size, batch_rows)
    interrupted = Event()

    def store(batch: Sequence[Partition]) -> list[Outcome]:
        what = f"{stage.name} {batch[0].timeframe}"
        with waiting_until(interrupted):
            return retrying(what, lambda: stored_batch(batches, stage, batch, rebuild), interrupted)

    elsewhere = None if stage.remade is None else partial(store_remade, stage.remade, rebuild)
    work = PoolWork(stage.name, store, elsewhere)

    def do(part: Sequence[Partition]) -> list[Outcome]:
        if interrupted.is_set():  # between two halves
            raise WorkGivenUp(f"{stage.name} {part[0].timeframe}: the run was ended before it")
        return where.do(work, part)

    running = Running(
        where,
        # Halved where workers die of it, as of too much memory.
        lambda batch: bisected(stage.name, batch, do),
        batches_of(stale, expected, size),
        stage.name,
        interrupted,
    )
    try:
        for _, of_batch in running:
            listener(of_batch)
            outcomes += of_batch
            done += len(of_batch)
            progress(stage.name, done, total)
    except BaseException:
        # Interrupt or problem of the environment: let running batches end, and start no others.
        for _, of_batch in running.stop():
            listener(of_batch)
        raise
    if any(outcome.status is Status.STORED for outcome in outcomes):
        retrying(f"statistics of {stage.name}", lambda: analyze(stage.tables))
    return StageReport(stage.name, tuple(sorted(outcomes, key=lambda o: o.partition)))


def batches_of(
    partitions: Sequence[Partition], rows: dict[Partition, int], batch_rows: int
) -> list[list[Partition]]:
    """Partitions grouped by timeframe into batches of about `batch_rows`, large batches first."""
    by_timeframe: dict[str, list[Partition]] = defaultdict(list)
    for partition in partitions:
        by_timeframe[partition.timeframe].append(partition)
    planned: list[tuple[int, list[Partition]]] = []
    for name in sorted(by_timeframe, key=lambda tf: timeframe(tf).sort_key):
        batch: list[Partition] = []
        size = 0
        for partition in by_timeframe[name]:
            expected = rows.get(partition, 0)
            if batch and size + expected > batch_rows:
                planned.append((size, batch))
                batch, size = [], 0
            batch.append(partition)
            size += expected
        planned.append((size, batch))
    return [batch for _, batch in sorted(planned, key=lambda sized: -sized[0])]


def rows_a_batch(n_rows: int, size: int, most: int) -> int:
    """How many rows a batch has, so that each of `size` workers has about two."""
    return min(most, max(FEWEST_ROWS, n_rows // (2 * size)))


def store_remade(
    remade: Remade, rebuild: bool, workspace: Workspace, batch: Sequence[Partition]
) -> list[Outcome]:
    """Store a batch of a stage in the process that has this workspace."""
    batches, stage = remade(workspace, batch, rebuild)
    with waiting_until(workspace.given_up):
        return workspace.database.retrying(
            f"{stage.name} {batch[0].timeframe}",
            lambda: stored_batch(batches, stage, batch, rebuild, workspace.given_up),
            workspace.given_up,
        )


def stored_batch(
    batches: Batches[T],
    stage: Stage[T],
    batch: Sequence[Partition],
    rebuild: bool,
    given_up: Event | None = None,
) -> list[Outcome]:
    """Load, compute and store a batch; where it fails, find the partition, and store the others."""

    def store(part: Sequence[Partition]) -> list[Outcome]:
        loaded = batches.load(part[0].timeframe, [p.asset for p in part])
        if given_up is not None and given_up.is_set():
            raise WorkGivenUp(f"{stage.name} {part[0].timeframe}: the run was ended before it")
        return list(stage.store(loaded, rebuild=rebuild))

    return bisected(stage.name, batch, store)


def bisected(
    name: str,
    batch: Sequence[Partition],
    store: Callable[[Sequence[Partition]], list[Outcome]],
) -> list[Outcome]:
    """The outcomes of a batch, halved where it fails, until the partition that fails is alone."""
    try:
        return store(batch)
    except Exception as error:
        if of_the_environment(error):
            raise
        reason = error  # recorded as the partition's outcome
    if len(batch) == 1:
        logger.error("%s failed for %s", name, batch[0], exc_info=reason)
        detail = f"{type(reason).__name__}: {reason}"
        return [Outcome(batch[0], Status.FAILED, detail=detail, error=reason)]
    half = len(batch) // 2
    return [*bisected(name, batch[:half], store), *bisected(name, batch[half:], store)]


def require_stored(report: StageReport) -> None:
    """Raise the error of the first partition without a result, or the reason why it has none."""
    for outcome in report.outcomes:
        if isinstance(outcome.error, BacktestError):
            raise outcome.error
        if outcome.detail:
            kind = BacktestError if outcome.status is Status.FAILED else NotEnoughBars
            raise kind(f"{outcome.partition}: {report.stage}: {outcome.detail}")
