"""Refreshes in processes of their own, forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing as mp
import sys
import threading
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database, connect_database, open_database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh

MARKET = StaticSource({"1D": daily_panel(dict.fromkeys("ABCDEF", 250), seed=11)})
PARTITIONS = [Partition(asset, tf) for asset in "ABCDEF" for tf in ("1D", "3D")]

_context = mp.get_context("forkserver")
_context.set_forkserver_preload([f"{__package__}.warm"])


def refreshing(
    workspace: Workspace,
    *,
    rebuild: bool = False,
    source: StaticSource = MARKET,
    home: Path | None = None,
    opened: Event | None = None,
) -> ForkServerProcess:
    """A process that refreshes the market into the store; started.

    Args:
        workspace: the store.
        rebuild: compute also what is stored.
        source: the market.
        home: opens the embedded server of this folder, as a user's process does, in place of
            connecting to that of the workspace.
        opened: set by the process when it has opened the store.
    """
    store = home or workspace.database.conninfo
    return started(refresh_store, store, workspace.artifacts.root, source, rebuild, opened)


def started(target: Callable[..., None], *args: Any) -> ForkServerProcess:
    """A process that calls a function; started."""
    process = _context.Process(target=target, args=args)
    process.start()
    return process


def event() -> Event:
    """One that such a process may set."""
    return _context.Event()


def barrier(n: int) -> Barrier:
    """One at which so many such processes meet."""
    return _context.Barrier(n)


def market_without(days: int) -> StaticSource:
    """The market as it was so many days before its last bar."""
    panel = MARKET.panels["1D"]
    return StaticSource({"1D": panel.take(panel.ts <= panel.ts.max() - days * DAY_US)})


def growing(
    workspace: Workspace, days: int, *, held_in: Path | None = None, held: Event | None = None
) -> ForkServerProcess:
    """A process that refreshes day by day, from so many days before the last bar on; started.

    Args:
        workspace: the store.
        days: so many.
        held_in: a folder; the process waits for ever before the first file that it has written
            there, under a name of its own, gets the name that others know.
        held: set by the process when it has come there.
    """
    store = (workspace.database.conninfo, workspace.artifacts.root)
    return started(_grow, *store, days, held_in, held)


def _grow(conninfo: str, root: Path, days: int, held_in: Path | None, held: Event | None) -> None:
    if held_in and held:
        _wait_for_ever_before_a_file_of(held_in, held)
    workspace = Workspace(connect_database(conninfo), ArtifactStore(root))
    for left in reversed(range(days)):
        reports = refresh(workspace, market_without(left), PARTITIONS)
        assert not any(report.failed for report in reports.values())
    workspace.database.close()


def _wait_for_ever_before_a_file_of(folder: Path, held: Event) -> None:
    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(arguments[1]).parent == folder:
            held.set()
            threading.Event().wait()

    sys.addaudithook(heard)


def refresh_store(
    store: str | Path, root: Path, source: StaticSource, rebuild: bool, opened: Event | None = None
) -> None:
    """What such a process does."""
    workspace = Workspace(_opened(store), ArtifactStore(root))
    if opened:
        opened.set()
    reports = refresh(workspace, source, PARTITIONS, rebuild=rebuild)
    assert not any(report.failed for report in reports.values())
    workspace.database.close()


def _opened(store: str | Path) -> Database:
    if isinstance(store, Path):
        return open_database(load_settings(run_store_mode="embedded", home=store))
    return connect_database(store)
