"""Curves that keep their extremes, in pictures that are readable at any width."""

from __future__ import annotations

import re

import numpy as np

from backtest_pipeline.report.run_report.drawing import area, chart, line, stretched
from backtest_pipeline.report.run_report.scales import TimeScale, ValueScale

N = 100_000


def _points(path: str) -> np.ndarray:
    drawn = re.search(r'd="M([^"]*)"', path)
    assert drawn is not None
    return np.array(re.findall(r"-?\d+", drawn.group(1)), float).reshape(-1, 2)


def test_a_thinned_curve_keeps_its_highest_and_its_lowest_value() -> None:
    values = np.cumsum(np.random.default_rng(1).normal(size=N))
    ts = np.arange(N)
    y = ValueScale(float(values.min()), float(values.max()), 340)
    points = _points(line(ts, values, TimeScale(0, N - 1), y, "lr"))
    assert len(points) <= 1000
    assert points[:, 1].min() == 0
    assert points[:, 1].max() == 1000
    assert abs(points[points[:, 1].argmin(), 0] - 2000 * values.argmax() / N) <= 1


def test_a_thinned_drawdown_keeps_the_deepest() -> None:
    below = -np.abs(np.random.default_rng(2).normal(size=N)) / 100
    below[31_415] = -0.9
    y = ValueScale(-0.9, 0.0, 150)
    path = area(np.arange(N), below, np.zeros(N), TimeScale(0, N - 1), y, "ar")
    assert _points(path.replace("L", " ").replace("z", ""))[:, 1].max() == 1000


def test_gaps_of_a_curve_are_left_out() -> None:
    values = np.array([1.0, np.nan, 3.0])
    path = line(np.arange(3), values, TimeScale(0, 2), ValueScale(1, 3, 100), "lb")
    assert _points(path).tolist() == [[0, 1000], [2000, 0]]
    assert line(np.arange(1), np.array([np.nan]), TimeScale(0, 1), ValueScale(0, 1, 9), "") == ""


def test_text_stands_in_the_picture_that_is_not_stretched() -> None:
    y, x = ValueScale(0, 10, 100), TimeScale(0, 10**15)
    picture = chart([stretched(["<path/>"], 100)], 'say "this"', 100, y, x)
    outer, inner = picture.split('<svg width="100%" height="100" viewBox')
    assert "viewBox" not in outer
    assert outer.count("<text") > 4
    assert "<text" not in inner
    assert 'aria-label="say &quot;this&quot;"' in picture
