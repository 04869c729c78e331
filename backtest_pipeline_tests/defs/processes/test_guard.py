"""Who gets through the guard of the Dagster UI, and who does not."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocket, WebSocketDisconnect

from backtest_pipeline.defs.processes.guard import Guard, read_token
from backtest_pipeline.market.errors import ConfigurationError

TOKEN = "t0ken-of-the-test"  # noqa: S105
OWN, SOCKET = "http://127.0.0.1:3000", "ws://127.0.0.1:3000"
BEARER = {"authorization": f"Bearer {TOKEN}"}
JSON = {"content-type": "application/json"}


def everything_allowed(names: tuple[str, ...] = (), *, by_any_address: bool = False) -> Guard:
    """The guard before an app that answers whatever it is asked."""

    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.method} {request.url.path}")

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
    routes = [
        WebSocketRoute("/{path:path}", talk),
        Route("/{path:path}", answer, methods=methods),
    ]
    return Guard(Starlette(routes=routes), TOKEN, names, by_any_address=by_any_address)


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(everything_allowed(), base_url=OWN, follow_redirects=False) as client:
        yield client


def test_a_browser_that_has_shown_the_token_once_is_let_in(client: TestClient) -> None:
    refused = client.get("/assets/backtests")
    assert refused.status_code == 403
    assert "backtest-pipeline up" in refused.text
    assert client.get("/assets?token=wrong").status_code == 403

    shown = client.get(f"/assets?view=list&token={TOKEN}")
    assert (shown.status_code, shown.headers["location"]) == (303, "/assets?view=list")
    cookie = shown.headers["set-cookie"]
    assert cookie.startswith("backtest_ui_3000=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert client.get("/assets?view=list").text == "GET /assets"
    assert client.post("/graphql", headers=JSON | {"origin": OWN}).text == "POST /graphql"


def test_the_token_leads_to_no_other_site(client: TestClient) -> None:
    shown = client.get(f"{OWN}//elsewhere.example/x?token={TOKEN}")
    assert shown.headers["location"] == "/elsewhere.example/x"


def test_a_program_shows_the_token_in_a_header(client: TestClient) -> None:
    assert client.get("/server_info", headers=BEARER).status_code == 200
    assert client.get("/server_info", headers={"authorization": "Bearer x"}).status_code == 403


def _connect(
    client: TestClient, path: str = "/graphql", headers: dict[str, str] | None = None
) -> WebSocketTestSession:
    return client.websocket_connect(f"{SOCKET}{path}", headers=headers)


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        *((host, True) for host in ("127.0.0.1:3000", "localhost:3000", "LOCALHOST", "[::1]:3000")),
        *((host, False) for host in ("evil.example", "evil.example:3000", "192.168.1.9:3000")),
        *((host, False) for host in ("localhost:port", "[::1", "", "localhost.evil.example")),
    ],
)
def test_a_site_whose_name_was_made_to_mean_this_machine_is_refused(
    client: TestClient, host: str, is_ours: bool
) -> None:
    assert client.get("/", headers=BEARER | {"host": host}).status_code == (200 if is_ours else 421)


def test_names_and_addresses_have_to_be_allowed() -> None:
    guard = everything_allowed(("Desk.example",), by_any_address=True)
    with TestClient(guard, base_url=OWN) as client:
        for host in ("desk.example", "192.168.1.9:3000", "[fe80::1]:3000"):
            assert client.get("/", headers=BEARER | {"host": host}).status_code == 200
        assert client.get("/", headers=BEARER | {"host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:3001", "null", "["])
def test_a_page_of_another_site_is_refused_also_with_the_token(
    client: TestClient, origin: str
) -> None:
    foreign = BEARER | JSON | {"origin": origin}
    assert client.post("/graphql", headers=foreign).status_code == 403
    assert client.get(f"/?token={TOKEN}", headers={"origin": origin}).status_code == 403
    with pytest.raises(WebSocketDisconnect), _connect(client, headers=foreign):
        pass


@pytest.mark.parametrize(
    ("method", "path", "content_type", "status"),
    [
        ("GET", "/graphql?query={version}", None, 405),
        ("POST", "/graphql?query={version}", "text/plain", 415),
        ("POST", "/graphql", "text/plain; charset=application/json", 415),
        ("POST", "/graphql", "application/x-www-form-urlencoded", 415),
        ("POST", "/graphql", "multipart/form-data", 415),
        ("POST", "/graphql", "application/graphql", 415),
        ("POST", "/graphql", None, 415),
        ("POST", "/report_asset_materialization/backtests", "application/json", 405),
        ("POST", "/report_asset_check/backtests", "application/json", 405),
        ("POST", "/report_asset_observation/backtests", "application/json", 405),
        ("POST", "/graphql/", "application/json", 405),
        ("PUT", "/graphql", "application/json", 405),
        ("DELETE", "/anything", None, 405),
        ("OPTIONS", "/graphql", None, 405),
    ],
)
def test_what_the_ui_itself_never_asks_is_closed_also_with_the_token(
    client: TestClient, method: str, path: str, content_type: str | None, status: int
) -> None:
    headers = BEARER | ({"content-type": content_type} if content_type else {})
    assert client.request(method, path, headers=headers).status_code == status


def test_the_websocket_is_open_to_the_ui_alone(client: TestClient) -> None:
    with _connect(client, headers=BEARER | {"origin": OWN}) as socket:
        assert socket.receive_text() == "hello"
    for path, headers in (("/graphql", {}), ("/other", BEARER), ("/graphql?token=" + TOKEN, {})):
        with pytest.raises(WebSocketDisconnect), _connect(client, path, headers):
            pass
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("ws://evil.example/graphql", headers=BEARER),
    ):
        pass


def test_the_token_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ui-token"
    token = read_token(path)
    assert len(token) > 40
    assert read_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["ui-token"]
    path.write_text("\n")
    with pytest.raises(ConfigurationError, match="has no token"):
        read_token(path)
