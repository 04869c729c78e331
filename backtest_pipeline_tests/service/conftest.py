"""The application in this process, and as a server of its own, on small bars."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from backtest_pipeline.service.app import build_app
from backtest_pipeline.service.settings import load_service_settings
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.storage.tables.api_keys import create_key
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.waiting import until

SYMBOLS = ("AAA", "BBB", "CCC")
OTHER = "DDD"
"""The symbol whose prices are not those of the others."""
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

    def key(self, role: str = "runner", rate: int = 1_000_000, name: str = "") -> str:
        with self.database.begin() as connection:
            return create_key(connection, name or f"the-{role}", role, rate)


@pytest.fixture(scope="session")
def store(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "bars").mkdir()
    for symbol in SYMBOLS:
        write(daily_bars(120, symbol), folder / "bars" / f"{symbol}.csv")
    later = daily_bars(140, OTHER).iloc[20:].assign(ts=daily_bars(120)["ts"].to_numpy())
    write(later, folder / "bars" / f"{OTHER}.csv")
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

    @property
    def family(self) -> list[psutil.Process]:
        """All processes that it has started, and those that they have."""
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def serving(store: Store, *options: str) -> Iterator[Server]:
    """A server process of its own, which is ready."""
    log = store.folder / f"serve-{uuid.uuid4().hex}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "backtest_pipeline.cli.main", "serve", "--port", "0", *options],
            env={**os.environ, **store.environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield Server(process, _address(process, log), log)
    finally:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where a server listens, which it tells when it is ready."""

    def told() -> list[str]:
        assert process.poll() is None, log.read_text()
        return re.findall(r"running on (http://\S+)", log.read_text())

    until(told, log.read_text)
    return told()[0]


@pytest.fixture(scope="session")
def server(store: Store) -> Iterator[Server]:
    with serving(store, "--workers", "2") as server:
        yield server
