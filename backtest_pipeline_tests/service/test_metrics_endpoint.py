"""What Prometheus is told, whether the store answers or not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from backtest_pipeline.market.errors import StoreUnavailable
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.monitoring.counters import METRICS, count_stage, counted
from backtest_pipeline.pipeline.monitoring.store_size import measure_storage
from backtest_pipeline.pipeline.stage import Outcome, StageReport, Status
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.service.auth.authentication import Authenticator, MetricsReader
from backtest_pipeline.service.metrics_endpoint import Metrics, MetricsMiddleware
from backtest_pipeline.service.middleware import RequestMiddleware
from backtest_pipeline.service.problem_handlers import install_problem_handlers
from backtest_pipeline.service.settings import load_service_settings
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline_tests.service.pools import Waiting
from backtest_pipeline_tests.sql import execute_sql

CANARY = "SECRET-CANARY"


def served(workspace: Callable[[], Workspace]) -> TestClient:
    metrics = Metrics(workspace, Waiting)
    app = FastAPI()
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    app.include_router(metrics.router)

    @app.get("/backtests/{run_id}")
    def run(run_id: str) -> str:
        if run_id == "broken":
            raise ZeroDivisionError
        return run_id

    @app.get("/events")
    def events() -> StreamingResponse:
        return StreamingResponse(iter(["data: 1\n\n"]), media_type="text/event-stream")

    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def client(workspace: Workspace) -> Iterator[TestClient]:
    # Measured before, so that no scrape does it while the test ends.
    measure_storage(workspace)
    with served(lambda: workspace) as client:
        yield client


def report(stage: str, status: Status) -> StageReport:
    return StageReport(stage, (Outcome(Partition("A", "1D"), status),))


def scraped(client: TestClient) -> dict[str, float]:
    """Value by name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        ",".join([s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))]): s.value
        for family in text_string_to_metric_families(answer.text)
        for s in family.samples
    }


def test_what_other_processes_counted_is_told_with_histograms_adding_up(
    workspace: Workspace, client: TestClient
) -> None:
    for _ in range(3):
        with counted(workspace, "run", exchange="sample", timeframe="1D"):
            pass
    found = scraped(client)
    assert found["backtest_run_jobs_total,exchange=sample,timeframe=1D"] == 3
    prefix = "backtest_run_latency_seconds_bucket,le="
    buckets = [n for name, n in found.items() if name.startswith(prefix)]
    assert buckets == sorted(buckets)
    assert found[f"{prefix}+Inf"] == found["backtest_run_latency_seconds_count"] == 3
    assert found["backtest_run_latency_seconds_sum"] > 0
    assert found["backtest_last_success_timestamp_seconds,kind=run"] > 1.7e9
    assert found["backtest_store_up"] == 1


def test_each_metric_is_there_before_anything_was_counted(
    workspace: Workspace, client: TestClient
) -> None:
    told = scraped(client)
    for metric in METRICS:
        suffix = "_count" if metric.kind == "histogram" else ""
        of = [name for name in told if name.split(",")[0] == metric.name + suffix]
        assert of or metric.name == "backtest_run_jobs_total", metric.name
    assert told["backtest_run_errors_total,code=BAD_RANGE"] == 0
    assert told["optimizer_latency_seconds_count"] == 0
    assert told["backtest_jobs,status=pending"] == 0
    assert told["backtest_leases_expired"] == 0
    execute_sql(
        workspace, "INSERT INTO dagster_run_leases VALUES ('dead', 'refresh', 'x', '2020-01-01')"
    )
    assert scraped(client)["backtest_leases_expired"] == 1
    assert told["backtest_storage_bytes,kind=database"] > 1e6


def test_a_refresh_ended_well_where_backtests_were_stored_or_as_they_were(
    workspace: Workspace, client: TestClient
) -> None:
    last = "backtest_last_success_timestamp_seconds,kind=refresh"
    count_stage(
        workspace, StageReport("backtests", (Outcome(Partition("A", "1D"), Status.FAILED),))
    )
    count_stage(workspace, StageReport("signals", (Outcome(Partition("A", "1D"), Status.STORED),)))
    assert last not in scraped(client)
    good = StageReport("backtests", (Outcome(Partition("A", "1D"), Status.UNCHANGED),))
    count_stage(workspace, good)
    assert last in scraped(client)


def test_requests_are_counted_by_their_route_and_never_by_what_is_in_their_path(
    client: TestClient,
) -> None:
    for path in ("/backtests/1", "/backtests/2", "/backtests/broken", "/no/such", "/events"):
        client.get(path)
    client.request("PROPFIND", "/backtests/1")
    told = scraped(client)
    requests = {name: n for name, n in told.items() if name.startswith("http_requests_total")}
    assert requests == {
        "http_requests_total,method=GET,route=/backtests/{run_id},status=200": 2,
        "http_requests_total,method=GET,route=/backtests/{run_id},status=500": 1,
        "http_requests_total,method=GET,route=unmatched,status=404": 1,
        "http_requests_total,method=GET,route=/events,status=200": 1,
        "http_requests_total,method=other,route=/backtests/{run_id},status=405": 1,
    }
    assert told["http_request_duration_seconds_count,method=GET,route=/events"] == 1
    assert told["http_requests_in_flight"] == 1  # this scrape
    assert told["backtest_pool_workers"] == 2
    assert told["backtest_pool_busy"] == 2
    assert told["backtest_pool_waiting"] == 1


def test_where_the_store_is_away_the_rest_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def away() -> Workspace:
        raise AssertionError(connect_database(f"host=127.0.0.1 port=1 password={CANARY} user=u"))

    with served(away) as client, caplog.at_level(logging.DEBUG):
        client.get("/no/such")
        told = scraped(client)
        assert CANARY not in client.get("/metrics").text
    assert told["backtest_store_up"] == 0
    assert told["http_requests_total,method=GET,route=unmatched,status=404"] == 1
    assert not [name for name in told if name.startswith(("backtest_run", "backtest_jobs"))]
    assert "127.0.0.1/u: " in caplog.text
    assert CANARY not in caplog.text


def test_a_store_that_lacks_the_table_is_told_as_away(
    workspace: Workspace, client: TestClient
) -> None:
    execute_sql(workspace, "DROP TABLE metric_counts")
    assert scraped(client)["backtest_store_up"] == 0


def test_a_scrape_has_the_room_measured_where_that_is_long_ago(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "artifacts" / "runs").mkdir(parents=True)
    (tmp_path / "artifacts" / "runs" / "x.parquet").write_bytes(b"12345")
    with served(lambda: workspace) as client:
        told: dict[str, float] = {}
        while told.get("backtest_storage_bytes,kind=runs", 0) == 0:
            told = scraped(client)
    assert told["backtest_storage_bytes,kind=runs"] == 5
    assert told["backtest_storage_measurements_total"] == 1


def test_an_application_that_ends_leaves_no_thread_with_a_connection(workspace: Workspace) -> None:
    # Threads of the server itself, which use no connection, end when they are told to and later.
    def using_the_store() -> set[threading.Thread]:
        return {t for t in threading.enumerate() if t.name.startswith(("scrape_", "measure_"))}

    before = using_the_store()
    with workspace.database.begin() as gate:
        # It lets a scrape read, and holds up who would write down that it measures.
        gate.execute(sa.text("LOCK TABLE metric_counts IN SHARE MODE"))
        with served(lambda: workspace) as client:
            assert scraped(client)["backtest_store_up"] == 1
            assert "measure_0" in {t.name for t in using_the_store() - before}
        assert not using_the_store() - before


def test_elsewhere_than_here_metrics_are_read_with_their_token_also_where_the_store_is_away(
    workspace: Workspace,
) -> None:
    def away() -> Workspace:
        raise StoreUnavailable("of this test")

    token = "0123456789abcdef-of-this-test"  # noqa: S105
    service = load_service_settings(service_host="0.0.0.0", service_metrics_token=token)  # noqa: S104
    app = FastAPI()
    app.state.service = service
    app.state.authenticator = Authenticator(service, workspace.database)
    install_problem_handlers(app)
    app.include_router(Metrics(away).router, dependencies=[MetricsReader])
    app.add_middleware(RequestMiddleware, most_bytes=1_024, body_s=60)
    with TestClient(app) as client:
        codes = [
            client.get("/metrics", headers={"Authorization": f"Bearer {given}"}).status_code
            for given in (token, token[:-1], f"{token}x", "btp_" + token)
        ]
        assert codes == [200, 401, 401, 401]
        assert client.get("/metrics").status_code == 401
        assert token not in repr(service)
