"""What is known at the close of a bar: as pandas joins by asset, and never anything later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.as_of import TimedValues, values_as_of
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe

ASSETS = ("A", "B", "C")
Rows = list[tuple[str, int, float]]
INSTANTS = st.integers(-40, 140)
ROWS = st.lists(
    st.tuples(st.sampled_from(ASSETS), INSTANTS, st.sampled_from([0.0, 1.5, -2.0, np.nan]))
)


def _values(rows: Rows) -> TimedValues:
    ordered = sorted(rows, key=lambda row: row[:2])
    names = sorted({asset for asset, _, _ in rows})
    counts = [sum(asset == name for asset, _, _ in rows) for name in names]
    return TimedValues(
        tuple(names),
        np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        np.array([ts for _, ts, _ in ordered], np.int64),
        {"x": np.array([value for _, _, value in ordered])},
    )


def _bars(stamps: Mapping[Any, set[int]]) -> Panel:
    ts = [sorted(stamps[asset]) for asset in stamps]
    offsets = np.concatenate(([0], np.cumsum([len(own) for own in ts]))).astype(np.int64)
    return Panel(
        timeframe("1D"),
        tuple(stamps),
        offsets,
        np.array([t for own in ts for t in own], np.int64),
        {},
    )


BARS = st.dictionaries(
    st.sampled_from((*ASSETS, "D")), st.sets(st.integers(0, 100), max_size=12), max_size=4
).map(_bars)


def _by_pandas(rows: Rows, bars: Panel, max_age: int | None) -> np.ndarray:
    """The same by `merge_asof`, asset by asset."""
    found = np.full(len(bars), np.nan)
    for asset in bars.assets:
        own = sorted((ts, value) for name, ts, value in rows if name == asset)
        at = bars.rows_of(asset)
        right = pd.DataFrame({"ts": [ts for ts, _ in own], "x": [x for _, x in own]})
        if len(right) and at.stop > at.start:
            joined = pd.merge_asof(
                pd.DataFrame({"ts": bars.ts[at]}),
                right.drop_duplicates("ts", keep="last").astype({"ts": np.int64}),
                on="ts",
                tolerance=max_age,
            )
            found[at] = joined["x"].to_numpy()
    return found


def _without_repeats(rows: Rows) -> Rows:
    return [(asset, ts, x) for (asset, ts), x in {row[:2]: row[2] for row in rows}.items()]


@given(rows=ROWS, bars=BARS, max_age=st.none() | st.integers(0, 60))
def test_the_join_is_that_of_pandas(rows: Rows, bars: Panel, max_age: int | None) -> None:
    rows = _without_repeats(rows)
    joined = values_as_of(_values(rows), bars, max_age)["x"]
    np.testing.assert_array_equal(joined, _by_pandas(rows, bars, max_age))


@given(rows=ROWS, bars=BARS, cut=st.integers(0, 100))
def test_later_rows_change_no_earlier_bar(rows: Rows, bars: Panel, cut: int) -> None:
    rows = _without_repeats(rows)
    whole = values_as_of(_values(rows), bars)["x"]
    past = values_as_of(_values([row for row in rows if row[1] <= cut]), bars)
    past_x = past["x"] if past else np.full(len(bars), np.nan)
    np.testing.assert_array_equal(whole[bars.ts <= cut], past_x[bars.ts <= cut])


@given(rows=ROWS, bars=BARS)
def test_each_asset_alone_is_as_all_together(rows: Rows, bars: Panel) -> None:
    rows = _without_repeats(rows)
    together = values_as_of(_values(rows), bars)["x"]
    for asset in bars.assets:
        alone = values_as_of(_values(rows), bars.select([asset]))["x"]
        np.testing.assert_array_equal(together[bars.rows_of(asset)], alone)


def test_of_rows_with_one_instant_the_last_counts() -> None:
    values = TimedValues(
        ("A",), np.array([0, 3]), np.array([5, 7, 7]), {"x": np.array([1.0, 2.0, 3.0])}
    )
    assert values_as_of(values, _bars({"A": {4, 5, 6, 7}}))["x"].tolist()[1:] == [1.0, 1.0, 3.0]
