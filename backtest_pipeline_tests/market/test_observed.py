"""Which rows of a table that others keep are used."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.market.observed import usable_rows
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US, timeframe

N = 12
NOW = 100 * DAY_US


def panel() -> Panel:
    """Two assets of six sound bars, closing at stamps that are nobody's convention."""
    price = np.linspace(10.0, 21.0, N)
    columns = {
        "open": price,
        "high": price + 1,
        "low": price - 1,
        "close": price,
        "volume": np.full(N, 5.0),
        "gap_bars": np.array([np.nan, 0, 0, 0, 0, 0] * 2),
        "rsi_14": np.linspace(1.0, 99.0, N),
    }
    ts = np.tile(np.arange(1, 7) * DAY_US + 12_345, 2)
    return Panel(timeframe("1D"), ("A", "B"), np.array([0, 6, 12]), ts, columns)


def with_value(column: str, row: int, value: float) -> Panel:
    raw = panel()
    changed = raw[column].copy()
    changed[row] = value
    return raw.with_columns({column: changed})


def test_sound_rows_stay_as_they_are_whatever_their_stamps() -> None:
    rows, issues = usable_rows(panel(), NOW)
    assert issues == ()
    np.testing.assert_array_equal(rows.ts, panel().ts)
    for name, values in panel().columns.items():
        np.testing.assert_array_equal(rows[name], values)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("open", np.nan, "nan_price"),
        ("close", np.nan, "nan_price"),
        ("high", np.inf, "infinite_price"),
        ("low", 0.0, "non_positive_price"),
        ("close", -3.0, "non_positive_price"),
        ("high", 1.0, "high_below_low"),
        ("close", 99.0, "price_outside_range"),
        ("volume", -1.0, "negative_volume"),
    ],
)
def test_a_row_that_is_no_bar_is_left_out_and_counted(
    column: str, value: float, reason: str
) -> None:
    rows, (issue,) = usable_rows(with_value(column, 8, value), NOW)
    assert rows.lengths.tolist() == [6, 5]
    assert (issue.asset, issue.reason.value, issue.rows) == ("B", reason, 1)
    assert issue.first_ts == issue.last_ts == panel().ts[8]


def test_the_row_after_a_hole_says_how_many_were_left_out() -> None:
    raw = panel()
    close = raw["close"].copy()
    close[[6, 8, 9]] = np.nan
    rows, (issue,) = usable_rows(raw.with_columns({"close": close}), NOW)
    assert issue.rows == 3
    # The first row of B has none before it; the third and the fourth precede the fifth.
    np.testing.assert_array_equal(rows["gap_bars"][6:], [0, 2, 0])


def test_a_bar_that_has_not_ended_is_left_out() -> None:
    rows, issues = usable_rows(panel(), int(panel().ts[5]) - 1)
    assert rows.lengths.tolist() == [5, 5]
    assert {issue.reason.value for issue in issues} == {"unfinished_bar"}


@pytest.mark.parametrize(("volume", "reason"), [(np.nan, "missing_volume"), (0.0, "zero_volume")])
def test_odd_volumes_are_kept_and_counted(volume: float, reason: str) -> None:
    rows, (issue,) = usable_rows(with_value("volume", 3, volume), NOW)
    assert len(rows) == N
    assert (issue.reason.value, issue.rows) == (reason, 1)


def test_a_feature_that_is_not_finite_is_undefined() -> None:
    rows, issues = usable_rows(with_value("rsi_14", 3, np.inf), NOW)
    assert issues == ()
    assert np.isnan(rows["rsi_14"][3])


def test_a_lone_row_in_other_units_is_left_out_and_counted() -> None:
    raw = panel()
    prices = {name: raw[name].copy() for name in ("open", "high", "low", "close")}
    for column in prices.values():
        column[3] *= 100
    rows, issues = usable_rows(raw.with_columns(prices), NOW)
    assert [(i.asset, i.reason.value, i.rows) for i in issues] == [("A", "price_jump", 1)]
    assert len(rows) == N - 1
    assert rows["gap_bars"][3] == 1


def test_a_step_that_stays_is_the_tables_own() -> None:
    raw = panel()
    factor = np.where(np.arange(N) % 6 >= 3, 10.0, 1.0)
    stepped = {name: raw[name] * factor for name in ("open", "high", "low", "close")}
    rows, issues = usable_rows(raw.with_columns(stepped), NOW)
    assert (len(rows), issues) == (N, ())
