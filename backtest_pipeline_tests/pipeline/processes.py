"""Refreshes in processes of their own, forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing as mp
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts import ArtifactStore
from backtest_pipeline.storage.database import connect_database
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh

MARKET = StaticSource({"1D": daily_panel(dict.fromkeys("ABCDEF", 250), seed=11)})
PARTITIONS = [Partition(asset, tf) for asset in "ABCDEF" for tf in ("1D", "3D")]

_context = mp.get_context("forkserver")
_context.set_forkserver_preload([f"{__package__}.warm"])


def refreshing(workspace: Workspace, *, rebuild: bool) -> ForkServerProcess:
    """A process that refreshes the market into the store; started."""
    store = (workspace.database.conninfo, workspace.artifacts.root, rebuild)
    process = _context.Process(target=_refresh, args=store)
    process.start()
    return process


def market_without(days: int) -> StaticSource:
    """The market as it was so many days before its last bar."""
    panel = MARKET.panels["1D"]
    return StaticSource({"1D": panel.take(panel.ts <= panel.ts.max() - days * DAY_US)})


def growing(workspace: Workspace, days: int) -> ForkServerProcess:
    """A process that refreshes day by day, from so many days before the last bar on; started."""
    store = (workspace.database.conninfo, workspace.artifacts.root, days)
    process = _context.Process(target=_grow, args=store)
    process.start()
    return process


def _grow(conninfo: str, root: Path, days: int) -> None:
    workspace = Workspace(connect_database(conninfo), ArtifactStore(root))
    for left in reversed(range(days)):
        reports = refresh(workspace, market_without(left), PARTITIONS)
        assert not any(report.failed for report in reports.values())
    workspace.database.close()


def _refresh(conninfo: str, root: Path, rebuild: bool) -> None:
    workspace = Workspace(connect_database(conninfo), ArtifactStore(root))
    reports = refresh(workspace, MARKET, PARTITIONS, rebuild=rebuild)
    assert not any(report.failed for report in reports.values())
    workspace.database.close()
