"""What holds for any bars: no asset, no later bar and no cut changes a value by one bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.features import FEATURES, build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline_tests.market.features.panels import (
    differing_columns,
    head,
    random_bars,
    with_holes,
)

lengths = st.lists(st.one_of(st.integers(0, 60), st.integers(360, 420)), min_size=1, max_size=5)
seeds = st.integers(0, 2**32 - 1)
relaxed = settings(deadline=None, max_examples=40)


@relaxed
@given(lengths, seeds, st.sampled_from([0.0, 0.002]))
def test_an_asset_alone_has_the_same_bits_as_in_a_batch(
    lengths: list[int], seed: int, share: float
) -> None:
    bars = with_holes(random_bars(lengths, seed), seed, share)
    together = build_features(bars)
    for asset in bars.assets:
        alone = build_features(bars.select([asset]))
        assert differing_columns(together.select([asset]), alone) == []


@relaxed
@given(lengths, seeds, st.integers(0, 420), st.sampled_from([0.0, 0.002]))
def test_later_bars_do_not_change_a_bit_of_earlier_features(
    lengths: list[int], seed: int, cut: int, share: float
) -> None:
    bars = with_holes(random_bars(lengths, seed), seed, share)
    assert differing_columns(head(build_features(bars), cut), build_features(head(bars, cut))) == []


def test_a_feature_that_is_not_recursive_needs_only_the_rows_it_names() -> None:
    bars = random_bars([900], seed=5)
    whole = build_features(bars)
    for rows in {f.rows for f in FEATURES if not f.recursive}:
        tail = build_features(bars.take(np.arange(len(bars)) >= len(bars) - rows))
        for feature in FEATURES:
            if feature.rows == rows and not feature.recursive:
                last = whole[feature.name][-1:].tobytes()
                assert tail[feature.name][-1:].tobytes() == last, feature.name


def test_each_feature_begins_on_the_row_that_the_catalogue_names() -> None:
    built = build_features(random_bars([600, 600], seed=1))
    for feature in FEATURES:
        column = built[feature.name]
        if column.dtype == bool:
            continue
        for start in built.offsets[:-1]:
            assert np.isnan(column[start : start + feature.rows - 1]).all(), feature.name
            assert not np.isnan(column[start + feature.rows - 1 : start + 600]).any(), feature.name


@pytest.mark.parametrize(
    ("column", "first_row"),
    [
        ("delta1", 1),
        ("delta2", 2),
        ("true_range", 1),
        ("atr_14", 14),
        ("rsi_7", 7),
        ("rsi_21", 21),
        ("adx_14", 27),
        ("macd_signal_9", 33),
        ("stoch_d_3", 15),
        ("ret_log_zscore_365", 365),
        ("vol_log_roll_20", 20),
        ("vol_gk_126_zscore", 489),
        ("ema_200", 199),
    ],
)
def test_warm_up_lengths(column: str, first_row: int) -> None:
    values = build_features(random_bars([600], seed=2))[column]
    assert np.flatnonzero(~np.isnan(values))[0] == first_row


@pytest.mark.parametrize("lengths", [[], [0], [1], [5], [0, 1, 5], [1, 0, 0, 1]])
def test_short_series_are_built_and_mostly_undefined(lengths: list[int]) -> None:
    bars = random_bars(lengths)
    built = build_features(bars)
    assert len(built) == sum(lengths)
    assert built.assets == bars.assets
    assert np.isnan(built["rsi_7"]).all()


prices = st.one_of(
    st.floats(1e-9, 1e9),
    st.sampled_from([0.0, -1.0, float("nan"), float("inf"), 5e-324, 1.7e308]),
)


@relaxed
@given(st.lists(st.tuples(prices, prices, prices, prices), max_size=60), st.integers(1, 8))
def test_no_prices_however_broken_make_an_infinite_feature(
    rows: list[tuple[float, ...]], repeat: int
) -> None:
    columns = np.array(rows * repeat, float).reshape(-1, 4).T.copy()
    named = dict(zip(("open", "high", "low", "close"), columns, strict=True))
    count = columns.shape[1]
    bars = Panel(
        timeframe("1D"),
        ("A0",),
        np.array([0, count], np.int64),
        np.arange(count),
        {**named, "volume": np.ones(count)},
    )
    built = build_features(bars)
    for feature in FEATURES[6:]:
        column = built[feature.name]
        assert column.dtype == bool or not np.isinf(column).any(), feature.name


def test_real_bars_have_the_same_features_alone_and_together(test_data: Path) -> None:
    daily = pd.read_parquet(test_data / "cmc_daily.parquet").set_index("ts").tz_convert("UTC")
    frames = {str(symbol): frame for symbol, frame in daily.groupby("symbol")}
    bars = Panel.stack(timeframe("1D"), frames)
    together = build_features(bars)
    for asset in ("BTC", "DOGE", "USDC"):
        alone = build_features(bars.select([asset]))
        assert differing_columns(together.select([asset]), alone) == []
    shares = {name: column.mean() for name, column in together.columns.items() if "is_out" in name}
    assert all(0 < share < 0.05 for share in shares.values()), shares
