"""Computes the batches of a stage in a pool, and stores each in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from backtest_pipeline.market.errors import WorkGivenUp, without_causes
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.pools.work_pool import HERE, PoolWork, Running, WorkPool
from backtest_pipeline.pipeline.stage import (
    Batches,
    Listener,
    Outcome,
    Progress,
    Remade,
    Retrying,
    Stage,
    StageReport,
    Status,
    at_once,
    batches_of,
    of_the_environment,
    silent,
    unanalyzed,
    unheard,
)
from backtest_pipeline.storage.postgres.writer_slots import waiting_until

if TYPE_CHECKING:
    from backtest_pipeline.pipeline.workspace import Workspace

T = TypeVar("T")

logger = logging.getLogger(__name__)

FEWEST_ROWS, MOST_ROWS = 30_000, 150_000
"""Rows of a batch, about: smaller ones cost the database more a row, larger ones memory."""


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


def rows_a_batch(n_rows: int, size: int, most: int) -> int:
    """How many rows a batch has, so that each of `size` workers has about two."""
    return min(most, max(FEWEST_ROWS, n_rows // (2 * size)))


def store_remade(
    remade: Remade, rebuild: bool, workspace: Workspace, batch: Sequence[Partition]
) -> list[Outcome]:
    """Store a batch of a stage in the process that has this workspace."""
    batches, stage = remade(workspace, batch, rebuild)
    with waiting_until(workspace.given_up):
        outcomes = workspace.database.retrying(
            f"{stage.name} {batch[0].timeframe}",
            lambda: stored_batch(batches, stage, batch, rebuild, workspace.given_up),
            workspace.given_up,
        )
    return [replace(o, error=without_causes(o.error)) if o.error else o for o in outcomes]


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
