"""The programs of `up`: code server, webserver and daemon, kept running on one store."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET6, socket
from typing import Any, NoReturn

import httpx2

from backtest_pipeline.defs.instance import dagster_home
from backtest_pipeline.defs.processes.daemon import daemon_command
from backtest_pipeline.defs.processes.health import HEARTBEAT_S, ask_webserver, silence
from backtest_pipeline.defs.processes.supervision import SupervisedProgram, keep_running
from backtest_pipeline.defs.processes.watchdog import process_group
from backtest_pipeline.defs.processes.webserver import Webserver
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.session_lock import DAEMON_LOCK, SessionLock
from backtest_pipeline.storage.settings import Settings
from backtest_pipeline.strategies.own.folder import stamps

LOCATION = "backtest_pipeline"
CODE_SERVER, WEBSERVER, DAEMON = "code server", "webserver", "daemon"
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104


@dataclass(frozen=True)
class DagsterUi:
    """The Dagster UI of a store.

    Attributes:
        listening: a socket that listens at its address.
        token: what browsers have to show.
        names: host names that it is reached by, besides loopback's.
        by_any_address: whether it is reached by any IP address.
    """

    listening: socket
    token: str
    names: tuple[str, ...]
    by_any_address: bool

    @property
    def url(self) -> str:
        """Its address on this machine."""
        host, port = self.listening.getsockname()[:2]
        if self.listening.family == AF_INET6:
            return f"http://[{'::1' if host in _ANYWHERE else host}]:{port}"
        return f"http://{'127.0.0.1' if host in _ANYWHERE else host}:{port}"

    @property
    def first_page(self) -> str:
        """The address that lets a browser in."""
        return f"{self.url}/?token={self.token}"


def run_programs(settings: Settings, database: Database, ui: DagsterUi) -> NoReturn:
    """Run code server, webserver and daemon until an interrupt, and end them all.

    Raises:
        AlreadyRunning: where another process runs them on this store.
        ProcessLost: where one of them ends again and again.
        KeyboardInterrupt: once all have ended.
    """
    with closing(SessionLock(database, DAEMON_LOCK)) as lock:
        environment = {**os.environ, "DAGSTER_HOME": str(dagster_home(settings))}
        folder = Path(tempfile.mkdtemp(prefix="backtest-up-"))  # short: a socket's path has limits
        with process_group(environment, folder, inherit=[lock.fileno()]) as group:
            keep_running(group, _programs(settings, folder, ui), _Health(ui, lock).examine)


def _programs(settings: Settings, folder: Path, ui: DagsterUi) -> list[SupervisedProgram]:
    code = folder / "code-server"  # a socket, which only its owner reaches
    workspace = folder / "workspace.yaml"
    server = {"socket": str(code), "location_name": LOCATION}
    workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
    token = folder / "token"  # not in the arguments, which everyone can list
    token.write_text(ui.token)
    served = ui.listening.fileno()
    webserver = Webserver(served, workspace, token, ui.names, ui.by_any_address)
    return [
        code_server(settings, ("--socket", str(code))),
        SupervisedProgram(WEBSERVER, webserver.command(), inherit=[served], needs=code.exists),
        SupervisedProgram(DAEMON, daemon_command(workspace), needs=code.exists),
    ]


def code_server(settings: Settings, where: Sequence[str]) -> SupervisedProgram:
    """The code server, started again where a file of the user's own strategies has changed.

    Args:
        settings: name the folder of strategies.
        where: options of Dagster's that say where it listens.
    """
    return SupervisedProgram(
        CODE_SERVER,
        (
            *(sys.executable, "-m", "dagster", "api", "grpc", *where),
            *("-m", "backtest_pipeline.definitions", "--location-name", LOCATION),
            *("--log-level", "warning"),
        ),
        # Code versions name the user's own strategies as they were when it started.
        reads=lambda: stamps(settings.strategies_folder),
    )


@dataclass(frozen=True)
class _Health:
    """How the programs are, as far as the webserver knows."""

    ui: DagsterUi
    lock: SessionLock

    def examine(self) -> Mapping[str, str]:
        """What is wrong with each program, by name; what is not known is taken for well."""
        self.lock.keep()
        try:
            known = ask_webserver(self.ui.url, self.ui.token)
        except httpx2.HTTPError as error:
            return {WEBSERVER: silence(error)}
        return wrong_programs(known, time.time()) if known is not None else {}


def wrong_programs(found: Mapping[str, Any], now: float) -> Mapping[str, str]:
    """What is wrong with code server and daemon.

    Args:
        found: what the webserver knows.
        now: seconds since 1970.
    """
    wrong = {}
    for entry in (found.get("workspaceOrError") or {}).get("locationEntries", ()):
        location = entry["locationOrLoadError"] or {}
        if location.get("__typename") == "PythonError":
            wrong[CODE_SERVER] = location["message"]
    health = (found.get("instance") or {}).get("daemonHealth") or {}
    for daemon in health.get("allDaemonStatuses", ()):
        beat = daemon["lastHeartbeatTime"]
        if daemon["required"] and (beat is None or now - beat > HEARTBEAT_S):
            wrong[DAEMON] = f"{daemon['daemonType']} gave no sign of life for {HEARTBEAT_S:g} s"
    return wrong
