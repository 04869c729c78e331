"""The histogram of daily returns: colours around zero, and bars and curve of the same days."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from backtest_pipeline.report.run_report.contents import Card
from backtest_pipeline.report.run_report.time_section import time_section
from backtest_pipeline_tests.report.reported import reported, walk


def _histogram(equity: np.ndarray) -> Card:
    series = replace(walk(len(equity)), equity=equity)
    (card,) = (c for c in time_section(reported(series=series)).cards if c.title == "Daily returns")
    return card


def _bars(picture: str) -> list[tuple[str, int, float, float]]:
    """Colour, days, left edge in percent and height in pixels of each bar."""
    found = re.findall(
        r'<rect class="(f\w)" x="([\d.]+)%".*?height="([\d.]+)"><title>([\d,]+) days', picture
    )
    return [(css, int(n.replace(",", "")), float(x), float(h)) for css, x, h, n in found]


def _walk_with_flat_days(n_flat: int) -> np.ndarray:
    moves = np.random.default_rng(7).normal(0.001, 0.02, 600)
    return 10_000 * np.cumprod(1 + np.concatenate((moves[:1], np.zeros(n_flat), moves[1:])))


def test_only_bars_on_one_side_of_zero_are_painted_as_gain_or_loss() -> None:
    (picture,) = _histogram(_walk_with_flat_days(0)).pictures
    for css, _, left, _ in _bars(picture):
        middle = round((left / 100 * 41) - 0.08)
        assert css == ("fl" if middle < 20 else "fb" if middle == 20 else "fw")
    assert "around zero" in picture


def test_flat_days_change_neither_bars_nor_curve_and_are_counted() -> None:
    without, beside = _histogram(_walk_with_flat_days(0)), _histogram(_walk_with_flat_days(900))
    assert without.pictures == beside.pictures
    assert "left out" not in without.about
    assert "900 days without any change are left out of bars and curve." in beside.about


def test_bars_and_curve_hold_the_same_days() -> None:
    (picture,) = _histogram(_walk_with_flat_days(900)).pictures
    bars = _bars(picture)
    assert sum(n for _, n, _, _ in bars) == 599
    drawn = re.search(r'class="ln" d="M([\d ]+)"', picture)
    assert drawn is not None
    points = np.array(drawn.group(1).split(), float).reshape(-1, 2)
    pixels_a_day = max(height / n for _, n, _, height in bars if n > 20)
    assert ((1000 - points[:, 1]) / 1000 * 200 / pixels_a_day).sum() > 0.97 * 599
