"""Ranks among all assets, against pandas bar by bar."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.cross_section import rank_pct
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe


def universe(lengths: list[int], seed: int = 0) -> Panel:
    """Assets that end on one day, with whole numbers that often tie and are often unknown."""
    rng = np.random.default_rng(seed)
    days = [np.arange(max(lengths) - n, max(lengths)) for n in lengths]
    values = rng.integers(-3, 4, sum(lengths)).astype(float)
    values[rng.random(len(values)) < 0.2] = np.nan
    return Panel(
        timeframe("1D"),
        tuple(f"A{i}" for i in range(len(lengths))),
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        np.concatenate(days) * DAY_US + DAY_US - CLOSE_STAMP_US,
        {"x": values},
    )


def ranks(panel: Panel) -> np.ndarray:
    return rank_pct(panel, {"x": panel["x"]})["x"]


def test_each_bar_is_ranked_as_pandas_ranks_it() -> None:
    panel = universe([40, 0, 25, 40, 1, 33])
    expected = np.full(len(panel), np.nan)
    for stamp in np.unique(panel.ts):
        rows = panel.ts == stamp
        expected[rows] = pd.Series(panel["x"][rows]).rank(pct=True)
    np.testing.assert_array_equal(ranks(panel), expected)
    known = expected[~np.isnan(expected)]
    assert len(np.unique(known)) > 10
    assert 0 < known.min() < known.max() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], [1.0]),
        ([np.nan], [np.nan]),
        ([3.0, 1.0, 2.0], [1.0, 1 / 3, 2 / 3]),
        ([2.0, np.nan, 1.0], [1.0, np.nan, 0.5]),
        ([2.0, 2.0, 1.0, 2.0], [0.75, 0.75, 0.25, 0.75]),
        ([0.0, -0.0], [0.75, 0.75]),
    ],
)
def test_ties_share_a_rank_and_what_is_unknown_is_not_counted(
    values: list[float], expected: list[float]
) -> None:
    found = ranks(universe([1] * len(values)).with_columns({"x": np.array(values)}))
    np.testing.assert_array_equal(found, expected)


def test_closes_within_a_bar_are_the_same_bar_whatever_their_stamp() -> None:
    panel = universe([30, 30, 30])
    late = panel.segment_of_row == 1
    stamps = np.where(late, panel.ts + CLOSE_STAMP_US - DAY_US // 86_400, panel.ts)
    other = Panel(panel.timeframe, panel.assets, panel.offsets, stamps, panel.columns)
    assert (other.ts != panel.ts).sum() == 30
    np.testing.assert_array_equal(ranks(other), ranks(panel))


def test_neither_the_order_of_assets_nor_later_bars_change_a_rank() -> None:
    panel = universe([40, 25, 40, 33], seed=1)
    expected = panel.with_columns({"rank": ranks(panel)})
    shuffled = panel.select(["A2", "A0", "A3", "A1"])
    np.testing.assert_array_equal(ranks(shuffled), expected.select(shuffled.assets)["rank"])
    early = panel.ts <= panel.ts[panel.offsets[1] - 10]
    np.testing.assert_array_equal(ranks(panel.take(early)), expected["rank"][early])
    assert rank_pct(panel, {}) == {}
