"""The service's metrics on a port of this machine, and a real Prometheus that scrapes them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import httpx2
import pytest
import uvicorn
import yaml
from fastapi import FastAPI

from backtest_pipeline.market.errors import NotEnoughBars
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.monitoring.counters import count_stage, counted
from backtest_pipeline.pipeline.monitoring.store_size import measure_storage
from backtest_pipeline.pipeline.stage import Outcome, StageReport, Status
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.service.metrics_endpoint import Metrics, MetricsMiddleware
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.ops.queries import ALERTS
from backtest_pipeline_tests.ports import free_port
from backtest_pipeline_tests.service.pools import Waiting
from backtest_pipeline_tests.waiting import LIMIT_S, until


@pytest.fixture(scope="module")
def target(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of metrics of a store in which everything has been counted once."""
    for database in database_like(template, "backtest"):
        artifacts = ArtifactStore(tmp_path_factory.mktemp("ops") / "artifacts")
        workspace = Workspace(connect_database(database.conninfo), artifacts)
        with counted(workspace, "run", exchange="sample", timeframe="1D"):
            pass
        for kind in ("walkforward", "portfolio", "optimize"):
            with counted(workspace, kind) as tally:
                tally.combinations = tally.overfit = 1
        with pytest.raises(NotEnoughBars), counted(workspace, "run"):
            raise NotEnoughBars("of this test")
        outcome = Outcome(Partition("A", "1D"), Status.STORED)
        count_stage(workspace, StageReport("backtests", (outcome,)))
        measure_storage(workspace)
        with served(workspace) as address:
            yield address
        workspace.database.close()


@contextmanager
def served(workspace: Workspace) -> Iterator[str]:
    metrics = Metrics(lambda: workspace, Waiting)
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    app.include_router(metrics.router)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
    thread = Thread(target=server.run, name="metrics")
    thread.start()
    try:
        until(lambda: server.started)
        yield "{}:{}".format(*server.servers[0].sockets[0].getsockname())
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def prometheus(target: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prometheus, with our rules, that has scraped more than once."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {"job_name": "backtests", "static_configs": [{"targets": [target]}]},
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            until(lambda: _scrapes(address) >= 3, (folder / "log").read_text)
            yield f"http://{address}"
        finally:
            process.terminate()


def _scrapes(address: str) -> float:
    try:
        is_ready = httpx2.get(f"http://{address}/-/ready", timeout=LIMIT_S).status_code == 200
    except httpx2.TransportError:
        return 0  # it has not begun to listen
    counted_so_far = "sum(count_over_time(backtest_store_up[1h]))"
    found = asked(f"http://{address}", counted_so_far) if is_ready else []
    return float(found[0]["value"][1]) if found else 0


def asked(prometheus: str, query: str) -> list[dict]:
    """What Prometheus answers to an instant query; scalars are not asked for."""
    answer = httpx2.get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=LIMIT_S)
    told = answer.json()
    assert told["status"] == "success", f"{query}: {told}"
    return told["data"]["result"]
