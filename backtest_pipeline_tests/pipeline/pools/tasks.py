"""What tests have workers do, and a stage that some worker does not survive."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import sqlalchemy as sa

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.pools.staged_batches import run_stage
from backtest_pipeline.pipeline.pools.work_pool import PoolWork, WorkPool
from backtest_pipeline.pipeline.stage import Batches, Outcome, Remade, StageReport
from backtest_pipeline.pipeline.stages.features import FeaturesStage, stored_bars
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.logs import set_up_logging
from backtest_pipeline.strategies.known_strategies import catalogue

FEWEST_ROWS = 1_000
"""How few rows are worth a worker in these tests."""
LONG_S = 600
"""Seconds of a statement that nobody waits for to the end."""


def nothing_here(item: Any) -> Any:
    """What only another process may do."""
    raise AssertionError(f"{item} was done in the process that wanted it done")


def asked(pool: WorkPool, function: Any, item: Any = None) -> Any:
    """What a worker answers."""
    return pool.do(PoolWork("test", nothing_here, function), item)


def own_pid(_workspace: Workspace, _item: None) -> int:
    return os.getpid()


def ended_once(_workspace: Workspace, marker: Path) -> int:
    """End the process as if all were well, the first time."""
    if not marker.exists():
        marker.touch()
        os._exit(0)
    return os.getpid()


def known_strategies(_workspace: Workspace, _item: None) -> list[str]:
    return sorted(catalogue().known)


def raised(_workspace: Workspace, error: Exception) -> None:
    raise error


def long_statement(workspace: Workspace, marker: Path) -> None:
    """Wait in a statement for ten minutes, and tell the file of it."""
    with workspace.database.begin() as connection:
        connection.execute(sa.text(f"SELECT pg_sleep({LONG_S})"))
    marker.touch()


def logged(_workspace: Workspace, path: Path) -> None:
    """Log something, and what the log then has, into a file."""
    import contextlib
    import logging

    with path.open("w") as file, contextlib.redirect_stderr(file):
        set_up_logging("text", logging.INFO)
        logging.getLogger(__name__).info("a worker works")


@dataclass(frozen=True)
class Threat:
    """What happens to a worker that has a batch with an asset.

    Attributes:
        asset: this asset.
        folder: where it is counted.
        times: how often it happens.
        what: the worker dies before the batch is stored, or after it, or waits in a statement.
    """

    asset: str
    folder: Path
    times: int
    what: Literal["dies before", "dies after", "waits"] = "dies before"

    def met(self, batch: PanelBatch) -> bool:
        if self.asset not in {p.asset for p in batch.partitions} or self.happened >= self.times:
            return False
        (self.folder / uuid4().hex).touch()
        return True

    @property
    def happened(self) -> int:
        return len(list(self.folder.iterdir()))


class ThreatenedFeatures(FeaturesStage):
    """The stage of features in batches of two partitions, which workers do not survive."""

    def __init__(self, workspace: Workspace, threat: Threat) -> None:
        super().__init__(workspace)
        self._threat = threat

    @property
    def remade(self) -> Remade:
        return partial(threatened_again, self._threat)

    def rows_expected(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        return dict.fromkeys(partitions, FEWEST_ROWS // 2)

    def store(self, batch: PanelBatch, *, rebuild: bool) -> Iterable[Outcome]:
        is_met = self._threat.met(batch)
        if is_met and self._threat.what == "waits":
            long_statement(self._workspace, self._threat.folder / "woken")
        if is_met and self._threat.what == "dies before":
            os.kill(os.getpid(), signal.SIGKILL)
        outcomes = list(super().store(batch, rebuild=rebuild))
        if is_met:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcomes


def threatened_again(
    threat: Threat, workspace: Workspace, partitions: Sequence[Partition], _rebuild: bool
) -> tuple[Batches[PanelBatch], ThreatenedFeatures]:
    return stored_bars(workspace, partitions), ThreatenedFeatures(workspace, threat)


def computed_under(
    workspace: Workspace, partitions: Sequence[Partition], threat: Threat, **how: Any
) -> StageReport:
    """The report of these features, computed anew under a threat."""
    return run_stage(
        stored_bars(workspace, partitions),
        ThreatenedFeatures(workspace, threat),
        pool=workspace.pool,
        retrying=workspace.database.retrying,
        rebuild=True,
        **how,
    )
