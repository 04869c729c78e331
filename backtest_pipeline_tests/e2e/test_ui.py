"""A person opens the UI, selects an asset and a timeframe, presses Materialize, sees the result."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from backtest_pipeline_tests.ports import free_port
from backtest_pipeline_tests.waiting import LIMIT_S, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CANARY = "SECRET-CANARY"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=2):  # noqa: S310 - our own server
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def ui(open_folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`backtest-pipeline up` on a store of its own; its address and process."""
    home = open_folder / "ui"
    port = free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("BACKTEST_", "DAGSTER"))},
        "BACKTEST_HOME": str(home),
        "AWS_SECRET_ACCESS_KEY": CANARY,
    }
    with (open_folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backtest_pipeline.cli.main", "up", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            until(
                lambda: process.poll() is not None or _answers(url),
                (open_folder / "up.log").read_text,
            )
            assert process.poll() is None, (open_folder / "up.log").read_text()[-3000:]
            yield url, psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(LIMIT_S)


@pytest.fixture
def page(ui: tuple[str, psutil.Process]) -> Iterator[Page]:
    """A browser's page whose relative addresses are the UI's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(base_url=ui[0], viewport={"width": 1400, "height": 1200})
        page.set_default_timeout(LIMIT_S * 1000)
        yield page
        browser.close()


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
    charts = page.get_by_role("img", name="S-ALPHA 1W")
    charts.first.wait_for()  # the small one, in the page itself
    page.get_by_text("[Show Markdown]").click()
    charts.nth(1).wait_for()
    for chart in charts.all():
        assert chart.evaluate("image => image.naturalWidth") > 100


def _arguments(process: psutil.Process) -> str:
    """What the list of processes shows of one; nothing where it has ended since."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_no_process_shows_a_secret_or_the_store_in_its_arguments(
    ui: tuple[str, psutil.Process], open_folder: Path
) -> None:
    _, process = ui
    tree = [process, *process.children(recursive=True)]
    arguments = [shown for one in tree if (shown := _arguments(one))]
    assert any("--instance-ref" in told for told in arguments)  # where Dagster tells its settings
    for told in (*arguments, (open_folder / "up.log").read_text()):
        assert CANARY not in told
        assert "psycopg2://" not in told


def test_an_interrupt_ends_the_whole_process_tree(ui: tuple[str, psutil.Process]) -> None:
    _, process = ui
    tree = [process, *process.children(recursive=True)]
    assert len(tree) > 3  # the command, dagster dev, webserver, daemon, code server
    process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(tree, timeout=LIMIT_S)
    assert [_arguments(p) for p in alive] == []
