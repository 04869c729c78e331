"""The services of `docker-compose.yml` as plain processes, by the same commands and settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
import psutil

from backtest_pipeline.defs.processes.health import (
    CodeAddress,
    code_server_problem,
    daemon_problem,
    webserver_problem,
)
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.ops.compose_file import GIVEN, mounts, resolved
from backtest_pipeline_tests.ports import free_ports
from backtest_pipeline_tests.waiting import LIMIT_S

CODE_LOCATION, WEBSERVER, DAEMON, SERVICE = "code-location", "webserver", "daemon", "service"
_INSIDE = {CODE_LOCATION: 4000, WEBSERVER: 3000, SERVICE: 8000}
# Dagster takes a code server at this address of loopback for one of another machine, as it has to
# in containers.
_OF_ANOTHER = "127.0.0.2"
_PROGRAM = (sys.executable, "-m", "backtest_pipeline.cli.main")


class Containers:
    """Processes in the place of containers; those that are left are ended at the end of a block."""

    def __init__(self, folder: Path, dsn: str, settings: Mapping[str, str]) -> None:
        """Nothing is started yet.

        Args:
            folder: where the volumes are folders.
            dsn: of the database that takes the place of PostgreSQL's container.
            settings: variables that a user has set.
        """
        given = {**GIVEN, **settings, "BACKTEST_POSTGRES_DSN": dsn}
        self._services: dict[str, dict[str, Any]] = resolved(given)["services"]
        self.folder = folder
        names = (*_INSIDE, "second service")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._processes: dict[str, psutil.Popen] = {}
        self._ends = ExitStack()

    def __enter__(self) -> Containers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(LIMIT_S)
            except psutil.TimeoutExpired:
                process.kill()

    def log(self, name: str) -> str:
        """What a service has printed."""
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def start(self, name: str, as_name: str = "") -> psutil.Popen:
        """Start a service, by its own command; a second one of its kind has a name of its own."""
        command = [*self._command(self._services[name]["command"])]
        if name in (CODE_LOCATION, WEBSERVER):
            command += ["--port", str(self.ports[name])]
        environment = self._environment(name)
        if name == SERVICE:
            environment["BACKTEST_SERVICE_PORT"] = str(self.ports[as_name or name])
        with (self.folder / f"{as_name or name}.log").open("w") as log:
            process = psutil.Popen(
                command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self._processes[as_name or name] = process
        return process

    def run(self, name: str) -> None:
        """Run a service that ends by itself; it must end well."""
        assert self.start(name).wait(LIMIT_S) == 0, self.log(name)

    def is_healthy(self, name: str, port: int | None = None) -> bool:
        """Whether the health check of a service passes."""
        kind, *check = self._services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        port = port or self.ports.get(name)
        command = [
            part.replace(f":{_INSIDE.get(name)}/", f":{port}/") for part in self._command(check)
        ]
        if "health" in command and name in _INSIDE:
            command += ["--at", f"127.0.0.1:{port}"]
        found = subprocess.run(
            command, env=self._environment(name), capture_output=True, text=True, timeout=LIMIT_S
        )
        self.said = found.stdout + found.stderr
        return found.returncode == 0

    def problem(self, name: str, database: Database) -> str | None:
        """What its health check would say, asked here: the command takes its time to load."""
        if name == CODE_LOCATION:
            return code_server_problem(CodeAddress("127.0.0.1", self.ports[name]))
        if name == WEBSERVER:
            return webserver_problem(f"http://127.0.0.1:{self.ports[name]}", self._token())
        return daemon_problem(database)

    def _token(self) -> str:
        _, has_token, rest = self.log(WEBSERVER).rpartition("?token=")
        return rest.split()[0] if has_token else ""

    def graphql(self, query: str, **variables: Any) -> Mapping[str, Any]:
        """What the webserver answers to whoever has the token."""
        response = httpx2.post(
            f"http://127.0.0.1:{self.ports[WEBSERVER]}/graphql",
            json={"query": query, "variables": variables},
            headers={"Authorization": f"Bearer {self._token()}"},
            timeout=LIMIT_S,
        )
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def _command(self, command: list[str]) -> list[str]:
        program, *arguments = command
        code = f"{_OF_ANOTHER}:{self.ports[CODE_LOCATION]}"
        rest = [one.replace(f"{CODE_LOCATION}:{_INSIDE[CODE_LOCATION]}", code) for one in arguments]
        start = {"backtest-pipeline": _PROGRAM, "python": (sys.executable,)}[program]
        return [*start, *rest]

    def _environment(self, name: str) -> dict[str, str]:
        """That of the service, with folders where it has volumes."""
        service = self._services[name]
        folders = {target: self.folder / target.strip("/") for _, target, _ in mounts(service)}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        ours = ("BACKTEST_", "DAGSTER", "PG", "AWS_", "AZURE_", "GOOGLE_")
        outside = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        inside = {
            variable: str(folders.get(value, value))
            for variable, value in service["environment"].items()
        }
        return {**outside, **inside}
