"""Ticks by 1, 2 and 5, names of dates, and stretches of hovering."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from backtest_pipeline.report.run_report.scales import TimeScale, ValueScale


def us(day: str) -> int:
    return int(np.datetime64(day, "us").astype(np.int64))


def test_ticks_are_round() -> None:
    assert ValueScale(-0.3, 1.1, 200).ticks(4) == [0.0, 0.5, 1.0]
    assert ValueScale(1, 7, 200, log=True).ticks() == [1.0, 2.0, 5.0]
    assert ValueScale(9_000, 11_000, 200, log=True).ticks(4) == [
        *(9000.0, 9500.0, 10000.0, 10500.0, 11000.0),
    ]


@pytest.mark.parametrize(
    ("first", "last", "names"),
    [
        ("2018-01-01T23:59:59", "2024-12-31", ["2018", *map(str, range(2019, 2025))]),
        ("2024-01-20", "2024-06-10", ["Feb", "Mar", "Apr", "May", "Jun"]),
        ("2023-11-05", "2024-03-10", ["Dec", "Jan 2024", "Feb", "Mar"]),
        ("2024-01-01T12", "2024-01-04", ["1 Jan", "2 Jan", "3 Jan", "4 Jan"]),
    ],
)
def test_dates_are_named_by_year_month_or_day(first: str, last: str, names: list[str]) -> None:
    scale = TimeScale(us(first), us(last))
    found = [name for _, name in scale.ticks()]
    assert found[-len(names) + 1 :] == names[1:]
    assert len(found) <= 9


@pytest.mark.parametrize("days", [1, 3, 20, 90, 200, 800, 3000, 20_000])
def test_there_are_neither_none_nor_too_many_dates(days: int) -> None:
    scale = TimeScale(us("2001-03-04T05"), us("2001-03-04T05") + days * 86_400_000_000)
    assert 1 <= len(scale.ticks()) <= 9


def test_periods_cover_the_whole_span() -> None:
    scale = TimeScale(us("2020-01-15"), us("2020-12-15"))
    periods = scale.periods()
    assert periods[0][2] == "Jan 2020"
    assert periods[-1][1] > scale.last
    assert all(one[1] == after[0] for one, after in pairwise(periods))


def test_one_value_has_a_scale() -> None:
    for value in (0.0, 5.0, -3.0):
        scale = ValueScale.over(np.full(3, value), 100)
        assert 0 < float(scale.y(value)) < 100
        assert scale.ticks()
    assert ValueScale.over(np.array([np.nan]), 100).ticks()
    assert ValueScale.over(np.full(2, 7.0), 100, log=True).ticks()
