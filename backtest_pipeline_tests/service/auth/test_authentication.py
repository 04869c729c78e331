"""Every route asks who asks; what a viewer may not do, a viewer cannot do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from backtest_pipeline.report.zoom_page import page_files
from backtest_pipeline.service.auth.authentication import Authenticator
from backtest_pipeline_tests.service.conftest import Store, app_on, bearing
from backtest_pipeline_tests.service.issuer import AUDIENCE, Issuer, serving

OPEN = {"/healthz", "/readyz", "/openapi.json", "/page-files/{name}"}
OPEN_ON_LOOPBACK = {"/metrics"}
VIEWERS_MAY = {("POST", "/backtests/compare")}


def operations(client: TestClient) -> Iterator[tuple[str, str]]:
    """Method and path of all that the service answers to."""
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            yield method.upper(), path


def asked(client: TestClient, method: str, path: str, headers: dict[str, str]) -> Any:
    filled = path.replace("/page-files/{name}", f"/page-files/{next(iter(page_files()))}")
    filled = filled.replace("{name}", "equity.parquet")
    for name in ("{run_id}", "{job_id}"):
        filled = filled.replace(name, str(uuid.uuid4()))
    body = {} if method in ("POST", "PUT") else None
    return client.request(method, filled, headers=headers, json=body)


def test_nobody_without_a_key_gets_anything_but_signs_of_life(client: TestClient) -> None:
    seen = set()
    for method, path in operations(client):
        answer = asked(client, method, path, {})
        seen.add(path)
        if path in OPEN | OPEN_ON_LOOPBACK:
            assert answer.status_code == 200, path
        else:
            assert answer.status_code == 401, (method, path)
            assert answer.json()["code"] == "UNAUTHORIZED"
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert len(seen) > 20


def test_every_address_of_the_application_is_described(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    described = set(app.openapi()["paths"])
    undescribed = {getattr(r, "path", None) for r in app.routes} - described - {None}
    assert undescribed <= {"/openapi.json"}


def test_a_viewer_reads_and_does_nothing_else(client: TestClient, viewer: dict[str, str]) -> None:
    for method, path in operations(client):
        status = asked(client, method, path, viewer).status_code
        if method == "GET" or (method, path) in VIEWERS_MAY:
            assert status not in (401, 403), (method, path)
        else:
            assert status == 403, (method, path)


def test_a_runner_is_turned_away_nowhere(client: TestClient, runner: dict[str, str]) -> None:
    for method, path in operations(client):
        assert asked(client, method, path, runner).status_code not in (401, 403), (method, path)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer btp_0_0"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer ' OR 1=1 --"},
        {"X-API-Key": ""},
        {"X-API-Key": "a" * 5000},
        {"X-API-Key": "btp_'; DROP TABLE api_keys; --"},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
    ],
)
def test_what_is_no_key_opens_nothing(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.get("/backtests", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["code"] == "UNAUTHORIZED"


def test_a_key_is_taken_from_either_header_but_two_users_are_none(
    client: TestClient, store: Store
) -> None:
    one, other = store.key("viewer"), store.key("runner")
    assert client.get("/backtests", headers={"X-API-Key": one}).status_code == 200
    assert client.get("/backtests", headers=bearing(one)).status_code == 200
    both = {**bearing(one), "X-API-Key": other}
    assert client.get("/backtests", headers=both).status_code == 401


def test_metrics_are_open_to_this_machine_alone(client: TestClient, store: Store) -> None:
    assert client.get("/metrics").status_code == 200
    forwarded = client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.7"})
    assert forwarded.status_code == 401
    key = bearing(store.key("viewer"))
    app = client.app
    assert isinstance(app, FastAPI)
    local = app.state.service
    app.state.service = local.model_copy(update={"service_host": "0.0.0.0"})  # noqa: S104
    try:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=key).status_code == 200
    finally:
        app.state.service = local


def test_tokens_of_a_provider_carry_a_role(client: TestClient, store: Store) -> None:
    issuer, app = Issuer(), client.app
    assert isinstance(app, FastAPI)
    with serving(issuer):
        service = app.state.service.model_copy(
            update={"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
        )
        before = app.state.authenticator
        app.state.authenticator = Authenticator(service, store.database)
        try:
            viewing = bearing(issuer.token(roles=["viewer"]))
            assert client.get("/backtests", headers=viewing).status_code == 200
            unpin = f"/backtests/{uuid.uuid4()}/pin"
            assert client.delete(unpin, headers=viewing).status_code == 403
            running = bearing(issuer.token(roles=["viewer", "runner"]))
            assert client.delete(unpin, headers=running).status_code == 404
            admin = bearing(issuer.token(roles=["viewer", "admin"]))
            assert client.delete(unpin, headers=admin).status_code == 404
            nothing = bearing(issuer.token(roles=[]))
            assert client.get("/backtests", headers=nothing).status_code == 403
            nameless = bearing(issuer.token(sub="a\x00b"))
            assert client.get("/backtests", headers=nameless).status_code == 401
            wrong = bearing(issuer.token(aud="others"))
            assert client.get("/backtests", headers=wrong).status_code == 401
        finally:
            app.state.authenticator = before


def test_without_keys_only_this_machine_by_its_own_name_is_answered(store: Store) -> None:
    app = app_on(store, service_auth="off")
    client = TestClient(app, base_url="http://evil.example")  # not entered: nothing is opened
    refused = client.get("/healthz")
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    for name in ("localhost", "127.0.0.1:8000", "[::1]:8000"):
        assert client.get("/healthz", headers={"Host": name}).status_code == 200
