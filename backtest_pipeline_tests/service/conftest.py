"""The application in this process, and as a server of its own, on small bars."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from backtest_pipeline.service.app import build_app
from backtest_pipeline.service.settings import load_service_settings
from backtest_pipeline.storage.api_keys import create_key
from backtest_pipeline.storage.database import Database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.conftest import database_like

SYMBOLS = ("AAA", "BBB", "CCC")
QUESTION = {"symbol": "AAA", "strategy": "ema_crossover", "params": {"fast": 3, "slow": 8}}


@dataclass(frozen=True)
class Store:
    """A store of its own, with the bars that questions are about."""

    database: Database
    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "run_store_mode": "postgres",
            "postgres_dsn": self.database.conninfo,
            "home": str(self.folder),
            "artifacts_url": str(self.folder / "artifacts"),
            "bars": str(self.folder / "bars"),
            "timeframes": "1D",
        }

    @property
    def environment(self) -> dict[str, str]:
        return {f"BACKTEST_{name.upper()}": value for name, value in self.settings.items()}

    def key(self, role: str = "runner", rate: int = 1_000_000) -> str:
        with self.database.begin() as connection:
            return create_key(connection, f"the-{role}", role, rate)


@pytest.fixture(scope="session")
def store(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "bars").mkdir()
    for symbol in SYMBOLS:
        write(daily_bars(120, symbol), folder / "bars" / f"{symbol}.csv")
    for database in database_like(template, "backtest"):
        yield Store(database, folder)


def app_on(store: Store, **service: Any) -> FastAPI:
    return build_app(
        load_settings(**store.settings),
        load_service_settings(**{"optimizer_max_concurrency": 1, **service}),
    )


@pytest.fixture(scope="session")
def client(store: Store) -> Iterator[TestClient]:
    """The application with one worker; requests carry no key."""
    with TestClient(app_on(store), base_url="http://localhost") as client:
        yield client


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="session")
def runner(store: Store) -> dict[str, str]:
    """Headers of one who may do everything."""
    return bearing(store.key("runner"))


@pytest.fixture(scope="session")
def viewer(store: Store) -> dict[str, str]:
    """Headers of one who may read."""
    return bearing(store.key("viewer"))


@dataclass(frozen=True)
class Server:
    """A running `backtest-pipeline serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serving(
    store: Store, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server process of its own, which is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = store.folder / f"serve-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "backtest_pipeline.cli.main", "serve"),
                *("--port", str(port), *options),
            ],
            env={**os.environ, **store.environment, **(environment or {})},
            stdout=output,
            stderr=output,
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        while True:
            assert process.poll() is None, log.read_text()
            try:
                if httpx2.get(f"{server.url}/readyz", timeout=5).status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def server(store: Store) -> Iterator[Server]:
    many = {"BACKTEST_OPTIMIZER_MAX_COMBINATIONS": "1000000"}
    with serving(store, "--workers", "2", environment=many) as server:
        yield server
