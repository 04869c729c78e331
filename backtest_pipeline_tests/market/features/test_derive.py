"""Features that a panel lacks are those of the catalogue, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.features import FEATURES, build_features, with_indicators
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.sources.sample import SampleMarket


@pytest.fixture(scope="module")
def bars() -> Panel:
    return SampleMarket().read(["S-ALPHA", "S-MU"]).panels["1D"]


def test_every_column_of_the_catalogue_can_be_read(bars: Panel) -> None:
    whole, names = build_features(bars), [feature.name for feature in FEATURES]
    found = with_indicators(bars, names)
    for name in names:
        if name not in bars.columns:
            np.testing.assert_array_equal(found[name], whole[name], err_msg=name)


def test_a_column_that_is_there_is_taken_as_it_is(bars: Panel) -> None:
    mine = np.arange(len(bars), dtype=np.float64)
    found = with_indicators(bars.with_columns({"rsi_14": mine}), ["rsi_14", "ema_9"])
    assert found["rsi_14"] is mine
    assert "ema_9" in found.columns


@pytest.mark.parametrize(
    ("name", "hint"), [("rsi14", "; did you mean rsi_14"), ("score", "no feature 'score';")]
)
def test_an_unknown_column_is_named(bars: Panel, name: str, hint: str) -> None:
    with pytest.raises(InvalidInput, match=hint):
        with_indicators(bars, [name])


def test_without_all_of_the_bars_only_periods_are_computed(bars: Panel) -> None:
    closes = Panel(
        bars.timeframe,
        bars.assets,
        bars.offsets,
        bars.ts,
        {name: bars[name] for name in OHLCV if name != "volume"},
    )
    assert "ema_37" in with_indicators(closes, ["ema_37"]).columns
    with pytest.raises(InvalidInput, match="no feature 'ret_log'"):
        with_indicators(closes, ["ret_log"])


@pytest.mark.parametrize("name", ["ema_0", "rsi_0", "atr_0", "ema_007", "rsi_99999999999999999999"])
def test_a_period_that_is_none_is_no_feature(name: str) -> None:
    panel = SampleMarket().read(["S-ALPHA"]).panels["1D"]
    with pytest.raises(InvalidInput, match=f"no feature '{name}'"):
        with_indicators(panel, [name])
