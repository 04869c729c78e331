"""Z-scores and volatilities against a slow second computation of their own."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from backtest_pipeline.market.features import FEATURES, build_features, rolling
from backtest_pipeline.market.panel import Panel
from backtest_pipeline_tests.market.features.panels import random_bars


@pytest.fixture(scope="module")
def bars() -> Panel:
    return random_bars([700], seed=3, tf="4H")


@pytest.fixture(scope="module")
def built(bars: Panel) -> Panel:
    return build_features(bars)


def assert_close(ours: np.ndarray, expected: ArrayLike) -> None:
    np.testing.assert_allclose(ours, np.asarray(expected, float), rtol=1e-9, atol=1e-11)


def pandas_zscore(x: np.ndarray, n: int) -> pd.Series:
    window = pd.Series(x).rolling(n)
    return (pd.Series(x) - window.mean()) / window.std(ddof=1)


def test_returns_are_differences_and_ratios_of_closes(bars: Panel, built: Panel) -> None:
    close = pd.Series(bars["close"])
    assert_close(built["delta1"], close.diff())
    assert_close(built["delta2"], close.diff().diff())
    assert_close(built["ret_arith"], close.pct_change())
    assert_close(built["delta_ret_arith"], close.pct_change().diff())
    ret_log = pd.Series(np.log(close / close.shift()))
    assert_close(built["ret_log"], ret_log)
    assert_close(built["delta_ret_log"], ret_log.diff())


def test_ranges_are_what_the_bar_spans(bars: Panel, built: Panel) -> None:
    high, low, close = (bars[name].tolist() for name in ("high", "low", "close"))
    spans = [
        max(high[i] - low[i], abs(high[i] - close[i - 1]), abs(low[i] - close[i - 1]))
        for i in range(1, len(bars))
    ]
    assert_close(built["true_range"], [math.nan, *spans])
    assert_close(built["true_range_pct"], built["true_range"] / bars["close"])
    assert_close(built["range"], bars["high"] - bars["low"])
    assert_close(built["range_pct"], built["range"] / bars["close"])


@pytest.mark.parametrize("n", [30, 90, 365])
@pytest.mark.parametrize("name", ["ret_arith", "delta_ret_arith", "ret_log", "delta_ret_log"])
def test_return_zscores_compare_with_the_last_n_bars(built: Panel, name: str, n: int) -> None:
    assert_close(built[f"{name}_zscore_{n}"], pandas_zscore(built[name], n))


@pytest.mark.parametrize("n", [20, 63, 126])
@pytest.mark.parametrize("name", ["parkinson", "gk", "rs"])
def test_volatility_zscores_compare_with_the_last_365_bars(built: Panel, name: str, n: int) -> None:
    column = f"vol_{name}_{n}"
    assert_close(built[f"{column}_zscore"], pandas_zscore(built[column], 365))


def parkinson(o: float, h: float, low: float, c: float) -> float:
    return math.log(h / low) ** 2 / (4 * math.log(2))


def garman_klass(o: float, h: float, low: float, c: float) -> float:
    return 0.5 * math.log(h / low) ** 2 - (2 * math.log(2) - 1) * math.log(c / o) ** 2


def rogers_satchell(o: float, h: float, low: float, c: float) -> float:
    return math.log(h / c) * math.log(h / o) + math.log(low / c) * math.log(low / o)


@pytest.mark.parametrize("n", [20, 63, 126])
@pytest.mark.parametrize(
    ("name", "estimator"),
    [("parkinson", parkinson), ("gk", garman_klass), ("rs", rogers_satchell)],
)
def test_range_volatilities_are_annualised_by_the_timeframe(
    bars: Panel, built: Panel, name: str, estimator, n: int
) -> None:
    rows = zip(*(bars[x].tolist() for x in ("open", "high", "low", "close")), strict=True)
    variances = [estimator(*row) for row in rows]
    four_hour_bars_a_year = 365 * 6
    expected = [math.nan] * (n - 1) + [
        math.sqrt(statistics.fmean(variances[t - n + 1 : t + 1]) * four_hour_bars_a_year)
        for t in range(n - 1, len(bars))
    ]
    assert_close(built[f"vol_{name}_{n}"], expected)


@pytest.mark.parametrize("n", [20, 63, 126])
def test_log_return_volatility_is_the_sample_deviation(bars: Panel, built: Panel, n: int) -> None:
    expected = pd.Series(np.log(bars["close"])).diff().rolling(n).std(ddof=1) * math.sqrt(365 * 6)
    assert_close(built[f"vol_log_roll_{n}"], expected)


@pytest.mark.parametrize("n", [7, 14, 21])
def test_rsi_has_the_period_of_its_name(bars: Panel, built: Panel, n: int) -> None:
    moves = np.diff(bars["close"]).tolist()
    gain = statistics.fmean(max(move, 0) for move in moves[:n])
    loss = statistics.fmean(max(-move, 0) for move in moves[:n])
    expected = [math.nan] * n + [100 - 100 / (1 + gain / loss)]
    for move in moves[n:]:
        gain = (gain * (n - 1) + max(move, 0)) / n
        loss = (loss * (n - 1) + max(-move, 0)) / n
        expected.append(100 - 100 / (1 + gain / loss))
    assert_close(built[f"rsi_{n}"], expected)


def test_rsi_zscore_compares_with_the_last_365_bars(built: Panel) -> None:
    assert_close(built["rsi_14_zscore"], pandas_zscore(built["rsi_14"], 365))


def test_outliers_lie_four_deviations_out() -> None:
    bars = random_bars([1500], seed=3)
    turmoil = np.where(np.arange(1500) % 500 > 470, 8.0, 1.0)
    jumps = np.exp((0.02 * turmoil * np.random.default_rng(3).standard_normal(1500)).cumsum())
    shaken = {name: bars[name] * jumps for name in ("open", "high", "low", "close")}
    shaken["high"] = shaken["high"] * turmoil
    built = build_features(bars.with_columns(shaken))
    scores = {"ret": built["ret_log_zscore_90"], "ta": built["rsi_14_zscore"]}
    for feature in FEATURES:
        name = feature.name.removesuffix("_is_outlier")
        if name != feature.name:
            score = scores.get(name)
            score = pandas_zscore(built[name], 365) if score is None else score
            np.testing.assert_array_equal(built[feature.name], np.abs(score) > 4, name)
            assert built[feature.name].any() or name == "ta", name


def test_roll_columns_equal_their_plain_twins(built: Panel) -> None:
    rolled = [f.name for f in FEATURES if "_roll" in f.name and not f.name.startswith("vol_")]
    assert len(rolled) == 22
    for name in rolled:
        np.testing.assert_array_equal(built[name], built[name.replace("_roll", "")])


def test_averages_that_the_table_holds_follow_their_recursion(bars: Panel, built: Panel) -> None:
    close = bars["close"].tolist()
    for n in (9, 10, 21, 50, 200):
        level = statistics.fmean(close[:n])
        expected = [math.nan] * (n - 1) + [level]
        for price in close[n:]:
            level = price * 2 / (n + 1) + level * (1 - 2 / (n + 1))
            expected.append(level)
        assert_close(built[f"ema_{n}"], expected)
    fast, slow = (pd.Series(built[f"ema_{n}"]) for n in (9, 21))
    assert not np.allclose(fast[30:], slow[30:])


def test_fast_macd_uses_8_17_and_9(bars: Panel, built: Panel) -> None:
    def seeded(x: pd.Series, n: int) -> pd.Series:
        values = x.dropna()
        start = pd.Series([values.iloc[:n].mean()], index=[values.index[n - 1]])
        smoothed = pd.concat([start, values.iloc[n:]]).ewm(span=n, adjust=False).mean()
        return pd.Series(smoothed).reindex(x.index)

    close = pd.Series(bars["close"])
    macd = seeded(close, 8) - seeded(close, 17)
    assert_close(built["macd_8_17"], macd)
    assert_close(built["macd_signal_9_fast"], seeded(macd, 9))
    assert_close(built["macd_hist_8_17_9"], macd - seeded(macd, 9))


@pytest.mark.parametrize("n", [2, 3, 20, 63, 64, 65, 200, 699, 700, 701])
def test_windows_of_any_length_agree_with_pandas(n: int) -> None:
    x = np.random.default_rng(n).normal(size=700)
    x[[300, 420]] = np.nan
    offsets, window = np.array([0, 700], np.int64), pd.Series(x).rolling(n)
    assert np.array_equal(rolling.highest(x, offsets, n), window.max(), equal_nan=True)
    assert np.array_equal(rolling.lowest(x, offsets, n), window.min(), equal_nan=True)
    assert_close(rolling.total(x, offsets, n), window.sum())
    assert_close(rolling.population_deviation(x, offsets, n), window.std(ddof=0))
    assert_close(rolling.quantile(x, offsets, n, 0.3), window.quantile(0.3))


def test_sums_of_whole_numbers_are_exact_at_any_length() -> None:
    x = np.random.default_rng(5).integers(0, 2, 900).astype(np.float64)
    offsets = np.array([0, 400, 400, 900], np.int64)
    for n in (1, 7, 100, 365, 511):
        found = rolling.total(x, offsets, n)
        parts = [pd.Series(part).rolling(n).sum().round() for part in (x[:400], x[400:])]
        assert np.array_equal(found, np.concatenate(parts), equal_nan=True)


def test_rows_are_shifted_within_their_asset() -> None:
    x, offsets = np.arange(1.0, 8.0), np.array([0, 2, 2, 7], np.int64)
    nan = math.nan
    for n, expected in (
        (0, [1, 2, 3, 4, 5, 6, 7]),
        (1, [nan, 1, nan, 3, 4, 5, 6]),
        (3, [nan, nan, nan, nan, nan, 3, 4]),
        (99, [nan] * 7),
    ):
        assert np.array_equal(rolling.shift(x, offsets, n), expected, equal_nan=True)
    flags = rolling.shift(np.ones(7, bool), offsets, 1)
    assert flags.tolist() == [False, True, False, True, True, True, True]
