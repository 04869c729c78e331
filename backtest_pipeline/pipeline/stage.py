"""What a stage is: batches of partitions, each loaded lazily and stored in one transaction.

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

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.workspace import Workspace

T = TypeVar("T")
U = TypeVar("U")
T_contra = TypeVar("T_contra", contravariant=True)

logger = logging.getLogger(__name__)

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


def require_stored(report: StageReport) -> None:
    """Raise the error of the first partition without a result, or the reason why it has none."""
    for outcome in report.outcomes:
        if isinstance(outcome.error, BacktestError):
            raise outcome.error
        if outcome.detail:
            kind = BacktestError if outcome.status is Status.FAILED else NotEnoughBars
            raise kind(f"{outcome.partition}: {report.stage}: {outcome.detail}")
