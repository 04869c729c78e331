from __future__ import annotations

import base64
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.report.svg import Line, line_chart, sparkline, svg_markdown

SVG = "{http://www.w3.org/2000/svg}"


def line(values: list[float], label: str = "equity") -> Line:
    index = pd.date_range("2024-01-01", periods=len(values), freq="D", tz="UTC")
    return Line(label, pd.Series(values, index, dtype=float))


def drawn(svg: str) -> tuple[ElementTree.Element, list[list[tuple[float, float]]]]:
    """The parsed chart and the points of each of its lines, all of them inside the picture."""
    root = ElementTree.fromstring(svg)  # noqa: S314
    lines = [
        [(float(x), float(y)) for x, y in (p.split(",") for p in found.get("points", "").split())]
        for found in root.iter(f"{SVG}polyline")
    ]
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for x, y in (point for points in lines for point in points):
        assert 0 <= x <= width
        assert 0 <= y <= height
    return root, lines


def words(root: ElementTree.Element) -> list[str]:
    return [found.text or "" for found in root.iter(f"{SVG}text")]


def test_lines_go_up_where_values_do() -> None:
    _, (points,) = drawn(line_chart([line([1, 2, 4])], "title"))
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)  # logarithmic: each doubling is as high


def test_titles_and_labels_are_escaped() -> None:
    title = "<script>&\"'</script>"
    root, _ = drawn(line_chart([line([1, 2], "a<b & c")], title))
    assert title in words(root)
    assert "a<b & c" in words(root)
    assert root.find(".//script") is None


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0, 5.0], [0.0, 0.0], [-1.0]])
def test_one_point_and_flat_lines_are_drawn(values: list[float]) -> None:
    _, (points,) = drawn(line_chart([line(values)], "flat"))
    assert len(points) == len(values)
    assert len({y for _, y in points}) == 1


def test_negative_values_are_drawn_on_a_linear_scale() -> None:
    _, (points,) = drawn(line_chart([line([-2, 0, 2])], "profit"))
    (_, low), (_, middle), (_, high) = points
    assert low - middle == pytest.approx(middle - high, abs=0.2)


def test_holes_are_left_out_and_infinite_values_too() -> None:
    _, (points,) = drawn(line_chart([line([1, np.nan, np.inf, 3])], "holes"))
    assert len(points) == 2


def test_lines_of_different_length_share_the_time_axis() -> None:
    long, short = line([1, 2, 3, 4]), line([1, 2])
    _, (first, second) = drawn(line_chart([long, short], "two"))
    assert [x for x, _ in second] == [x for x, _ in first[:2]]


def test_many_points_are_thinned_and_the_ends_stay() -> None:
    _, (points,) = drawn(line_chart([line(list(range(1, 10_001)))], "many"))
    assert len(points) <= 300
    assert points[0][0] == pytest.approx(58)
    assert points[-1][0] == pytest.approx(606)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.3), (0.001, 0.002), (9_000, 31_000)])
def test_the_ticks_of_an_axis_differ(low: float, high: float) -> None:
    root, _ = drawn(line_chart([line([low, high])], "ticks"))
    ticks = [t.text for t in root.iter(f"{SVG}text") if t.get("text-anchor") == "end"]
    assert len(set(ticks)) == 4


def test_markdown_carries_the_picture_itself() -> None:
    svg = line_chart([line([1, 2])], "title")
    markdown = svg_markdown(svg, "best ]( run")
    assert base64.b64decode(markdown.rpartition("base64,")[2].rstrip(")")).decode() == svg
    assert markdown.count("](") == 1


def test_a_sparkline_is_short_enough_to_be_drawn_in_the_page() -> None:
    rng = np.random.default_rng(1)
    for scale in (0.01, 0.1, 1.0):
        walks = [line(list(np.exp(rng.normal(0, scale, 3000).cumsum()))) for _ in range(2)]
        text = svg_markdown(sparkline(walks), "BTCUSDT 1D: ema_50_200 (synthetic bars)")
        assert len(text) < 1000
        assert len(ElementTree.fromstring(sparkline(walks))) == 2  # noqa: S314
