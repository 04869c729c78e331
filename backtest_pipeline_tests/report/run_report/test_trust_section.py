"""The cards on how far to trust a run: what is lost, and the units of what is drawn."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from backtest_pipeline.report.run_report.contents import Card
from backtest_pipeline.report.run_report.trust_section import trust_section
from backtest_pipeline_tests.report.reported import reported


def _against_random(returns: np.ndarray) -> Card:
    run = reported()
    assert run.doubts is not None
    drawn = replace(run, doubts=replace(run.doubts, random_entries=returns))
    (card,) = (c for c in trust_section(drawn).cards if c.title == "Against random entries")
    return card


def test_text_and_bar_count_the_same_runs_as_lost() -> None:
    card = _against_random(np.array([-1.0, -1.0, -0.9995, -0.999999, 0.5, 1.0, 2.0, 9.0, 0.1, 0.0]))
    assert "20.0% lost everything" in card.about
    (picture,) = card.pictures
    assert "<title>2 lost everything</title>" in picture
    assert "<title>2 from \u221299.9% to" in picture


def test_the_axis_of_growth_says_its_unit() -> None:
    card = _against_random(np.linspace(-0.5, 30, 50))
    assert card.about.endswith("Axis: end over start, 1\u00d7 is no gain.")
    (picture,) = card.pictures
    assert re.search(r">\d+\u00d7</text>", picture)
    assert not re.search(r"<title>[^<]*\u00d7", picture)


def test_an_interval_has_one_unit() -> None:
    run = reported(intervals={"total_return": (3.124, 122.0), "sharpe": (0.1, 1.4)})
    (card,) = (c for c in trust_section(run).cards if c.title == "Resampled")
    assert "90 % interval 312.4% to 12,200%" in card.pictures[0]
