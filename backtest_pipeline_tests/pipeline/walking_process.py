"""A walk-forward in a process of its own, forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing as mp
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.pools.staged_batches import run_stage
from backtest_pipeline.pipeline.pools.work_pool import Threads
from backtest_pipeline.pipeline.stage import StageReport
from backtest_pipeline.pipeline.stages.features import stored_features
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_stage import WalkForwardStage
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.schedule import Schedule
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel

PARTITIONS = [Partition(asset, "1D") for asset in "AB"]
MARKET = StaticSource({"1D": daily_panel({"A": 500, "B": 420}, seed=5)})
WITHOUT_LAST_WEEK = StaticSource(
    {
        "1D": MARKET.panels["1D"].take(
            MARKET.panels["1D"].ts <= np.max(MARKET.panels["1D"].ts) - 40 * 86_400_000_000
        )
    }
)
PLAN = WalkForwardPlan(Schedule(150, 60, "rolling"))

_context = mp.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def walk(
    workspace: Workspace, partitions: list[Partition] = PARTITIONS, *, rebuild: bool = False
) -> StageReport:
    """The stage over these partitions, one block at a time."""
    stage = WalkForwardStage(workspace, SimulationConfig(), PLAN)
    features = stored_features(workspace, partitions)
    return run_stage(features, stage, pool=Threads(1), rebuild=rebuild)


def searches(workspace: Workspace) -> ForkServerProcess:
    """A process that walks block by block; started."""
    store = (workspace.database.conninfo, workspace.artifacts.root)
    process = _context.Process(target=_walk, args=store)
    process.start()
    return process


def _walk(conninfo: str, root: Path) -> None:
    workspace = Workspace(connect_database(conninfo), ArtifactStore(root))
    assert not walk(workspace).failed
    workspace.database.close()
