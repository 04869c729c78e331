"""A person opens the UI, selects an asset and a timeframe, presses Materialize, sees the result."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
START_SECONDS = 120
RUN_SECONDS = 180

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    port = _free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("BACKTEST_", "DAGSTER"))},
        "BACKTEST_HOME": str(home),
    }
    with (open_folder / "up.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backtest_pipeline.cli.main", "up", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
        )
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail((open_folder / "up.log").read_text()[-3000:])
            time.sleep(0.5)
        yield url, psutil.Process(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_materializing_one_partition_shows_its_backtests(ui: tuple[str, psutil.Process]) -> None:
    from playwright.sync_api import sync_playwright

    url, _ = ui
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1600, "height": 1200})
        page.set_default_timeout(60_000)
        page.goto(f"{url}/asset-groups?asset-selection=%2Bkey%3A%22backtests%22")
        page.get_by_role("button", name="Materialize all").click()
        for key in ("S-ALPHA", "1W"):
            page.get_by_text("Select a partition").first.click()
            page.keyboard.type(key)
            page.get_by_text("Select all (1)").first.click()
            page.keyboard.press("Escape")
        page.get_by_role("button", name="Launch").last.click()

        page.get_by_role("button", name="Launch").last.wait_for(state="hidden")
        page.goto(f"{url}/assets/backtests?view=partitions&partition=S-ALPHA%7C1W")
        page.get_by_text("runs_by_sharpe").wait_for(timeout=RUN_SECONDS * 1000)
        shown = page.inner_text("body")
        assert "ema_9_21" in shown
        assert "synthetic_assets" in shown
        chart = page.locator('img[src^="data:image/svg+xml;base64,"]').first
        chart.wait_for()
        assert chart.evaluate("image => image.naturalWidth") > 100
        browser.close()


def test_an_interrupt_ends_the_whole_process_tree(ui: tuple[str, psutil.Process]) -> None:
    _, process = ui
    tree = [process, *process.children(recursive=True)]
    assert len(tree) > 3  # the command, dagster dev, webserver, daemon, code server
    process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(tree, timeout=60)
    assert [p.cmdline() for p in alive] == []
