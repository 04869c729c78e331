"""The services of `docker-compose.yml`, run as plain processes, are well and compute a backfill."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx2
import psutil
import pytest

from backtest_pipeline.defs.automation.switches import switch
from backtest_pipeline.defs.automation.table import AUTOMATIONS
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.ops.containers import (
    CODE_LOCATION,
    DAEMON,
    SERVICE,
    WEBSERVER,
    Containers,
)
from backtest_pipeline_tests.running_up import arguments
from backtest_pipeline_tests.sql import rows
from backtest_pipeline_tests.waiting import until

ASSETS = ("bars", "cmc_features", "signals", "backtests")
PARTITIONS = ["S-ALPHA|1D", "S-BETA|1D"]
_LAUNCH = """mutation ($wanted: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $wanted) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_BACKFILL = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status runs(limit: 9) { id status } } } }"""


@pytest.fixture
def containers(dagster_database: Database, open_folder: Path) -> Iterator[Containers]:
    """None of them started; the database is migrated, and its schedules are off."""
    folder = open_folder / "containers"
    folder.mkdir()
    settings = {"BACKTEST_TIMEFRAMES": "1D", "BACKTEST_OPTIMIZER_MAX_CONCURRENCY": "1"}
    with Containers(folder, dagster_database.conninfo, settings) as containers:
        with open_instance(load_settings(home=folder / "data"), dagster_database) as instance:
            for row in AUTOMATIONS:
                if row.name != "dead_runs":
                    switch(instance, row, on=False)
        yield containers


def launch_backfill(containers: Containers) -> str:
    """The id of a backfill of the partitions, as the UI launches it."""
    wanted = {
        "assetSelection": [{"path": [asset]} for asset in ASSETS],
        "partitionNames": PARTITIONS,
    }
    answer = containers.graphql(_LAUNCH, wanted=wanted)["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    return str(answer["backfillId"])


def dagster_server(process: psutil.Process) -> psutil.Process:
    """Dagster's own code server, below the process that keeps it running."""
    (found,) = [child for child in process.children() if "api grpc" in arguments(child)]
    return found


@pytest.mark.chaos
def test_the_services_are_well_and_compute_a_backfill(
    containers: Containers, dagster_database: Database
) -> None:
    containers.run("migrate")
    assert "is writable, and belongs to this database" in containers.log("migrate")
    for name in (CODE_LOCATION, WEBSERVER, DAEMON, SERVICE):
        assert not containers.is_healthy(name), name
    # In no order: containers are started again as they fall.
    for name in (DAEMON, WEBSERVER, SERVICE):
        containers.start(name)
    containers.start(SERVICE, "second service")
    code = containers.start(CODE_LOCATION)

    def until_well(name: str) -> None:
        problem = partial(containers.problem, name, dagster_database)
        until(lambda: problem() is None, lambda: f"{problem()}; {containers.log(name)}")
        assert containers.is_healthy(name), containers.said

    for name in (CODE_LOCATION, WEBSERVER, DAEMON):
        until_well(name)
    for port in (containers.ports[SERVICE], containers.ports["second service"]):
        until(lambda port=port: containers.is_healthy(SERVICE, port), lambda: containers.said)

    refused = httpx2.post(
        f"http://127.0.0.1:{containers.ports[WEBSERVER]}/graphql", json={"query": "{ version }"}
    )
    assert refused.status_code == 403

    backfill = launch_backfill(containers)

    def found() -> dict:
        return dict(containers.graphql(_BACKFILL, id=backfill)["partitionBackfillOrError"])

    until(lambda: any(run["status"] == "STARTED" for run in found()["runs"]), lambda: str(found()))
    until(lambda: rows(dagster_database, "SELECT FROM dagster_run_leases"))
    # Run and backfill go on while the code server is started again.
    dagster_server(code).kill()
    until(lambda: found()["status"] not in ("REQUESTED", "COMPLETING"), lambda: str(found()))
    assert found()["status"] == "COMPLETED_SUCCESS", found()
    assert [run["status"] for run in found()["runs"]] == ["SUCCESS"]
    until_well(CODE_LOCATION)

    query = "SELECT count(*) AS n FROM backtest_runs WHERE status = 'completed'"
    (stored,) = rows(dagster_database, query)
    assert stored["n"] > 0
    assert list((containers.folder / "artifacts").rglob("*.parquet"))
    assert not list((containers.folder / "data").rglob("*.parquet"))
    until(lambda: not rows(dagster_database, "SELECT FROM dagster_run_leases"))

    code.terminate()
    assert code.wait(60) == 0
    until(lambda: containers.problem(WEBSERVER, dagster_database))
    for name in (CODE_LOCATION, WEBSERVER):
        assert not containers.is_healthy(name), name
