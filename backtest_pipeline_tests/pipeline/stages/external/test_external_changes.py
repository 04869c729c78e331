"""What a look at the user's table comes to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.stages.external.external_changes import by_timeframes, changes

PARTITIONS = st.builds(Partition, st.sampled_from(["A", "B", "C"]), st.sampled_from(["1D", "1W"]))
NOW = 1_767_225_600.0
ONE = {Partition("A", "1D"): "x"}


def not_asked() -> dict[Partition, str]:
    raise AssertionError("the table is the same: what was reported is not looked at")


LOOKS = st.dictionaries(PARTITIONS, st.sampled_from(["one" * 9, "two" * 9]))


@given(st.lists(LOOKS, min_size=1), LOOKS)
def test_each_change_is_told_once(looks: list[dict[Partition, str]], taken: dict) -> None:
    cursor, told = None, {}
    for seen in looks:
        for _ in range(2):
            found = changes(seen, taken, lambda known=dict(told): known, cursor, NOW)
            assert dict(found.news) == {p: v for p, v in seen.items() if told.get(p) != v}
            assert set(found.outdated) == {p for p, v in seen.items() if taken.get(p) != v}
            cursor, told = found.cursor, {**told, **found.news}
        kept = changes(seen, taken, not_asked, cursor, NOW)
        assert not kept.news


@pytest.mark.parametrize(
    "cursor", [None, "", "no JSON", "[1, 2]", "null", '{"A|1D": 7}', '{"asked": 1}']
)
def test_without_a_cursor_all_is_told_and_the_same_is_refreshed(cursor: str | None) -> None:
    seen = {Partition("A", "1D"): "x" * 32, Partition("B", "1D"): "y" * 32}
    taken = {Partition("A", "1D"): "x" * 32}
    found = changes(seen, taken, dict, cursor, NOW)
    kept = changes(seen, taken, lambda: seen, found.cursor, NOW + 1)
    assert dict(found.news) == seen
    assert not kept.news
    assert not changes(seen, taken, not_asked, kept.cursor, NOW + 1).news
    assert found.outdated == kept.outdated == (Partition("B", "1D"),)
    assert found.run_key
    assert kept.run_key is None
    assert json.loads(found.cursor)["asked"] == json.loads(kept.cursor)["asked"]


def test_a_refresh_that_changes_nothing_is_asked_for_again_ever_more_rarely() -> None:
    """As after a refresh that failed; each time under another key, or Dagster would drop it."""
    cursor, asked = None, {}
    for minute in range(200):
        found = changes(ONE, {}, dict, cursor, NOW + 60 * minute)
        cursor = found.cursor
        if found.run_key:
            asked[found.run_key] = minute
    assert list(asked.values()) == [0, 1, 3, 7, 15, 31, 63, 123, 183]


def test_a_row_that_is_deleted_and_restored_is_asked_for_again() -> None:
    (partition,) = ONE
    keys, cursor, taken = [], None, {}
    for version in ("whole", "without", "whole"):
        found = changes({partition: version}, taken, dict, cursor, NOW)
        keys.append(found.run_key)
        taken, cursor = {partition: version}, found.cursor
        after = changes(taken, taken, dict, cursor, NOW)
        assert after.run_key is None
        cursor = after.cursor
    assert None not in keys


def test_while_a_refresh_is_under_way_none_is_asked_for_and_afterwards_one_is() -> None:
    found = changes(ONE, {}, dict, None, NOW, is_idle=False)
    assert found.run_key is None
    assert changes(ONE, {}, dict, found.cursor, NOW).run_key


def test_of_very_much_news_the_rest_follows() -> None:
    seen = {Partition(f"A{i}", "1D"): "x" for i in range(7)}
    cursor, told = None, {}
    for expected in (3, 3, 1, 0):
        found = changes(seen, {}, lambda known=dict(told): known, cursor, NOW, most=3)
        assert len(found.news) == expected
        assert len(found.outdated) == 7
        told |= found.news
        cursor = found.cursor
    assert told == seen


def test_the_cursor_is_as_long_for_many_partitions_as_for_one() -> None:
    def cursors(n: int) -> list[int]:
        seen = {Partition(f"A{i}", "1D"): "x" * 32 for i in range(n)}
        first = changes(seen, {}, dict, None, NOW)
        return [len(c.cursor) for c in (first, changes(seen, {}, lambda: seen, first.cursor, NOW))]

    assert cursors(1) == cursors(2_000)
    assert max(cursors(1)) < 200


@given(st.sets(PARTITIONS))
def test_rectangles_hold_each_partition_once(partitions: set[Partition]) -> None:
    found = [
        Partition(asset, tf)
        for assets, timeframes in by_timeframes(sorted(partitions))
        for asset in assets
        for tf in timeframes
    ]
    assert sorted(found) == sorted(partitions)
