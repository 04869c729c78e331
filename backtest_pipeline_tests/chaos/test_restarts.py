"""A server that dies or is restarted in the middle of a refresh costs time and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import open_database
from backtest_pipeline.storage.postgres.embedded import embedded_server
from backtest_pipeline.storage.postgres.migrations import migrate
from backtest_pipeline.storage.postgres.programs import find_programs
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.chaos.harness import MARKETS, Judge, Tally, random_of
from backtest_pipeline_tests.pipeline.processes import event, refreshing
from backtest_pipeline_tests.waiting import LIMIT_S


@dataclass
class Server:
    """A server that may be killed and restarted, with a store on it."""

    home: Path
    workspace: Workspace

    def kill(self) -> None:
        """As the kernel does when memory runs out; nobody starts it again for us."""
        pid_file = self.home / "postgres" / "data" / "postmaster.pid"
        os.kill(int(pid_file.read_text().split("\n", 1)[0]), signal.SIGKILL)

    def restart(self, mode: str) -> None:
        self._control("restart", "-m", mode)

    def stop_for(self, seconds: float) -> None:
        self._control("stop", "-m", "fast")
        time.sleep(seconds)
        socket = self.workspace.database.where.rpartition("/")[0]
        self._control("start", "-o", f"-p 5432 -k '{socket}'")

    def _control(self, what: str, *options: str) -> None:
        folder = self.home / "postgres"
        status, output = find_programs(self.home).run(
            *("pg_ctl", what, "--wait", "-D", folder / "data", "-l", folder / "server.log"),
            *options,
            cwd=folder,
        )
        assert status == 0, output


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    home = Path(tempfile.mkdtemp(prefix="btp-"))
    home.chmod(0o755)
    database = open_database(load_settings(run_store_mode="embedded", home=home))
    migrate(database)
    yield Server(home, Workspace(database, ArtifactStore(tmp_path / "artifacts")))
    database.close()
    embedded_server(home).release()
    shutil.rmtree(home)


# The embedded server is started again by those who use it; a server of others by others.
DEATHS: dict[str, tuple[bool, Callable[[Server], None]]] = {
    "killed": (True, Server.kill),
    "restarted at once": (False, lambda server: server.restart("immediate")),
    "restarted in order": (False, lambda server: server.restart("fast")),
    "gone for a while": (False, lambda server: server.stop_for(3)),
}


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.chaos)])
def test_a_refresh_outlasts_the_death_of_its_server(
    server: Server, judge: Judge, times: int
) -> None:
    rng, tally = random_of("restarts"), Tally()
    lasts = 0.0
    for n in range(times + 1):
        market = n % 2
        is_embedded, die = list(DEATHS.values())[(n - 1) % len(DEATHS)]
        opened = event()
        home = server.home if is_embedded else None
        process = refreshing(server.workspace, source=MARKETS[market], home=home, opened=opened)
        assert opened.wait(LIMIT_S)
        began = time.monotonic()
        if n == 0:  # undisturbed, to see how long it takes
            process.join(LIMIT_S)
            lasts = time.monotonic() - began
        else:
            process.join(rng.random() * lasts)
            tally.add(f"{list(DEATHS)[(n - 1) % len(DEATHS)]}, under way: {process.is_alive()}")
            die(server)
            process.join(LIMIT_S)
        assert process.exitcode == 0
        if n and is_embedded:
            server.workspace.database.retry.revive()  # had it ended before the server died
        judge.require_done(server.workspace, market)
    print(tally.told())  # noqa: T201
