"""The exchange's own daily bars against its hourly ones resampled here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backtest_pipeline.market.resample import resample
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline_tests.market.bars import close_stamp


def test_hourly_bars_resampled_to_days_are_the_exchanges_daily_bars(test_data: Path) -> None:
    hourly = FileBars(test_data / "binance_hourly.parquet").read().panels["1H"]
    daily = FileBars(test_data / "binance_daily.parquet").read().panels["1D"]
    ours = resample(hourly, timeframe("1D"))
    compared, odd = 0, []
    for asset in sorted(set(ours.assets) & set(daily.assets)):
        own, theirs = ours.rows_of(asset), daily.rows_of(asset)
        common, i, j = np.intersect1d(ours.ts[own], daily.ts[theirs], return_indices=True)
        from_, to = max(ours.ts[own][0], daily.ts[theirs][0]), common[-1]
        for days in (ours.ts[own], daily.ts[theirs]):
            assert np.array_equal(days[(days >= from_) & (days <= to)], common)
        for price in ("open", "high", "low", "close"):
            assert np.array_equal(ours[price][own][i], daily[price][theirs][j])
        volume, expected = ours["volume"][own][i], daily["volume"][theirs][j]
        odd += [(asset, int(ts)) for ts in common[np.abs(volume - expected) > 1e-9 * expected]]
        compared += len(common)
    assert compared == 15_508
    # The hourly file holds a stale part-bar of 2023-12-30 19:00.
    assert odd == [("BTCUSDT", close_stamp("2023-12-30"))]
