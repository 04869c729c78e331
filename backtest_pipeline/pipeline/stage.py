"""Batches of partitions: loaded lazily, computed at once, stored each in one transaction.

A batch holds many assets of one timeframe. Its size bounds the memory; its transaction bounds
what a kill can undo. Partitions whose result is already stored under the same inputs and code
are left out before anything is loaded.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event
from typing import Generic, Protocol, TypeVar

from backtest_pipeline.market.errors import (
    ArtifactCorrupt,
    ArtifactError,
    ConfigurationError,
    RowsRefused,
    StoreError,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe

T = TypeVar("T")
U = TypeVar("U")
T_contra = TypeVar("T_contra", contravariant=True)

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, the partitions done and their total."""


class Retrying(Protocol):
    """Does some work, and again where the database goes away meanwhile; see `postgres.retry`."""

    def __call__(self, what: str, work: Callable[[], T], given_up: Event | None = None, /) -> T: ...


def at_once(_what: str, work: Callable[[], T], _given_up: Event | None = None, /) -> T:
    """Do some work once, and wait for nothing."""
    return work()


def silent(_stage: str, _done: int, _total: int) -> None:
    """A progress listener that does nothing."""


class Status(StrEnum):
    """What became of a partition in a stage."""

    STORED = "stored"
    UNCHANGED = "unchanged"
    EMPTY = "empty"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """One partition's result in a stage: rows written, and why where there are none.

    `error` is what a failed one failed with.
    """

    partition: Partition
    status: Status
    rows: int = 0
    detail: str = ""
    error: Exception | None = None


@dataclass(frozen=True)
class StageReport:
    """What a stage did to all its partitions."""

    stage: str
    outcomes: tuple[Outcome, ...] = field(repr=False)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.status is Status.FAILED)

    @property
    def counts(self) -> dict[str, int]:
        """Partitions by status."""
        found = Counter(outcome.status for outcome in self.outcomes)
        return {status.value: found[status] for status in Status if found[status]}

    @property
    def rows(self) -> int:
        """Rows written."""
        return sum(outcome.rows for outcome in self.outcomes)


@dataclass(frozen=True)
class Batches(Generic[T]):
    """Partitions and the way to get a batch of them, all of one timeframe."""

    partitions: tuple[Partition, ...]
    load: Callable[[str, Sequence[str]], T]

    def map(self, compute: Callable[[T], U]) -> Batches[U]:
        """The same partitions with `compute` applied to each batch when it is loaded."""
        return Batches(self.partitions, lambda tf, assets: compute(self.load(tf, assets)))


class Stage(Protocol[T_contra]):
    """Where a stage's batches go."""

    name: str

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        """Those whose stored result is missing or of other inputs or code."""
        ...

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """About how many rows each partition has, to size the blocks."""
        ...

    def store(self, batch: T_contra, *, rebuild: bool) -> Iterable[Outcome]:
        """Write a batch in one transaction; with `rebuild` also what seems to be stored.

        Storing a batch that is stored already leaves what storing it once does.
        """
        ...


# Trouble with the surroundings: the next batch would meet it as well.
_ENVIRONMENT = (StoreError, ArtifactError, ConfigurationError)
# Errors of those kinds that are about what one partition holds.
_OF_A_PARTITION = (RowsRefused, ArtifactCorrupt)


def run_stage(
    batches: Batches[T],
    stage: Stage[T],
    *,
    workers: int = 2,
    batch_rows: int = 150_000,
    rebuild: bool = False,
    progress: Progress = silent,
    retrying: Retrying = at_once,
) -> StageReport:
    """Load, compute and store what is stale; one bad partition does not stop the others.

    Args:
        batches: what to compute.
        stage: where it goes.
        workers: batches under way at once; Postgres works for one while we compute another.
        batch_rows: about how many rows a batch may have.
        rebuild: compute and write also what is not stale.
        progress: told after each batch.
        retrying: how each batch is done; one that the database went away from is loaded,
            computed and stored again.

    Raises:
        StoreError, ArtifactError, ConfigurationError: where going on makes no sense. Batches
            that were stored stay stored.
    """
    interrupted = Event()

    def look() -> tuple[list[Partition], dict[Partition, int]]:
        stale = list(batches.partitions if rebuild else stage.stale(batches.partitions))
        return stale, stage.rows_expected(stale)

    def run_batch(batch: Sequence[Partition]) -> list[Outcome]:
        what = f"{stage.name} {batch[0].timeframe}"
        return retrying(what, lambda: _run_batch(batches, stage, batch, rebuild), interrupted)

    stale, expected = retrying(stage.name, look)
    unchanged = set(batches.partitions) - set(stale)
    outcomes = [Outcome(p, Status.UNCHANGED) for p in batches.partitions if p in unchanged]
    done, total = len(outcomes), len(batches.partitions)
    progress(stage.name, done, total)
    planned = batches_of(stale, expected, batch_rows)
    pool = ThreadPoolExecutor(workers, thread_name_prefix=stage.name)
    try:
        running = {pool.submit(run_batch, batch) for batch in planned}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                found = future.result()
                outcomes += found
                done += len(found)
            progress(stage.name, done, total)
    except BaseException:
        # An interrupt or an error of the surroundings: let running batches end, begin no other.
        interrupted.set()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
    return StageReport(stage.name, tuple(sorted(outcomes, key=lambda o: o.partition)))


def batches_of(
    partitions: Sequence[Partition], rows: dict[Partition, int], batch_rows: int
) -> list[list[Partition]]:
    """Partitions grouped by timeframe into batches of about `batch_rows`, large batches first."""
    by_timeframe: dict[str, list[Partition]] = defaultdict(list)
    for partition in partitions:
        by_timeframe[partition.timeframe].append(partition)
    planned: list[tuple[int, list[Partition]]] = []
    for name in sorted(by_timeframe, key=lambda tf: timeframe(tf).sort_order):
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


def _run_batch(
    batches: Batches[T], stage: Stage[T], batch: Sequence[Partition], rebuild: bool
) -> list[Outcome]:
    try:
        loaded = batches.load(batch[0].timeframe, [p.asset for p in batch])
        return list(stage.store(loaded, rebuild=rebuild))
    except Exception as error:
        if isinstance(error, _ENVIRONMENT) and not isinstance(error, _OF_A_PARTITION):
            raise
        reason = error  # it becomes the partition's recorded outcome
    if len(batch) == 1:
        logger.error("%s failed for %s", stage.name, batch[0], exc_info=reason)
        detail = f"{type(reason).__name__}: {reason}"
        return [Outcome(batch[0], Status.FAILED, detail=detail, error=reason)]
    # Find the partition to blame by halves, so that its neighbours are stored all the same.
    half = len(batch) // 2
    return [
        *_run_batch(batches, stage, batch[:half], rebuild),
        *_run_batch(batches, stage, batch[half:], rebuild),
    ]
