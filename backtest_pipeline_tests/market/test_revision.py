"""What differs between two versions of a history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.revision import Revision, revision_of
from backtest_pipeline.market.timeframes import DAY_US, timeframe


def history(days: Sequence[int], closes: Sequence[float]) -> Panel:
    return Panel(
        timeframe("1D"),
        ("BTC",),
        np.array([0, len(days)]),
        np.array(days, np.int64) * DAY_US,
        {"close": np.array(closes, np.float64), "flat": np.ones(len(days))},
    )


def revision(before: Panel, after: Panel) -> Revision:
    return revision_of(before, after, ["close", "flat"])


def test_bars_that_follow_are_no_revision() -> None:
    before = history([1, 2], [10, np.nan])
    found = revision(before, history([1, 2, 3], [10, np.nan, 12]))
    assert found == Revision(0, 0, 0, None, None, {})


def test_a_changed_bar_is_found_with_its_relative_change() -> None:
    found = revision(history([1, 2, 3], [10, 20, 30]), history([1, 2, 3, 4], [10, 25, 30, 40]))
    assert found == Revision(1, 0, 0, 2 * DAY_US, 2 * DAY_US, {"close": 0.25})


def test_late_and_withdrawn_bars_are_told_apart() -> None:
    found = revision(history([1, 3, 4], [10, 30, 40]), history([1, 2, 4, 5], [10, 20, 40, 50]))
    assert found == Revision(0, 1, 1, 2 * DAY_US, 3 * DAY_US, {})


@pytest.mark.parametrize(("was", "now"), [(np.nan, 1.0), (1.0, np.nan), (0.0, 1.0)])
def test_a_change_without_a_ratio_is_named_without_one(was: float, now: float) -> None:
    found = revision(history([1], [was]), history([1], [now]))
    assert (found.changed, found.columns) == (1, {"close": None})


days = st.lists(st.integers(0, 30), unique=True, max_size=12).map(sorted)


@given(days, days)
def test_every_bar_up_to_the_last_known_is_accounted_for(old: list[int], new: list[int]) -> None:
    before, after = history(old, [1.0] * len(old)), history(new, [2.0] * len(new))
    found = revision(before, after)
    last = max(old, default=-1)
    assert found.changed == len(set(old) & set(new))
    assert found.added == len([day for day in new if day <= last and day not in old])
    assert found.removed == len(set(old) - set(new))
    touched = found.changed + found.added + found.removed
    assert (found.first_ts is None) == (touched == 0)
