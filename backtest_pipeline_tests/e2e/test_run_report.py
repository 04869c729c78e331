"""A trader opens the report of a run in a browser without a network, wide and narrow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from backtest_pipeline.report.run_report.contents import ReportedRun
from backtest_pipeline.report.run_report.run_document import MOST_BYTES, run_document
from backtest_pipeline_tests.e2e.browsers import (
    CHROMIUM,
    accessibility_findings,
    chromium,
)
from backtest_pipeline_tests.report.reported import HOSTILE, fold, reported, walk
from backtest_pipeline_tests.waiting import LIMIT_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def liquidated() -> ReportedRun:
    series = walk(900)
    equity = np.where(np.arange(900) < 400, series.equity, 0.0)
    drawdown = np.where(equity == 0, -1.0, series.drawdown)
    lost = replace(series, equity=equity, drawdown=drawdown)
    return reported(series=lost, liquidated=True, warnings=["The account was liquidated."])


def without_benchmark() -> ReportedRun:
    series = walk(900)
    return reported(series=replace(series, benchmark=np.full(900, np.nan)), closes=None, trades=[])


RUNS: dict[str, Callable[[], ReportedRun]] = {
    "no trade": lambda: reported(n_trades=0, blocked=[], n_blocked=0),
    "one trade": lambda: reported(n_trades=1),
    "39 trades": reported,
    "10,000 trades": lambda: reported(12_000, 10_000, step_us=3_600_000_000),
    "20 bars": lambda: reported(20, 3, assessed=False),
    "synthetic": lambda: reported(warnings=["The bars are synthetic."]),
    "quarantined": lambda: reported(warnings=[f"In quarantine: {'x' * 300}"]),
    "liquidated": liquidated,
    "no benchmark": without_benchmark,
    "nothing assessed": lambda: reported(assessed=False),
    "nothing readable": lambda: reported(series=None, closes=None, missing=["Gone."]),
    "hostile": lambda: reported(name=HOSTILE, symbol=HOSTILE * 5, warnings=[HOSTILE]),
    "walk-forward": lambda: reported(folds=[fold(number) for number in range(6)], assess=""),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


Opened = Callable[..., "Page"]


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Opens a report; at the end nothing was asked of a network, and nothing was complained of."""
    requests: list[str] = []
    complaints: list[str] = []
    contexts = []

    def open_report(run: ReportedRun, width: int = 1440, scheme: Any = "light") -> Page:
        path = tmp_path / "run.html"
        path.write_text(run_document(run, most_bytes=MOST_BYTES, others="run.trades.csv").html)
        context = browser.new_context(
            offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        contexts.append(context)
        context.add_init_script(
            "document.addEventListener('securitypolicyviolation', e => console.log(e.blockedURI))"
        )
        page = context.new_page()
        page.set_default_timeout(LIMIT_S * 1000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(path.as_uri())
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert complaints == []


@pytest.mark.parametrize("name", RUNS)
def test_every_report_fits_its_page(opened: Opened, name: str) -> None:
    page = opened(RUNS[name]())
    for width, scheme in ((1440, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("h1").is_visible()
        assert page.locator(".tile").count() == 6


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_on_a_phone(opened: Opened, scheme: str) -> None:
    page = opened(reported(), 390, scheme)
    heights = page.eval_on_selector_all(
        "svg text, td, th, small, p",
        "all => all.map(e => parseFloat(getComputedStyle(e).fontSize))",
    )
    assert min(heights) >= 12
    scaled = page.eval_on_selector_all(
        ".c > svg > text", "all => all.map(e => e.getBoundingClientRect().height)"
    )
    assert min(h for h in scaled if h) > 10


def test_every_figure_carries_its_value(opened: Opened) -> None:
    run = reported()
    page = opened(run)
    shown = page.eval_on_selector_all(
        "[data-metric]", "all => all.map(e => [e.dataset.metric, e.dataset.value])"
    )
    for name, value in run.metrics.items():
        assert [name, "" if value is None else repr(value)] in shown, name


def test_pictures_and_tables_have_names(opened: Opened) -> None:
    page = opened(reported())
    unnamed = page.eval_on_selector_all(
        "svg[role=img], [role=region], nav, section.verdict",
        "all => all.filter(e => !e.getAttribute('aria-label')).length",
    )
    assert unnamed == 0
    names = page.eval_on_selector_all(
        "[role=region]", "all => all.map(e => e.getAttribute('aria-label'))"
    )
    assert len(names) == len(set(names))
    loose = page.eval_on_selector_all(
        "svg", "all => all.filter(e => !e.closest('[role=img], [aria-hidden=true]')).length"
    )
    assert loose == 0
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    order = page.eval_on_selector_all("h1, h2, h3", "all => all.map(e => e.tagName)")
    assert order[0] == "H1"
    assert order.count("H1") == 1


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("39 trades", 1440, "light"),
        ("walk-forward", 390, "dark"),
        *(pytest.param(name, 390, "light", marks=pytest.mark.slow) for name in RUNS),
        *(pytest.param(name, 1440, "dark", marks=pytest.mark.slow) for name in RUNS),
    ],
)
def test_axe_finds_nothing(opened: Opened, name: str, width: int, scheme: str) -> None:
    assert accessibility_findings(opened(RUNS[name](), width, scheme)) == []


def test_the_scale_is_switched_by_the_keyboard_alone(opened: Opened) -> None:
    page = opened(reported())
    log, lin = page.locator(".vlog"), page.locator(".vlin")
    assert log.is_visible()
    page.locator("#log").focus()
    page.keyboard.press("ArrowRight")
    assert lin.is_visible()
    assert not log.is_visible()


def test_names_stay_text(opened: Opened) -> None:
    page = opened(reported(name=HOSTILE))
    assert HOSTILE in page.inner_text("h1")
    assert page.locator("script").count() == 0


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
def test_the_palette_has_the_contrast_of_aa(side: int) -> None:
    html = run_document(reported()).html
    palette = {
        name: colours.split(", ")[side]
        for name, colours in re.findall(r"--(\w+): light-dark\(([^)]*)\)", html)
    }
    for text in ("ink", "mute", "run", "gain", "loss", "warn"):
        assert _contrast(palette[text], palette["card"]) >= 4.5, text
    for text in ("ink", "mute"):
        assert _contrast(palette[text], palette["bg"]) >= 4.5, text
    assert _contrast(palette["bench"], palette["card"]) >= 3  # a line
    heat = re.findall(r"\.[pn]\d \{ background: light-dark\(([^)]*)\)", html)
    assert len(heat) == 8
    for colours in heat:
        assert _contrast(palette["ink"], colours.split(", ")[side]) >= 4.5, colours


@pytest.mark.slow
def test_half_a_million_bars_are_drawn(opened: Opened) -> None:
    page = opened(reported(500_000, 5_000, step_us=60_000_000))
    assert page.evaluate("document.documentElement.scrollWidth") == 1440
    assert "5,000" in page.inner_text("main")
