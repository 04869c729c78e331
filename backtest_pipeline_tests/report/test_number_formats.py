"""How figures are written: a true minus, no minus at zero, returns in one unit."""

from __future__ import annotations

import math

import pytest

from backtest_pipeline.report.number_formats import Kind, day, kind_of, minute, short, written
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRICS


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.1234, "percent", "12.3%"),
        (-0.6286, "percent", "\u221262.9%"),
        (9.994, "percent", "999.4%"),
        (10.0, "percent", "1,000%"),
        (102.77, "percent", "10,277%"),
        (2.57e133, "percent", "2.57e+135%"),
        (-3.2e15, "count", "\u22123.20e+15"),
        (-0.0004, "percent", "0.0%"),
        (-0.0, "ratio", "0.00"),
        (0.8319, "ratio", "0.83"),
        (1234567.8, "count", "1,234,568"),
        (1.0, "number", "1"),
        (2.34, "number", "2.3"),
        (0.00001234, "price", "1.23e-05"),
        (63610.55, "price", "63,610.55"),
        (291.1, "bps", "291 bps"),
        (2.5, "bps", "2.5 bps"),
        (math.nan, "percent", "\u2013"),
        (math.inf, "ratio", "\u2013"),
        (None, "count", "\u2013"),
    ],
)
def test_a_figure_is_written(value: float | None, kind: Kind, text: str) -> None:
    assert written(value, kind) == text


def test_both_ends_of_an_interval_have_one_unit() -> None:
    ends = [written(value, "percent") for value in (-0.5, 3.124, 9.99, 10, 122.0)]
    assert ends == ["\u221250.0%", "312.4%", "999.0%", "1,000%", "12,200%"]


def test_gains_have_a_plus_where_signs_are_asked_for() -> None:
    assert written(0.5, "percent", signed=True) == "+50.0%"
    assert written(-0.5, "percent", signed=True) == "\u221250.0%"
    assert written(0.0, "percent", signed=True) == "0.0%"


def test_every_metric_has_a_kind() -> None:
    kinds = {metric.name: kind_of(metric.name) for metric in (*METRICS, *FAMILY_METRICS)}
    assert kinds["dsr"] == "percent"
    assert kinds["sharpe"] == "ratio"
    assert kinds["trade_count"] == "count"
    assert kinds["n_trials_effective"] == "number"


def test_ticks_and_dates_are_short() -> None:
    assert [short(v) for v in (5000, 1.5e6, 0.2, -20, 0)] == ["5k", "1.5M", "0.2", "\u221220", "0"]
    assert day(1_539_648_000_000_000) == "16 Oct 2018"
    assert minute(1_539_648_000_000_000) == "2018-10-16"
    assert minute(1_539_662_400_000_000) == "2018-10-16 04:00"
