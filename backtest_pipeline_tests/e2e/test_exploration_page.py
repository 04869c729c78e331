"""A person opens the page of a sweep in a browser that has no network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import backtest_pipeline as bp
from backtest_pipeline_tests.e2e.browsers import CHROMIUM, chromium
from backtest_pipeline_tests.waiting import LIMIT_S

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def exploration() -> bp.Exploration:
    bars = bp.load_bars(asset="S-ALPHA").iloc[:800]
    params = {"lookback": [10, 20, 40], "trail_mult": [1.5, 2, 3, 4], "atr_period": [7, 14]}
    return bp.explore(bars, "atr", params, asset="S-ALPHA")


@pytest.fixture(scope="module")
def page(exploration: bp.Exploration, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The opened page; at its end nothing was asked of a network, and nothing was complained of.

    It is drawn once, which takes most of the time: the test that changes it comes last.
    """
    path = exploration.write_html(tmp_path_factory.mktemp("sweep") / "sweep.html")
    requests: list[str] = []
    complaints: list[str] = []
    with chromium() as browser:
        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 1400})
        page = context.new_page()
        page.set_default_timeout(LIMIT_S * 1000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(path.as_uri())
        page.locator("#sweep .heatmaplayer image").first.wait_for()
        yield page
        page.wait_for_timeout(200)
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert complaints == []


def test_the_page_shows_map_curves_ranking_and_warning(
    page: Page, exploration: bp.Exploration
) -> None:
    assert "24 combinations were tried" in page.inner_text(".warning")
    best = ", ".join(f"{name} {value:g}" for name, value in exploration.best.items())
    assert best in page.inner_text(".tiles")
    assert page.locator("table tbody tr").count() == 10
    (box,) = [image.bounding_box() for image in page.locator(".heatmaplayer image").all()]
    assert box is not None
    assert min(box["width"], box["height"]) > 300
    assert page.locator("#sweep .scatterlayer .js-line").count() >= 3 * 3
    shown = page.inner_text("#sweep")
    for name in ("lookback", "trail_mult", "atr_period"):
        assert name in shown


def test_the_menu_changes_the_metric_and_the_slider_the_third_parameter(
    page: Page, exploration: bp.Exploration
) -> None:
    numbers = "() => document.getElementById('sweep').data.filter(t => t.visible)[0].z"
    table = exploration.table

    def shown() -> list[list[float]]:
        return page.evaluate(numbers)

    def expected(metric: str, period: int) -> list[list[float]]:
        part = table.xs(period, level="atr_period")[metric]
        return part.unstack("lookback").to_numpy().tolist()

    def comes_to(metric: str, period: int) -> None:
        """The page redraws on its own time; what it shows in the end counts."""
        wanted = expected(metric, period)
        for _ in range(10 * LIMIT_S):
            if shown() == [pytest.approx(row, rel=1e-4) for row in wanted]:
                return
            page.wait_for_timeout(100)
        pytest.fail(f"{metric} at {period}: the page shows {shown()}, not {wanted}")

    period = int(exploration.best["atr_period"])
    comes_to("sharpe", period)
    assert page.locator("#metric").input_value() == "sharpe"
    page.select_option("#metric", "max_drawdown")
    page.locator("#sweep").get_by_text("max_drawdown", exact=True).first.wait_for()
    comes_to("max_drawdown", period)
    rail = page.locator(".slider-rail-touch-rect").bounding_box()
    assert rail is not None
    other = 14 if period == 7 else 7
    x = rail["x"] + (rail["width"] - 4 if other == 14 else 4)
    page.mouse.click(x, rail["y"] + rail["height"] / 2)
    page.get_by_text(f"atr_period {other}", exact=True).wait_for()
    comes_to("max_drawdown", other)
