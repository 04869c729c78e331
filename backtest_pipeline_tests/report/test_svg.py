"""Small pictures that stand in the page itself."""

from __future__ import annotations

import base64
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from backtest_pipeline.report.svg import Line, sparkline, svg_markdown


def line(values: list[float]) -> Line:
    index = pd.date_range("2024-01-01", periods=len(values), freq="D", tz="UTC")
    return Line("equity", pd.Series(values, index, dtype=float))


def test_markdown_carries_the_picture_itself() -> None:
    svg = sparkline([line([1, 2])])
    markdown = svg_markdown(svg, "best ]( run")
    assert base64.b64decode(markdown.rpartition("base64,")[2].rstrip(")")).decode() == svg
    assert markdown.count("](") == 1


def test_a_sparkline_is_short_enough_to_be_drawn_in_the_page() -> None:
    rng = np.random.default_rng(1)
    for scale in (0.01, 0.1, 1.0):
        walks = [line(list(np.exp(rng.normal(0, scale, 3000).cumsum()))) for _ in range(2)]
        text = svg_markdown(sparkline(walks), "BTCUSDT 1D: " + "a_long_name" * 20)
        assert len(text) < 1000
        assert len(ElementTree.fromstring(sparkline(walks))) == 2  # noqa: S314


def test_constant_lines_and_losses_are_drawn() -> None:
    for values in ([5.0] * 3, [-2.0, 0.0, 2.0]):
        assert "nan" not in sparkline([line(values)])
