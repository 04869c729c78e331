"""Blocks of partitions: loaded lazily, computed at once, stored each in one transaction.

A block holds many assets of one timeframe. Its size bounds the memory; its transaction bounds
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
    """Partitions and the way to get a block of them, all of one timeframe."""

    partitions: tuple[Partition, ...]
    load: Callable[[str, Sequence[str]], T]

    def map(self, compute: Callable[[T], U]) -> Batches[U]:
        """The same partitions with `compute` applied to each block when it is loaded."""
        return Batches(self.partitions, lambda tf, assets: compute(self.load(tf, assets)))


class Stage(Protocol[T_contra]):
    """Where a stage's blocks go."""

    name: str

    def stale(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        """Those whose stored result is missing or of other inputs or code."""
        ...

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """About how many rows each partition has, to size the blocks."""
        ...

    def store(self, block: T_contra, *, rebuild: bool) -> Iterable[Outcome]:
        """Write a block in one transaction; with `rebuild` also what seems to be stored.

        Storing a block that is stored already leaves what storing it once does.
        """
        ...


# Trouble with the surroundings: the next block would meet it as well.
_ENVIRONMENT = (StoreError, ArtifactError, ConfigurationError)
# Errors of those kinds that are about what one partition holds.
_OF_A_PARTITION = (RowsRefused, ArtifactCorrupt)


def run_stage(
    batches: Batches[T],
    stage: Stage[T],
    *,
    workers: int = 2,
    block_rows: int = 150_000,
    rebuild: bool = False,
    progress: Progress = silent,
    retrying: Retrying = at_once,
) -> StageReport:
    """Load, compute and store what is stale; one bad partition does not stop the others.

    Args:
        batches: what to compute.
        stage: where it goes.
        workers: blocks under way at once; Postgres works for one while we compute another.
        block_rows: about how many rows a block may have.
        rebuild: compute and write also what is not stale.
        progress: told after each block.
        retrying: how each block is done; one that the database went away from is loaded,
            computed and stored again.

    Raises:
        StoreError, ArtifactError, ConfigurationError: where going on makes no sense. Blocks
            that were stored stay stored.
    """
    interrupted = Event()

    def look() -> tuple[list[Partition], dict[Partition, int]]:
        stale = list(batches.partitions if rebuild else stage.stale(batches.partitions))
        return stale, stage.rows_expected(stale)

    def run_block(block: Sequence[Partition]) -> list[Outcome]:
        what = f"{stage.name} {block[0].timeframe}"
        return retrying(what, lambda: _run_block(batches, stage, block, rebuild), interrupted)

    stale, expected = retrying(stage.name, look)
    unchanged = set(batches.partitions) - set(stale)
    outcomes = [Outcome(p, Status.UNCHANGED) for p in batches.partitions if p in unchanged]
    done, total = len(outcomes), len(batches.partitions)
    progress(stage.name, done, total)
    blocks = blocks_of(stale, expected, block_rows)
    pool = ThreadPoolExecutor(workers, thread_name_prefix=stage.name)
    try:
        running = {pool.submit(run_block, block) for block in blocks}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                found = future.result()
                outcomes += found
                done += len(found)
            progress(stage.name, done, total)
    except BaseException:
        # An interrupt or an error of the surroundings: let running blocks end, begin no other.
        interrupted.set()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
    return StageReport(stage.name, tuple(sorted(outcomes, key=lambda o: o.partition)))


def blocks_of(
    partitions: Sequence[Partition], rows: dict[Partition, int], block_rows: int
) -> list[list[Partition]]:
    """Partitions grouped by timeframe into blocks of about `block_rows`, large blocks first."""
    by_timeframe: dict[str, list[Partition]] = defaultdict(list)
    for partition in partitions:
        by_timeframe[partition.timeframe].append(partition)
    blocks: list[tuple[int, list[Partition]]] = []
    for name in sorted(by_timeframe, key=lambda tf: timeframe(tf).sort_order):
        block: list[Partition] = []
        size = 0
        for partition in by_timeframe[name]:
            expected = rows.get(partition, 0)
            if block and size + expected > block_rows:
                blocks.append((size, block))
                block, size = [], 0
            block.append(partition)
            size += expected
        blocks.append((size, block))
    return [block for _, block in sorted(blocks, key=lambda sized: -sized[0])]


def _run_block(
    batches: Batches[T], stage: Stage[T], block: Sequence[Partition], rebuild: bool
) -> list[Outcome]:
    try:
        loaded = batches.load(block[0].timeframe, [p.asset for p in block])
        return list(stage.store(loaded, rebuild=rebuild))
    except Exception as error:
        if isinstance(error, _ENVIRONMENT) and not isinstance(error, _OF_A_PARTITION):
            raise
        reason = error  # it becomes the partition's recorded outcome
    if len(block) == 1:
        logger.error("%s failed for %s", stage.name, block[0], exc_info=reason)
        detail = f"{type(reason).__name__}: {reason}"
        return [Outcome(block[0], Status.FAILED, detail=detail, error=reason)]
    # Find the partition to blame by halves, so that its neighbours are stored all the same.
    half = len(block) // 2
    return [
        *_run_block(batches, stage, block[:half], rebuild),
        *_run_block(batches, stage, block[half:], rebuild),
    ]
