"""A server that may die, with a store on it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.postgres.programs import find_programs


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

    def environment(self, *, embedded: bool) -> dict[str, str]:
        """What leads a process of its own to this store, as its embedded server or as another's."""
        own = {"BACKTEST_ARTIFACTS_URL": str(self.workspace.artifacts.root)}
        if embedded:
            return own | {"BACKTEST_HOME": str(self.home)}
        return own | {
            "BACKTEST_HOME": str(self.home / "other"),
            "BACKTEST_RUN_STORE_MODE": "postgres",
            "BACKTEST_POSTGRES_DSN": self.workspace.database.conninfo,
        }

    def _control(self, what: str, *options: str) -> None:
        folder = self.home / "postgres"
        status, output = find_programs(self.home).run(
            *("pg_ctl", what, "--wait", "-D", folder / "data", "-l", folder / "server.log"),
            *options,
            cwd=folder,
        )
        assert status == 0, output
