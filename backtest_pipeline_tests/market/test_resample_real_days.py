"""Real daily bars against pandas' own periods, for calendar, anchored and fixed timeframes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.resample import resample
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe
from backtest_pipeline.sources.files import FileBars

TAKEN = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}


@pytest.fixture(scope="module")
def daily(test_data: Path) -> Panel:
    return FileBars(test_data / "binance_daily.parquet").read().panels["1D"]


def _begins(name: str, days: pd.DatetimeIndex) -> pd.Index:
    """The first day of the period of each day, by pandas."""
    period = {
        "1M_CAL": "M",
        "1Q": "Q",
        "3M_CAL": "Q",
        "1Y_CAL": "Y",
        "12M_CAL_ANCHOR": "Y",
        "1W": "W-SUN",
        "1W_CAL_ISO": "W-SUN",
        "1W_CAL_US": "W-SAT",
    }
    if name in period:
        return pd.Index(
            days.tz_localize(None).to_period(period[name]).start_time.tz_localize("UTC")
        )
    if name.endswith("D"):
        return days.floor(name)
    begins = {
        "9M_CAL_ANCHOR": [1 if month < 10 else 10 for month in days.month],
        "2Q": [1 if month < 7 else 7 for month in days.month],
        "5M_CAL_ANCHOR": [(month - 1) // 5 * 5 + 1 for month in days.month],
    }
    dates = {"year": days.year, "month": begins[name], "day": 1}
    return pd.Index(pd.to_datetime(pd.DataFrame(dates)).dt.tz_localize("UTC"))


@pytest.mark.parametrize(
    "name",
    [
        *("1M_CAL", "1Q", "3M_CAL", "1Y_CAL", "12M_CAL_ANCHOR", "1W", "1W_CAL_ISO", "1W_CAL_US"),
        *("7D", "14D", "21D", "365D", "9M_CAL_ANCHOR", "2Q", "5M_CAL_ANCHOR"),
    ],
)
def test_bars_are_those_of_pandas_without_unfinished_ones(daily: Panel, name: str) -> None:
    ours = resample(daily, timeframe(name))
    n_compared = 0
    for asset in daily.assets:
        days = daily.frame(asset)[list(TAKEN)]
        opens = pd.DatetimeIndex(days.index).ceil("D") - pd.Timedelta(days=1)
        begins = _begins(name, opens)
        expected = days.groupby(np.asarray(begins)).agg(TAKEN)
        # Unfinished are one that began before the first day, and the last unless its day closed it.
        first_is_whole = begins[0] == opens[0]
        last_is_whole = _begins(name, opens[-1:] + pd.Timedelta(days=1))[0] != begins[-1]
        whole = expected.iloc[0 if first_is_whole else 1 : None if last_is_whole else -1]
        rows = ours.rows_of(asset)
        for column in TAKEN:
            np.testing.assert_allclose(ours[column][rows], whole[column], rtol=1e-12)
        start, end = timeframe(name).period_bounds(ours.ts[rows])
        np.testing.assert_array_equal(start, pd.DatetimeIndex(whole.index).as_unit("us").asi8)
        np.testing.assert_array_equal(ours.ts[rows], end - CLOSE_STAMP_US)
        assert ((end - start) % DAY_US == 0).all()
        n_compared += len(whole)
    assert n_compared > 5
