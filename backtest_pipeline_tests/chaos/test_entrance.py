"""The command that a user types, killed: Dagster's run and all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.defs.processes.leased_runs import fail_dead_runs
from backtest_pipeline.market.panel import OHLCV, utc_index
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.chaos.harness import MARKETS, Judge, Tally, instants, random_of
from backtest_pipeline_tests.pipeline.markets import contents
from backtest_pipeline_tests.waiting import LIMIT_S, until

KILLS = 8


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The two markets as files of one name: where bars come from is stored with them."""
    found = []
    for n, source in enumerate(MARKETS):
        panel = source.panels["1D"]
        assets = pd.Series(panel.assets).take(panel.segment_of_row).to_numpy()
        rows = {"symbol": assets, "ts": utc_index(panel.ts)}
        found.append(tmp_path / str(n) / "bars.parquet")
        found[-1].parent.mkdir()
        pd.DataFrame(rows | {name: panel[name] for name in OHLCV}).to_parquet(found[-1])
    return found


def refreshing(workspace: Workspace, bars: Path) -> subprocess.Popen[bytes]:
    """`backtest-pipeline refresh` in a session of its own; started."""
    root = workspace.artifacts.root
    environment = {
        **os.environ,
        "BACKTEST_RUN_STORE_MODE": "postgres",
        "BACKTEST_POSTGRES_DSN": workspace.database.conninfo,
        "BACKTEST_HOME": str(root.with_name(f"{root.name}-home")),
        "BACKTEST_ARTIFACTS_URL": str(root),
    }
    command = [sys.executable, "-m", "backtest_pipeline.cli.main", "refresh"]
    return subprocess.Popen(
        [*command, "--timeframes", "1D,3D", "--bars", "bars.parquet"],
        cwd=bars.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.chaos
def test_the_refresh_command_killed_at_any_instant_leaves_old_or_new(
    workspace: Workspace, fresh_store: Callable[[], Workspace], files: list[Path], tmp_path: Path
) -> None:
    rng, tally = random_of("entrance"), Tally()
    expected, lasts = [], 0.0
    for bars in files:
        store = fresh_store()
        began = time.monotonic()
        assert refreshing(store, bars).wait(LIMIT_S) == 0
        lasts = time.monotonic() - began
        expected.append(contents(store))
    judge = Judge(tuple(expected))
    for n, instant in enumerate(instants(rng, KILLS, lasts)):
        command = refreshing(workspace, files[n % 2])
        try:
            command.wait(instant)
            tally.add("ended before")
        except subprocess.TimeoutExpired:
            os.killpg(command.pid, signal.SIGKILL)
            command.wait()
            tally.add("killed")
        judge.require_whole(workspace)
        assert refreshing(workspace, files[n % 2]).wait(LIMIT_S) == 0
        judge.require_done(workspace, n % 2)
    with open_instance(load_settings(home=tmp_path), workspace.database) as instance:

        def none_is_left() -> bool:
            fail_dead_runs(instance, workspace.database)
            return not any(not run.is_finished for run in instance.get_runs())

        began = time.monotonic()
        until(none_is_left)
    tally.add("seconds until no killed run was left", round(time.monotonic() - began))
    print(tally.told())  # noqa: T201
