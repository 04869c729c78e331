"""A part of Dagster counts as well only where it does what it is there for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from backtest_pipeline.defs.processes.health import (
    CodeAddress,
    code_server_problem,
    daemon_problem,
    location_problem,
    webserver_problem,
)
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.ports import free_port
from backtest_pipeline_tests.sql import execute_sql

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def grpc_server(service: str, status: int) -> Iterator[CodeAddress]:
    """A server that reports the health of a service, as Dagster's code server does."""
    servicer = health.HealthServicer()
    servicer.set(service, status)
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield CodeAddress("127.0.0.1", port)
    finally:
        server.stop(None).wait()


def test_a_code_server_is_well_where_it_says_that_it_serves() -> None:
    with grpc_server("DagsterApi", SERVING) as address:
        assert code_server_problem(address) is None
    assert code_server_problem(address) == f"it does not respond at {address} (UNAVAILABLE)"
    with grpc_server("DagsterApi", NOT_SERVING) as address:
        assert code_server_problem(address) == f"it says that it does not serve at {address}"
    with grpc_server("something else", SERVING) as address:
        assert code_server_problem(address) == f"it does not respond at {address} (NOT_FOUND)"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("code-location:4000", "code-location", 4000), ("[::1]:1", "::1", 1), ("::1", "", 0)],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    if not host:
        with pytest.raises(InvalidInput, match="HOST:PORT"):
            CodeAddress.parse(text)
        return
    assert CodeAddress.parse(text) == (host, port)
    assert str(CodeAddress.parse(text)) == text


@pytest.mark.parametrize("text", ["", "4000", "host", "host:", ":4000", "host:0", "host:65536"])
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInput, match="HOST:PORT"):
        CodeAddress.parse(text)


def test_a_server_that_listens_everywhere_is_reached_here() -> None:
    assert CodeAddress("0.0.0.0", 1).on_this_machine == ("127.0.0.1", 1)  # noqa: S104
    assert CodeAddress("::", 1).on_this_machine == ("::1", 1)
    assert CodeAddress("10.0.0.1", 1).on_this_machine == ("10.0.0.1", 1)


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ({"__typename": "RepositoryLocation"}, None),
        (
            {"__typename": "PythonError", "message": "no"},
            "the code location could not be loaded: no",
        ),
        (None, "the code location is being loaded"),
    ],
)
def test_a_webserver_is_well_once_it_has_loaded_the_code_location(
    location: dict[str, Any] | None, problem: str | None
) -> None:
    known = {"workspaceOrError": {"locationEntries": [{"locationOrLoadError": location}]}}
    assert location_problem(known) == problem
    for empty in ({}, {"workspaceOrError": None}, {"workspaceOrError": {"locationEntries": []}}):
        assert location_problem(empty) == "it knows no code location"


def test_a_webserver_that_is_not_there_does_not_respond() -> None:
    problem = webserver_problem(f"http://127.0.0.1:{free_port()}", "token")
    assert problem == "it does not respond (ConnectError)"


def test_a_daemon_is_well_while_each_part_of_the_one_started_last_gives_signs_of_life(
    dagster_database: Database,
) -> None:
    def beat(kind: str, daemon: str, seconds_ago: float) -> None:
        execute_sql(
            dagster_database,
            f"""
            INSERT INTO dagster.daemon_heartbeats (daemon_type, daemon_id, timestamp)
            VALUES ('{kind}', '{daemon}',
                (now() AT TIME ZONE 'UTC') - interval '{seconds_ago} seconds')
            ON CONFLICT (daemon_type) DO UPDATE
                SET daemon_id = excluded.daemon_id, timestamp = excluded.timestamp""",
        )

    assert daemon_problem(dagster_database) == "no daemon has run on this store yet"
    beat("SENSOR", "first", 1)
    beat("SCHEDULER", "first", 119)
    assert daemon_problem(dagster_database) is None
    beat("SCHEDULER", "first", 125)
    assert str(daemon_problem(dagster_database)).startswith("SCHEDULER gave no sign of life for 12")
    beat("SENSOR", "second", 0)  # what an earlier daemon had, and this one has not, is not missed
    assert daemon_problem(dagster_database) is None


def test_no_daemon_has_run_on_a_store_without_dagsters_tables(database: Database) -> None:
    assert daemon_problem(database) == "no daemon has run on this store yet"
