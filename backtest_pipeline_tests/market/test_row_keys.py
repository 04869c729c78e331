"""Keys of (asset, stamp): in order and exact, however many assets over however long a time."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.market.as_of import TimedValues, rows_as_of
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.row_keys import row_keys
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.strategies.rules.longer_bars import LongerBars

YEARS_US = 20 * 365 * DAY_US


def rows(n_assets: int) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of each asset, 20 years apart."""
    segment = np.repeat(np.arange(n_assets), 2)
    return segment, np.tile([0, YEARS_US], n_assets) + segment


@pytest.mark.parametrize("n_assets", [3, 40_000])
def test_keys_ascend_by_asset_and_stamp_and_find_each_row(n_assets: int) -> None:
    segment, ts = rows(n_assets)
    some = np.arange(0, len(ts), 7)
    keys, wanted = row_keys((segment, ts), (segment[some], ts[some]))
    assert (np.diff(keys) > 0).all()
    np.testing.assert_array_equal(np.searchsorted(keys, wanted), some)
    absent = row_keys((segment, ts), (segment[some], ts[some] + 1))
    assert not np.isin(absent[1], absent[0]).any()


@pytest.mark.parametrize("n_assets", [3, 40_000])
def test_rows_of_no_asset_come_before_all(n_assets: int) -> None:
    segment, ts = rows(n_assets)
    keys, unknown = row_keys((segment, ts), (np.array([-1]), np.array([YEARS_US])))
    assert unknown[0] < keys[0]


def test_of_no_rows_there_are_no_keys() -> None:
    none = np.empty(0, np.int64)
    assert [len(keys) for keys in row_keys((none, none), (none, none))] == [0, 0]


def test_what_is_known_at_a_bar_is_known_among_40000_assets() -> None:
    segment, ts = rows(40_000)
    assets, offsets = tuple(f"A{i}" for i in range(40_000)), np.arange(0, 80_001, 2)
    panel = Panel(timeframe("1D"), assets, offsets, ts, {})
    known = rows_as_of(TimedValues(assets, offsets, ts - 1, {}), panel)
    np.testing.assert_array_equal(known, np.arange(80_000))
    longer = LongerBars(panel)
    found = longer.known(Panel(timeframe("1W"), assets, offsets, ts, {}), segment.astype(float))
    np.testing.assert_array_equal(found, segment)
