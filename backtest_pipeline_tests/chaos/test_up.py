"""Whatever process of `up` is killed or hangs: all is well again, and runs end as undisturbed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
import pytest

from backtest_pipeline.defs.processes.up_programs import HEARTBEAT_S
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.storage.postgres.database import open_database
from backtest_pipeline.storage.postgres.embedded import embedded_server
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.chaos.harness import Tally, random_of
from backtest_pipeline_tests.running_up import (
    CODE_SERVER,
    DAEMON,
    ENDED,
    WEBSERVER,
    RunningUp,
    arguments,
    running_up,
)
from backtest_pipeline_tests.sql import distinct
from backtest_pipeline_tests.waiting import LIMIT_S, gate_for, until

TF = "1W"
KILLED: dict[str, Callable[[RunningUp], list[psutil.Process]]] = {
    "run worker": lambda up: up.child(CODE_SERVER).children(),
    "code server": lambda up: [up.child(CODE_SERVER)],
    "code server and run worker": lambda up: [
        up.child(CODE_SERVER),
        *up.child(CODE_SERVER).children(),
    ],
    "webserver": lambda up: [up.child(WEBSERVER)],
    "daemon": lambda up: [up.child(DAEMON)],
    "all three": lambda up: [up.child(kind) for kind in (CODE_SERVER, WEBSERVER, DAEMON)],
}


SYMBOLS = SampleMarket().symbols()[: len(KILLED)]


def current_runs(home: Path) -> set[str]:
    """Ids of the current backtests of a store; they follow from all that decides a result."""
    database = open_database(load_settings(run_store_mode="embedded", home=home))
    found = distinct(database, "SELECT run_id::text FROM backtest_runs WHERE is_current")
    database.close()
    embedded_server(home).release()  # or the server would outlive its folder
    return found


def first_seen(up: RunningUp, *asked: Callable[[], bool]) -> list[float]:
    """When each was so for the first time, looked at in turns; a webserver that is gone says no."""
    seen: dict[int, float] = {}

    def look() -> bool:
        for number, is_so in enumerate(asked):
            with suppress(httpx2.TransportError):
                if number not in seen and is_so():
                    seen[number] = time.time()
        return len(seen) == len(asked)

    until(look, up.log.read_text)
    return [seen[number] for number in range(len(asked))]


@pytest.fixture
def undisturbed(open_folder: Path) -> set[str]:
    """What one undisturbed refresh leaves."""
    home = open_folder / "undisturbed"
    command = (sys.executable, "-m", "backtest_pipeline.cli.main", "refresh")
    what = ("--timeframes", TF, "--assets", ",".join(SYMBOLS))
    without = {k: v for k, v in os.environ.items() if not k.startswith(("BACKTEST_", "DAGSTER"))}
    subprocess.run((*command, *what), env={**without, "BACKTEST_HOME": str(home)}, check=True)
    return current_runs(home)


@pytest.mark.chaos
def test_whatever_is_killed_all_is_well_again_and_runs_end(
    open_folder: Path, undisturbed: set[str]
) -> None:
    rng, tally = random_of("up"), Tally()
    folder = open_folder / "chaos"
    folder.mkdir()
    with running_up(folder) as up:
        store = open_database(load_settings(run_store_mode="embedded", home=up.home))
        for (what, chosen), symbol in zip(KILLED.items(), SYMBOLS, strict=True):
            with gate_for(store, symbol) as gate:
                run_id = up.launch_refresh(f"{symbol}|{TF}")
                if rng.random() < 0.7:
                    gate.hold_up()  # in the middle of its work; else it waits, or is about to start
                killed_at, killed = time.time(), chosen(up)
                # A daemon that lived on writes its next sign of life when that is due, not sooner.
                since = killed_at if up.child(DAEMON) in killed else killed_at - HEARTBEAT_S
                loaded_since = killed_at if up.child(CODE_SERVER) in killed else 0.0
                for process in killed:
                    process.kill()
            well_s, ended_s = (
                seen_at - killed_at
                for seen_at in first_seen(
                    up,
                    lambda since=since, loaded=loaded_since: up.is_well(since, loaded),
                    lambda run_id=run_id: up.status(run_id) in ENDED,
                )
            )
            print(  # noqa: T201
                f"{what}: all well after {well_s:.0f} s, its run {up.status(run_id)} after "
                f"{ended_s:.0f} s"
            )
            tally.add(f"{what}: {up.status(run_id)}")
            up.wait_for(up.launch_refresh(f"{symbol}|{TF}"), "SUCCESS")
        store.close()
        assert current_runs(up.home) == undisturbed
        tree = up.tree()
        up.process.kill()
        _, alive = psutil.wait_procs(tree, timeout=LIMIT_S)
        assert [arguments(process) for process in alive] == []
    print(tally.told())  # noqa: T201
