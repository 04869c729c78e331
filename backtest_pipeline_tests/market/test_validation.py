from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe
from backtest_pipeline.market.validation import Reason, RowIssue, validate_bars
from backtest_pipeline_tests.market.bars import (
    FAR_FUTURE_US,
    GOOD,
    Row,
    close_stamp,
    panel,
    same_bits,
)

MONDAY, TUESDAY, WEDNESDAY, FRIDAY = (close_stamp(f"2024-01-0{day}") for day in (1, 2, 3, 5))


def counts(issues: tuple[RowIssue, ...]) -> dict[str, int]:
    return {issue.reason.value: issue.rows for issue in issues}


@pytest.mark.parametrize(
    ("bar", "reason"),
    [
        ((math.nan, 12, 9, 11, 100), Reason.NAN_PRICE),
        ((10, math.inf, 9, 11, 100), Reason.INFINITE_PRICE),
        ((10, 12, 0, 11, 100), Reason.NON_POSITIVE_PRICE),
        ((10, 9, 12, 11, 100), Reason.HIGH_BELOW_LOW),
        ((12.01, 12, 9, 11, 100), Reason.PRICE_OUTSIDE_RANGE),
        ((10, 12, 9, 8.99, 100), Reason.PRICE_OUTSIDE_RANGE),
        ((10, 12, 9, 11, -1), Reason.NEGATIVE_VOLUME),
    ],
)
def test_a_damaged_bar_is_skipped_and_counted_under_its_reason(bar: Row, reason: Reason) -> None:
    raw = panel("1D", {"A": [(MONDAY, GOOD), (TUESDAY, bar)]})
    clean, issues = validate_bars(raw, FAR_FUTURE_US)
    assert clean.ts.tolist() == [MONDAY]
    assert issues == (RowIssue("A", "1D", reason, 1, TUESDAY, TUESDAY),)


def test_a_bar_with_an_open_at_the_high_and_a_close_at_the_low_is_sound() -> None:
    raw = panel("1D", {"A": [(MONDAY, (12, 12, 9, 9, 1))]})
    assert validate_bars(raw, FAR_FUTURE_US)[1] == ()


@pytest.mark.parametrize("volume", [math.nan, math.inf])
def test_an_unknown_volume_is_kept_as_nan_and_counted(volume: float) -> None:
    clean, issues = validate_bars(
        panel("1D", {"A": [(MONDAY, (10, 12, 9, 11, volume))]}), FAR_FUTURE_US
    )
    assert np.isnan(clean["volume"]).tolist() == [True]
    assert counts(issues) == {"missing_volume": 1}


def test_a_bar_without_trades_is_kept_and_counted() -> None:
    clean, issues = validate_bars(panel("1D", {"A": [(MONDAY, (9, 9, 9, 9, 0))]}), FAR_FUTURE_US)
    assert (len(clean), counts(issues)) == (1, {"zero_volume": 1})


def test_rows_out_of_order_are_sorted_and_counted() -> None:
    raw = panel("1D", {"A": [(WEDNESDAY, GOOD), (TUESDAY, GOOD), (MONDAY, GOOD)]})
    clean, issues = validate_bars(raw, FAR_FUTURE_US)
    assert clean.ts.tolist() == [MONDAY, TUESDAY, WEDNESDAY]
    assert issues == (RowIssue("A", "1D", Reason.UNSORTED, 2, MONDAY, TUESDAY),)


def test_of_equal_rows_one_is_kept_even_where_their_volume_is_unknown() -> None:
    bar = (10, 12, 9, 11, math.nan)
    clean, issues = validate_bars(panel("1D", {"A": [(MONDAY, bar)] * 3}), FAR_FUTURE_US)
    assert clean.ts.tolist() == [MONDAY]
    assert counts(issues) == {"duplicate_equal": 2, "missing_volume": 1}


def test_of_conflicting_rows_none_is_kept() -> None:
    other = (10, 12, 9, 11.5, 100)
    rows = [(MONDAY, GOOD), (TUESDAY, GOOD), (TUESDAY, GOOD), (TUESDAY, other)]
    clean, issues = validate_bars(panel("1D", {"A": rows}), FAR_FUTURE_US)
    assert clean.ts.tolist() == [MONDAY]
    assert issues == (RowIssue("A", "1D", Reason.DUPLICATE_CONFLICTING, 3, TUESDAY, TUESDAY),)


def test_a_damaged_twin_does_not_cost_the_sound_row() -> None:
    rows = [(MONDAY, (math.nan, 12, 9, 11, 100)), (MONDAY, GOOD)]
    clean, issues = validate_bars(panel("1D", {"A": rows}), FAR_FUTURE_US)
    assert clean["open"].tolist() == [10.0]
    assert counts(issues) == {"nan_price": 1}


def test_one_stamp_in_two_assets_is_no_duplicate() -> None:
    raw = panel("1D", {"A": [(MONDAY, GOOD)], "B": [(MONDAY, (1, 1, 1, 1, 1))]})
    clean, issues = validate_bars(raw, FAR_FUTURE_US)
    assert (len(clean), issues) == (2, ())


def test_a_stamp_off_the_grid_is_skipped() -> None:
    raw = panel("1D", {"A": [(MONDAY, GOOD), (TUESDAY + CLOSE_STAMP_US, GOOD)]})
    clean, issues = validate_bars(raw, FAR_FUTURE_US)
    assert clean.ts.tolist() == [MONDAY]
    assert counts(issues) == {"misaligned_stamp": 1}


def test_a_bar_is_unfinished_until_its_period_is_over() -> None:
    raw = panel("1D", {"A": [(MONDAY, GOOD)]})
    end = MONDAY + CLOSE_STAMP_US
    assert counts(validate_bars(raw, end - 1)[1]) == {"unfinished_bar": 1}
    assert validate_bars(raw, end)[1] == ()


def test_missing_bars_are_counted_with_the_first_and_the_last_of_them() -> None:
    raw = panel("1D", {"A": [(MONDAY, GOOD), (WEDNESDAY, GOOD), (FRIDAY, GOOD)], "B": []})
    clean, issues = validate_bars(raw, FAR_FUTURE_US)
    assert len(clean) == 3
    assert issues == (RowIssue("A", "1D", Reason.GAP, 2, TUESDAY, close_stamp("2024-01-04")),)


def test_a_row_with_several_defects_counts_once_under_the_first_reason() -> None:
    raw = panel("1D", {"A": [(MONDAY + 7, (math.nan, -1, 9, 11, -1))]})
    clean, issues = validate_bars(raw, FAR_FUTURE_US)
    assert (len(clean), counts(issues)) == (0, {"nan_price": 1})


def test_bars_of_calendar_length_are_refused_with_a_way_out() -> None:
    empty = panel("1D", {"A": []})
    months = Panel(timeframe("1M_CAL"), empty.assets, empty.offsets, empty.ts, empty.columns)
    with pytest.raises(InvalidInput, match=r"1M_CAL cannot be a base timeframe.*resample"):
        validate_bars(months, 0)


prices = st.sampled_from([10.0, 11.0, 12.0, 9.0, 0.0, -1.0, math.nan, math.inf])
volumes = st.sampled_from([100.0, 0.0, -1.0, math.nan])
stamps = st.builds(
    lambda day, off: close_stamp(day * DAY_US) + off,
    st.integers(0, 6),
    st.sampled_from([0, 0, 0, 0, 1]),
)
bars = st.one_of(st.just(GOOD), st.tuples(prices, prices, prices, prices, volumes))
raw_panels = st.dictionaries(
    st.sampled_from("ABC"), st.lists(st.tuples(stamps, bars), max_size=12), max_size=3
).map(lambda rows: panel("1D", rows))


@given(raw_panels)
def test_each_row_comes_out_or_is_counted_once_as_skipped(raw: Panel) -> None:
    clean, issues = validate_bars(raw, 6 * DAY_US)
    for asset, before, after in zip(raw.assets, raw.lengths, clean.lengths, strict=True):
        skipped = sum(i.rows for i in issues if i.asset == asset and i.reason.skips)
        assert before == after + skipped


@given(raw_panels)
def test_clean_bars_are_sorted_unique_and_sound(raw: Panel) -> None:
    clean, _ = validate_bars(raw, 6 * DAY_US)
    for asset in clean.assets:
        assert np.all(np.diff(clean.ts[clean.rows_of(asset)]) > 0)
    assert not {i.reason for i in validate_bars(clean, 6 * DAY_US)[1] if i.reason.skips}
    assert np.all(clean["low"] <= np.minimum(clean["open"], clean["close"]))
    assert np.all(clean["high"] >= np.maximum(clean["open"], clean["close"]))


@given(raw_panels)
def test_an_asset_is_judged_the_same_alone_and_in_a_batch(raw: Panel) -> None:
    clean, issues = validate_bars(raw, 6 * DAY_US)
    for asset in raw.assets:
        alone, alone_issues = validate_bars(raw.select([asset]), 6 * DAY_US)
        assert same_bits(alone, clean.select([asset]))
        assert alone_issues == tuple(i for i in issues if i.asset == asset)


def _levels(closes: list[float]) -> tuple[list[float], dict[Reason, int]]:
    """Closes that are kept of daily bars, and the rows by reason."""
    n = len(closes)
    start = 19_723 * DAY_US
    ts = start + DAY_US * np.arange(1, n + 1) - CLOSE_STAMP_US
    price = np.array(closes)
    columns = dict.fromkeys(("open", "high", "low", "close"), price) | {"volume": np.ones(n)}
    raw = Panel(timeframe("1D"), ("A",), np.array([0, n]), ts, columns)
    kept, issues = validate_bars(raw, int(ts[-1]) + DAY_US)
    return kept["close"].tolist(), {issue.reason: issue.rows for issue in issues}


def test_a_few_bars_on_another_level_are_damage_until_more_follow() -> None:
    kept, reasons = _levels([2.0, 2.1, 2.0, 342_232.0, 350_000.0])
    assert kept == [2.0, 2.1, 2.0]
    assert reasons == {Reason.PRICE_JUMP: 2}


def test_a_wild_bar_in_between_is_skipped_alone() -> None:
    kept, reasons = _levels([2.0, 2.1, 900.0, 2.0, 2.2])
    assert kept == [2.0, 2.1, 2.0, 2.2]
    assert reasons == {Reason.PRICE_JUMP: 1, Reason.GAP: 1}


def test_a_rise_below_five_times_is_a_market() -> None:
    kept, reasons = _levels([1.0, 4.9, 1.0])
    assert kept == [1.0, 4.9, 1.0]
    assert reasons == {}
