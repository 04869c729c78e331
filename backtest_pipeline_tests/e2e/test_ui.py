"""A person opens the UI, selects an asset and a timeframe, presses Materialize, sees the result."""

from __future__ import annotations

import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import pytest

from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.defs.processes.instance_file import DAGSTER_YAML
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.postgres.embedded import embedded_server
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.running_up import (
    CODE_SERVER,
    DAEMON,
    WEBSERVER,
    RunningUp,
    arguments,
    running_up,
)
from backtest_pipeline_tests.waiting import LIMIT_S, gate_for, until

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CANARY = "SECRET-CANARY"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def ui(open_folder: Path) -> Iterator[RunningUp]:
    """`backtest-pipeline up` on a store of its own, whose daemon looks after runs more often."""
    folder = open_folder / "ui"
    instance = folder / "instance"
    instance.mkdir(parents=True)
    often = re.sub(r"(poll_interval_seconds|_retry_delay): \d+", r"\1: 1", DAGSTER_YAML)
    (instance / "dagster.yaml").write_text(often)
    environment = {"AWS_SECRET_ACCESS_KEY": CANARY, "DAGSTER_HOME": str(instance)}
    with running_up(folder, environment) as up:
        yield up


@pytest.fixture(scope="module")
def context(ui: RunningUp) -> Iterator[BrowserContext]:
    """A browser that the token is shown to once, and which keeps the UI's scripts."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        context = browser.new_context(base_url=ui.url, viewport={"width": 1400, "height": 1200})
        context.set_default_timeout(LIMIT_S * 1000)
        yield context
        browser.close()


@pytest.fixture
def page(ui: RunningUp, context: BrowserContext) -> Iterator[Page]:
    """A browser's page whose relative addresses are the UI's."""
    page = context.new_page()
    page.goto(ui.first_page, wait_until="commit")
    yield page
    page.close()  # or it would go on asking the webserver


def test_materializing_one_partition_shows_its_backtests(page: Page) -> None:
    page.goto("/assets/backtests?view=lineage&lineageScope=upstream&lineageDepth=5")
    page.get_by_text("Upstream").wait_for()
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_text("materialize 4 assets").wait_for()
    all_of_them = page.get_by_text(re.compile(r"^Select all \(\d+\)$")).first
    for key in ("S-ALPHA", "1W"):
        page.get_by_text("Select a partition").first.click()
        all_of_them.wait_for()  # the list has opened: what is typed before is lost
        page.keyboard.type(key)
        page.get_by_text("Select all (1)").first.click()
        page.keyboard.press("Escape")
        all_of_them.wait_for(state="hidden")
    page.get_by_role("button", name="Launch 1 run").click()
    page.get_by_text("Launched run").wait_for()
    page.get_by_text("View", exact=True).click()

    # The page of a run follows it; the page of a partition shows what was there when it opened.
    ended = page.get_by_text(re.compile("^(Success|Failure|Canceled)$")).first
    ended.wait_for()
    assert ended.inner_text() == "Success"
    page.goto("/assets/backtests?view=partitions&partition=S-ALPHA%7C1W")
    page.get_by_text("runs_by_sharpe").wait_for()
    shown = page.inner_text("body")
    assert "ema_9_21" in shown
    assert "synthetic_assets" in shown
    chart = page.get_by_role("img", name="S-ALPHA 1W").first
    chart.wait_for()  # in the page itself, behind no link
    assert chart.evaluate("image => image.naturalWidth") > 100
    assert page.get_by_text("[Show Markdown]").count() == 0


@pytest.fixture
def other_site() -> Iterator[str]:
    """The address of another server on this machine; its page is empty."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_only_a_browser_that_was_shown_the_token_gets_in(
    ui: RunningUp, page: Page, other_site: str
) -> None:
    token = ui.first_page.rpartition("=")[2]
    assert token not in page.url
    assert page.context.browser is not None
    stranger = page.context.browser.new_page(base_url=ui.url)
    stranger.goto("/runs")
    assert "has not shown the token" in stranger.inner_text("body")

    # A page of another port of this machine: browsers send it the cookie, as ports are one site.
    opens = """url => new Promise(told => {
        const socket = new WebSocket(url, 'graphql-ws')
        socket.onopen = () => told(true)
        socket.onerror = () => told(false)
    })"""
    websocket = f"{ui.url.replace('http', 'ws')}/graphql"
    assert page.evaluate(opens, websocket) is True
    elsewhere = page.context.new_page()
    elsewhere.goto(other_site)
    assert elsewhere.evaluate(opens, websocket) is False
    adds = """mutation { addDynamicPartition(partitionKey: "X-EVIL", partitionsDefName: "asset",
        repositorySelector: {repositoryLocationName: "backtest_pipeline",
                             repositoryName: "__repository__"}) { __typename } }"""
    posts = """([url, query]) => fetch(`${url}/graphql?query=${encodeURIComponent(query)}`,
        {method: 'POST', mode: 'no-cors', credentials: 'include'}).then(() => null)"""
    elsewhere.evaluate(posts, [ui.url, adds])
    keys = """{ assetNodeOrError(assetKey: {path: ["backtests"]}) { ... on AssetNode {
        partitionKeys } } }"""
    assert "X-EVIL" not in str(ui.graphql(keys))
    assert ui.graphql(adds)["addDynamicPartition"]["__typename"] == "AddDynamicPartitionSuccess"


def test_no_process_shows_a_secret_or_the_store_in_its_arguments(
    ui: RunningUp,
) -> None:
    token = ui.first_page.rpartition("=")[2]
    shown = [told for one in ui.tree() if (told := arguments(one))]
    assert not any(token in told for told in shown)
    for told in (*shown, ui.log.read_text()):
        assert CANARY not in told
        assert "psycopg2://" not in told


@pytest.fixture
def store(ui: RunningUp) -> Iterator[Database]:
    """The database of that store."""
    database = open_database(load_settings(run_store_mode="embedded", home=ui.home))
    yield database
    database.close()
    embedded_server(ui.home).release()  # or the server would outlive its folder


def test_what_is_killed_is_started_again_and_its_runs_end(ui: RunningUp, store: Database) -> None:
    """The short version of `chaos/test_up.py`; runs that no launcher started take no place."""
    with open_instance(load_settings(home=ui.home), store) as instance:
        for _ in range(2):
            instance.add_run(dg.DagsterRun(job_name="refresh", status=dg.DagsterRunStatus.STARTED))
    with gate_for(store, "S-BETA") as gate:
        doomed = ui.launch_refresh("S-BETA|1W")
        gate.hold_up()
        for worker in ui.child(CODE_SERVER).children():
            worker.kill()
    with gate_for(store, "S-BETA") as gate:
        orphan = ui.launch_refresh("S-BETA|1W")
        gate.hold_up()
        killed_at = time.time()
        for kind in (CODE_SERVER, WEBSERVER, DAEMON):
            ui.child(kind).kill()
    until(lambda: ui.is_well(killed_at), ui.log.read_text)
    ui.wait_for(doomed, "FAILURE")
    ui.wait_for(orphan, "SUCCESS")
    ui.wait_for(ui.launch_refresh("S-GAMMA|1W"), "SUCCESS")


def test_an_interrupt_ends_the_whole_process_tree(ui: RunningUp) -> None:
    tree = ui.tree()
    assert len(tree) > 4  # the command, watchdog, code server, webserver, daemon
    ui.process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(tree, timeout=LIMIT_S)
    assert [arguments(process) for process in alive] == []
