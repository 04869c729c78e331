"""Indicators against values that others published.

The product's measures are compared with Skender's whole table; where a ChartSchool table uses
another convention (a first true range of high - low, an EMA that starts at its first value), that
convention is composed from the same kernels, and shown to be another.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from backtest_pipeline.market.features import build_features, kernels
from backtest_pipeline.market.features.measures import adx, bollinger, rsi
from backtest_pipeline.market.features.rolling import ema, highest, lowest, mean, previous, wilder
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe


def offsets_of(x: np.ndarray | pd.DataFrame) -> np.ndarray:
    return np.array([0, len(x)], np.int64)


def assert_same(ours: np.ndarray, published: ArrayLike, within: float = 1e-8) -> None:
    """Equal within a tolerance, and defined on the same rows."""
    np.testing.assert_allclose(ours, np.asarray(published, float), rtol=0, atol=within)


@pytest.fixture(scope="module")
def skender(test_data: Path) -> pd.DataFrame:
    return pd.read_parquet(
        test_data / "reference" / "skender_default_502bars_with_indicators.parquet"
    )


@pytest.fixture(scope="module")
def built(skender: pd.DataFrame) -> Panel:
    bars = skender.set_index("ts")[["open", "high", "low", "close", "volume"]]
    return build_features(Panel.stack(timeframe("1D"), {"SPY": pd.DataFrame(bars)}))


@pytest.mark.parametrize(
    ("column", "published"),
    [
        ("rsi_14", "rsi"),
        ("true_range", "atr.tr"),
        ("atr_14", "atr"),
        ("adx_14", "adx"),
        ("macd_12_26", "macd"),
        ("macd_signal_9", "macd.signal"),
        ("macd_hist_12_26_9", "macd.histogram"),
        ("stoch_d_3", "stoch.oscillator"),
        ("bb_ma_20", "bb.sma"),
        ("bb_up_20_2", "bb.upperBand"),
        ("bb_lo_20_2", "bb.lowerBand"),
        ("bb_width_20", "bb.width"),
    ],
)
def test_features_equal_the_skender_table(
    built: Panel, skender: pd.DataFrame, column: str, published: str
) -> None:
    assert_same(built[column], skender[published])


def test_fast_stochastic_equals_williams_r_of_the_skender_table(
    built: Panel, skender: pd.DataFrame
) -> None:
    assert_same(built["stoch_k_14"] - 100, skender["willr.williamsR"])


def test_ema_20_equals_the_skender_table(skender: pd.DataFrame) -> None:
    close = skender["close"].to_numpy(float)
    ours = ema(close, offsets_of(close), 20)
    assert_same(ours, skender["ema"])
    np.testing.assert_allclose(ours[[29, 249, 501]], [216.6228, 255.3873, 249.3519], atol=5e-5)


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "reference" / f"ta_cs-{name}.csv")


CHARTSCHOOL_RSI = (
    "70.5328 66.3186 66.5498 69.4063 66.3552 57.9749 62.9296 63.2571 56.0593 62.3771 54.7076 "
    "50.4228 39.9898 41.4605 41.8689 45.4632 37.3040 33.0795 37.7730"
)


def test_rsi_equals_chartschool_and_not_the_library_whose_column_the_file_holds(
    test_data: Path,
) -> None:
    page = table(test_data, "rsi")
    close, offsets = page["Close"].to_numpy(float), offsets_of(page)
    ours = rsi(close, offsets, 14)
    published = np.array(CHARTSCHOOL_RSI.split(), float)
    np.testing.assert_array_equal(np.round(ours[14:], 4), published)
    assert np.isnan(ours[:14]).all()
    assert np.abs(ours - page["RSI"])[14:].min() > 0.5

    def from_the_first_row(column: str) -> np.ndarray:
        return kernels.smooth(page[column].fillna(0).to_numpy(float), offsets, 1, 1 / 14)

    assert_same(from_the_first_row("Gain"), page["Avg Gain"], within=1e-6)
    assert_same(from_the_first_row("Loss"), page["Avg Loss"], within=1e-6)


def test_atr_equals_chartschool_where_the_first_true_range_counts(test_data: Path) -> None:
    page = table(test_data, "atr")
    high, low = page["High"].to_numpy(float), page["Low"].to_numpy(float)
    before = previous(page["Close"].to_numpy(float), offsets_of(page))
    true_range = np.fmax(high, before) - np.fmin(low, before)
    ours = wilder(true_range, offsets_of(page), 14)
    assert_same(true_range, page["TR"])
    assert_same(ours, page["ATR"].where(page["ATR"] > 0))
    printed = [0.555, 0.5939285714, 0.5857908163, 0.5689486152, 0.6154522855, 1.3164822693]
    np.testing.assert_allclose(ours[[13, 14, 15, 16, 17, -1]], printed, atol=1e-9)


def test_adx_equals_chartschool_to_the_decimals_it_prints(test_data: Path) -> None:
    page = table(test_data, "adx")
    high, low = page["High"].to_numpy(float), page["Low"].to_numpy(float)
    assert_same(adx(high, low, offsets_of(page), 14), page["ADX"], within=6e-8)


def test_bands_equal_chartschool_to_the_decimals_it_prints(test_data: Path) -> None:
    page = table(test_data, "bbands")
    ours = bollinger(page["Close"].to_numpy(float), offsets_of(page))
    assert_same(ours["bb_ma_20"], page["MiddleBand"], within=6e-7)
    assert_same(ours["bb_up_20_2"], page["HighBand"], within=6e-7)
    assert_same(ours["bb_lo_20_2"], page["LowBand"], within=6e-7)
    assert_same(100 * ours["bb_width_20"], page["WidthBand"], within=6e-7)


def test_macd_of_the_chartschool_table_is_ours_but_for_the_seed(test_data: Path) -> None:
    page = table(test_data, "macd")
    close, offsets = page["Close"].to_numpy(float), offsets_of(page)

    def from_the_first_close(n: int) -> np.ndarray:
        return kernels.smooth(close, offsets, 1, 2 / (n + 1))

    macd = from_the_first_close(12) - from_the_first_close(26)
    assert_same(macd[1:], page["MACD_line"][1:], within=1e-8)
    seeded = page["MACD_line"].to_numpy(float, copy=True)[2:]
    seeded[0] = page["MACD_signal"][2]
    signal = kernels.smooth(seeded, offsets_of(seeded), 1, 2 / 10)
    assert_same(signal, page["MACD_signal"][2:], within=1e-8)

    ours = ema(close, offsets, 12) - ema(close, offsets, 26)
    assert abs(ours[25] - macd[25]) > 0.1
    assert abs(ours[-1] - macd[-1]) < 1e-3


def test_highest_and_lowest_equal_those_of_the_stochastic_rsi_table(test_data: Path) -> None:
    page = table(test_data, "stochrsi")
    index, offsets = page["RSI"].to_numpy(float), offsets_of(page)
    top, bottom = highest(index, offsets, 14), lowest(index, offsets, 14)
    assert_same(top, page["RSI Highest High (14)"])
    assert_same(bottom, page["RSI Lowest Low (14)"])
    assert_same((index - bottom) / (top - bottom), page["StochRSI(14)"], within=6e-8)


def test_three_rsi_periods_are_three_indicators(built: Panel) -> None:
    seven, fourteen, twenty_one = (built[f"rsi_{n}"][30:] for n in (7, 14, 21))
    assert np.abs(seven - fourteen).mean() > 1
    assert np.abs(fourteen - twenty_one).mean() > 1


def test_mean_of_three_needs_three_stochastics(built: Panel) -> None:
    ours = built["stoch_k_14"]
    np.testing.assert_array_equal(mean(ours, offsets_of(ours), 1), ours)
    np.testing.assert_allclose(built["stoch_d_3"][15], ours[13:16].mean(), rtol=1e-14)
