"""A trader zooms into the curves of a run: served as the service serves them, under its policy."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from backtest_pipeline.report.zoom_page import ZOOM_POLICY, zoom_page
from backtest_pipeline.service.routes import page_files
from backtest_pipeline_tests.e2e.browsers import (
    CHROMIUM,
    accessibility_findings,
    chromium,
)
from backtest_pipeline_tests.report.reported import HOSTILE, reported
from backtest_pipeline_tests.waiting import LIMIT_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the page of a run with a hostile name is served, with the route of its files."""
    app = FastAPI()
    app.include_router(page_files.router)

    @app.get("/backtests/1/report/zoom")
    def zoom() -> HTMLResponse:
        html = zoom_page(reported(name=HOSTILE), "../../../page-files/")
        return HTMLResponse(html, headers={"Content-Security-Policy": ZOOM_POLICY})

    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        yield f"http://127.0.0.1:{opened.getsockname()[1]}/backtests/1/report/zoom"
        server.should_exit = True
        thread.join(LIMIT_S)


def test_the_curves_zoom_and_nothing_is_refused_or_asked_of_another_host(
    browser: Browser, address: str
) -> None:
    requests: list[str] = []
    complaints: list[str] = []
    for width, scheme in ((1440, "light"), (390, "dark")):
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        context.add_init_script(
            "document.addEventListener('securitypolicyviolation', e => console.log(e.blockedURI))"
        )
        page = context.new_page()
        page.set_default_timeout(LIMIT_S * 1000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(address)
        box = page.locator(".nsewdrag").first.bounding_box()
        assert box is not None
        whole = page.evaluate("document.getElementById('curves').layout.xaxis.range")
        page.mouse.move(box["x"] + 20, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 100, box["y"] + 105, steps=3)
        page.mouse.up()
        page.wait_for_function(
            "whole => `${document.getElementById('curves').layout.xaxis.range}` !== `${whole}`",
            arg=whole,
        )
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("document.querySelectorAll('style').length") == 0
        assert HOSTILE in page.inner_text("h1")
        if scheme == "dark":
            assert accessibility_findings(page) == []
        context.close()
    assert complaints == []
    origin = address.partition("/backtests")[0]
    assert {url for url in requests if not url.startswith((origin, "data:"))} == set()


def test_the_rules_are_those_of_the_installed_script(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<html><head></head><body></body></html>")
    script = files("plotly") / "package_data" / "plotly.min.js"
    page.evaluate(script.read_text())
    page.evaluate("document.body.append(Object.assign(document.createElement('div'), {id: 'x'}))")
    page.evaluate("Plotly.newPlot('x', [])")
    rules = page.evaluate(
        "[...document.getElementById('plotly.js-style-global').sheet.cssRules].map(r => r.cssText)"
    )
    page.close()
    ours = (files("backtest_pipeline.report") / "static" / "plotly_rules.css").read_text()
    assert re.sub(r"/\*.*?\*/\n", "", ours, flags=re.DOTALL).splitlines() == rules
