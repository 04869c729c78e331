"""Does many pieces of work side by side, in threads of this process or elsewhere.

A pool does one piece at a time for each thread that asks it to; `Running` has as many threads as
are worth it, whatever the pool. Work for other processes is sent by name: a function of a module,
and a small item such as the partitions of a batch. What it reads and writes goes between the
process that does it and the store, never through the one that asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.workspace import Workspace

A = TypeVar("A")
R = TypeVar("R")

GRACE_S = 5.0
"""How long work that is under way may take to end by itself once it is not wanted any more."""


@dataclass(frozen=True)
class PoolWork(Generic[A, R]):
    """What is to be done with each item.

    Attributes:
        name: of the work, in the log and in errors.
        here: does an item in this process.
        elsewhere: does an item in another process, with the workspace of that process; can be
            pickled, as items and results can. None for what only this process can do, such as work
            on bars that it has read.
    """

    name: str
    here: Callable[[A], R]
    elsewhere: Callable[[Workspace, A], R] | None = None


class WorkPool(Protocol):
    """Where work is done."""

    @property
    def size(self) -> int:
        """How many pieces of work are done at once."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether all work is done in this process."""
        ...

    @property
    def most_threads(self) -> int:
        """How many threads may wait for work at once."""
        ...

    def do(self, work: PoolWork[A, R], item: A) -> R:
        """Do one piece of work, and wait for its result.

        Raises:
            WorkerLost: if the processes that do it die again and again.
            PoolUnavailable: if there is no process that could do it.
            WorkGivenUp: if the work was abandoned.
            Exception: what the work raises.
        """
        ...

    def abandon(self) -> None:
        """End all work of this pool that is under way elsewhere; whoever waits gets an error.

        Also another thread's: runs that are to end one by one have a workspace each.
        """
        ...

    def close(self) -> None:
        """End the processes of this pool, if it has any of its own."""
        ...


@dataclass(frozen=True)
class Threads:
    """The threads of this process.

    Attributes:
        size: how many. With two, one batch is written while another is computed.
    """

    size: int = 2
    is_here = True

    @property
    def most_threads(self) -> int:
        return self.size

    def do(self, work: PoolWork[A, R], item: A) -> R:
        return work.here(item)

    def abandon(self) -> None:
        """Nothing: what runs in this process ends by itself."""

    def close(self) -> None:
        """Nothing: threads end with the work."""


HERE = Threads()


class Running(Generic[A, R]):
    """Pieces of work under way; iterate over it for each item with its result, as they are done."""

    def __init__(
        self,
        pool: WorkPool,
        do: Callable[[A], R],
        items: Sequence[A],
        name: str,
        given_up: Event | None = None,
    ) -> None:
        """Start them.

        Args:
            pool: where they are done.
            do: does one of them, by `pool.do`.
            items: what is to be done.
            name: of the threads.
            given_up: set when they are not wanted any more, for what waits in this process.
        """
        self._pool, self._given_up = pool, given_up or Event()
        threads = max(1, min(pool.most_threads, len(items)))
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._items: dict[Future[R], A] = {
            # In the context of this thread: what is known and logged here, is in its threads.
            self._executor.submit(copy_context().run, do, item): item
            for item in items
        }

    def __iter__(self) -> Iterator[tuple[A, R]]:
        """Raises what the first piece of work that fails raises."""
        while self._items:
            finished, _ = wait(self._items, return_when=FIRST_COMPLETED)
            for future in finished:
                result = future.result()
                yield self._items.pop(future), result
        self._executor.shutdown()

    def stop(self) -> list[tuple[A, R]]:
        """Start nothing more, end what is running, and return the results that were completed.

        What is done in this process is waited for. What is done elsewhere has GRACE_S to end.
        """
        self._given_up.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
        if not self._pool.is_here:
            wait(self._items, GRACE_S)
            self._pool.abandon()
        self._executor.shutdown(wait=True)
        return [
            (item, future.result())
            for future, item in self._items.items()
            if not future.cancelled() and future.exception() is None
        ]


def done(pool: WorkPool, work: PoolWork[A, R], items: Sequence[A]) -> Iterator[tuple[A, R]]:
    """Each item with its result, as they are done; after an error nothing more is started."""
    running: Running[A, R] = Running(pool, partial(pool.do, work), items, work.name)
    try:
        yield from running
    except BaseException:
        running.stop()
        raise
