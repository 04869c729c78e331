"""Code server, webserver and daemon, each kept running by a process of its own.

So they can be in containers, or on machines, of their own. What `up` does for all three, each does
for itself: it looks whether its program responds, and starts it again where it does not.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn

from backtest_pipeline.defs.instance import dagster_home
from backtest_pipeline.defs.processes.daemon import daemon_command
from backtest_pipeline.defs.processes.health import (
    CodeAddress,
    code_server_problem,
    daemon_problem,
    webserver_problem,
)
from backtest_pipeline.defs.processes.supervision import SupervisedProgram, keep_running
from backtest_pipeline.defs.processes.up_programs import (
    CODE_SERVER,
    DAEMON,
    LOCATION,
    WEBSERVER,
    DagsterUi,
    code_server,
)
from backtest_pipeline.defs.processes.watchdog import ProcessGroup, process_group
from backtest_pipeline.defs.processes.webserver import Webserver
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.session_lock import (
    CODE_SERVER_LOCK,
    DAEMON_LOCK,
    SessionLock,
)
from backtest_pipeline.storage.settings import Settings

_ASK_AGAIN_S = 5.0


def run_code_server(settings: Settings, database: Database, address: CodeAddress) -> NoReturn:
    """Serve the code location at an address until an interrupt; runs are its children.

    A run goes on while the code server is started again, and ends with this process.

    Raises:
        AlreadyRunning: where a restore is under way on this store.
        ProcessLost: where the code server ends again and again.
        KeyboardInterrupt: once all have ended.
    """
    advice = "a restore is under way: wait for its end, then start the code server"
    with closing(SessionLock(database, CODE_SERVER_LOCK, advice=advice, shared=True)) as lock:
        program = code_server(settings, ("--host", address.host, "--port", str(address.port)))

        def examine() -> Mapping[str, str]:
            lock.keep()
            return _wrong(CODE_SERVER, code_server_problem(address.on_this_machine))

        with _group(settings, [lock.fileno()]) as (group, _):
            keep_running(group, [program], examine)


def run_webserver(settings: Settings, ui: DagsterUi, code: CodeAddress) -> NoReturn:
    """Serve the Dagster UI of a code server at an address until an interrupt.

    Raises:
        ProcessLost: where the webserver ends again and again.
        KeyboardInterrupt: once it has ended.
    """
    with _group(settings) as (group, folder):
        token = folder / "token"  # not in the arguments, which everyone can list
        token.write_text(ui.token)
        served = ui.listening.fileno()
        webserver = Webserver(served, _workspace(folder, code), token, ui.names, ui.by_any_address)
        program = SupervisedProgram(
            WEBSERVER, webserver.command(), inherit=[served], needs=_Answers(code)
        )

        def examine() -> Mapping[str, str]:
            wrong = webserver_problem(ui.url, ui.token)
            # It cannot load what is not there.
            is_its_own = wrong is not None and code_server_problem(code) is None
            return _wrong(WEBSERVER, wrong if is_its_own else None)

        keep_running(group, [program], examine)


def run_daemon(settings: Settings, database: Database, code: CodeAddress) -> NoReturn:
    """Run the daemon of a store for a code server at an address until an interrupt.

    Raises:
        AlreadyRunning: where another process is the daemon of this store.
        ProcessLost: where the daemon ends again and again.
        KeyboardInterrupt: once it has ended.
    """
    with closing(SessionLock(database, DAEMON_LOCK)) as lock:

        def examine() -> Mapping[str, str]:
            lock.keep()
            return _wrong(DAEMON, daemon_problem(database))

        with _group(settings, [lock.fileno()]) as (group, folder):
            command = daemon_command(_workspace(folder, code))
            keep_running(group, [SupervisedProgram(DAEMON, command, needs=_Answers(code))], examine)


@contextmanager
def _group(settings: Settings, inherit: Sequence[int] = ()) -> Iterator[tuple[ProcessGroup, Path]]:
    """A group of processes on the instance of a store, and a folder of theirs."""
    environment = {**os.environ, "DAGSTER_HOME": str(dagster_home(settings))}
    folder = Path(tempfile.mkdtemp(prefix="backtest-"))
    with process_group(environment, folder, inherit=inherit) as group:
        yield group, folder


def _workspace(folder: Path, code: CodeAddress) -> Path:
    """A `workspace.yaml` that names a code server."""
    path = folder / "workspace.yaml"
    server = {"host": code.host, "port": code.port, "location_name": LOCATION}
    path.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
    return path


def _wrong(name: str, what: str | None) -> Mapping[str, str]:
    return {} if what is None else {name: what}


class _Answers:
    """Whether a code server answers, asked once in a while."""

    def __init__(self, code: CodeAddress) -> None:
        self._code, self._asked_at = code, float("-inf")

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._asked_at < _ASK_AGAIN_S:
            return False
        self._asked_at = now
        return code_server_problem(self._code) is None
