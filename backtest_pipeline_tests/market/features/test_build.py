"""Flat, broken and missing prices, and the flags."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.features import FEATURES, build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline_tests.market.features.panels import bars_of, random_bars


def test_prices_that_never_move_have_no_momentum_and_no_zscores() -> None:
    built = build_features(bars_of([0.1] * 800))
    undefined = ["rsi_7", "rsi_14", "rsi_21", "stoch_k_14", "stoch_d_3"]
    undefined += [f.name for f in FEATURES if "zscore" in f.name]
    for name in undefined:
        assert np.isnan(built[name]).all(), name
    zero = ["atr_14", "adx_14", "macd_12_26", "macd_hist_8_17_9", "bb_width_20", "ret_log"]
    zero += [f"vol_{name}_63" for name in ("parkinson", "gk", "rs", "log_roll")]
    for name in zero:
        assert built[name][-1] == 0, name
    assert built["ema_200"][-1] == 0.1
    assert built["bb_up_20_2"][-1] == built["bb_lo_20_2"][-1] == 0.1
    assert not built["has_outlier"].any()


def test_rsi_is_100_without_a_fall_and_0_without_a_rise() -> None:
    rising = np.arange(1.0, 41.0)
    assert (build_features(bars_of(rising))["rsi_14"][14:] == 100).all()
    assert (build_features(bars_of(rising[::-1]))["rsi_14"][14:] == 0).all()


def test_adx_is_100_where_every_bar_goes_the_same_way() -> None:
    assert build_features(bars_of(np.arange(1.0, 41.0)))["adx_14"][-1] == pytest.approx(100)


def test_the_stochastic_is_100_at_the_highest_high_and_0_at_the_lowest_low() -> None:
    rising = np.arange(1.0, 41.0)
    assert (build_features(bars_of(rising))["stoch_k_14"][13:] == 100).all()
    assert (build_features(bars_of(rising[::-1]))["stoch_k_14"][13:] == 0).all()


def test_an_unknown_price_undoes_its_windows_and_no_others() -> None:
    bars = random_bars([600], seed=4)
    close = bars["close"].copy()
    close[200] = np.nan
    built = build_features(bars.with_columns({"close": close}))
    whole = build_features(bars)
    width = built["bb_width_20"]
    assert np.flatnonzero(np.isnan(width[19:])).tolist() == list(range(181, 201))
    np.testing.assert_array_equal(width[220:], whole["bb_width_20"][220:])
    assert np.isnan(built["delta1"][[200, 201]]).all()
    assert not np.isnan(built["delta1"][202])


def test_an_average_starts_its_warm_up_again_after_an_unknown_price() -> None:
    bars = random_bars([300], seed=4)
    close = bars["close"].copy()
    close[100] = np.nan
    averaged = build_features(bars.with_columns({"close": close}))["ema_50"]
    assert np.isnan(averaged[100:150]).all()
    assert averaged[150] == pytest.approx(close[101:151].mean())


@pytest.mark.parametrize("broken", [0.0, -1.0, np.nan, np.inf])
def test_a_price_that_is_not_positive_counts_as_unknown(broken: float) -> None:
    close = 100 + np.sin(np.arange(60.0))
    close[30] = broken
    built = build_features(bars_of(close))
    np.testing.assert_array_equal(built["close"], close)
    for name in ("ret_arith", "ret_log", "delta1", "range_pct", "bb_ma_20", "ema_9"):
        assert np.isnan(built[name][30]), name
        assert not np.isnan(built[name][50:]).any(), name


def test_a_crash_is_an_outlier_of_the_returns_and_of_the_table() -> None:
    bars = random_bars([500], seed=6)
    moved = {name: bars[name].copy() for name in ("open", "high", "low", "close")}
    for name in moved:
        moved[name][450:] *= 0.3
    moved["high"][450] = bars["high"][450]
    built = build_features(bars.with_columns(moved))
    assert built["ret_is_outlier"][450]
    assert built["has_outlier"][450]
    assert built["vol_parkinson_20_is_outlier"][450:460].any()
    assert not build_features(bars)["ret_is_outlier"][440:460].any()


def test_the_flag_of_the_table_is_the_union_of_all_others() -> None:
    built = build_features(random_bars([1500], seed=8))
    flags = [built[f.name] for f in FEATURES if f.name.endswith("_is_outlier")]
    assert len(flags) == 15
    np.testing.assert_array_equal(built["has_outlier"], np.any(flags, axis=0))


def test_missing_bars_before_a_bar_are_a_price_gap() -> None:
    bars = bars_of([1.0, 2.0, 3.0])
    known = build_features(bars.with_columns({"gap_bars": np.array([0, 2, 0])}))
    assert known["has_price_gap"].tolist() == [False, True, False]
    assert known["gap_bars"].dtype == np.float64
    unknown = build_features(bars)
    assert not unknown["has_price_gap"].any()
    assert np.isnan(unknown["gap_bars"]).all()


def test_read_only_columns_are_accepted_and_left_alone() -> None:
    bars = random_bars([50])
    for column in (bars.offsets, *bars.columns.values()):
        column.setflags(write=False)
    before = {name: column.copy() for name, column in bars.columns.items()}
    build_features(bars)
    for name, column in before.items():
        np.testing.assert_array_equal(bars[name], column)


def test_a_missing_column_is_named() -> None:
    bars = random_bars([3])
    columns = {name: bars[name] for name in ("open", "high", "close")}
    with pytest.raises(InvalidInput, match="no column low, volume"):
        build_features(Panel(bars.timeframe, bars.assets, bars.offsets, bars.ts, columns))
