from __future__ import annotations

import hashlib

import numpy as np
import pytest

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.resample import resample
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.sources.base import BarSource, SourceBars
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline_tests.market.bars import close_stamp, same_bits


@pytest.fixture(scope="module")
def market() -> SourceBars:
    return SampleMarket().read()


def digest(panel: Panel) -> str:
    content = hashlib.sha256(panel.ts.astype("<i8").tobytes())
    for name in OHLCV:
        content.update(panel[name].astype("<f8").tobytes())
    return content.hexdigest()[:16]


def test_the_bars_are_the_same_bits_on_every_machine(market: SourceBars) -> None:
    assert {tf: digest(panel) for tf, panel in market.panels.items()} == {
        "1H": "0df1f45ead40aff2",
        "1D": "deba09dafb5151ac",
    }


def test_it_says_that_it_is_synthetic_wherever_it_is_named(market: SourceBars) -> None:
    source: BarSource = SampleMarket()
    assert source.synthetic
    assert all(info.synthetic and "(synthetic)" in info.name for info in market.assets)
    assert all(info.symbol.startswith("S-") for info in market.assets)
    assert not any(set("|,[]") & set(info.symbol) for info in market.assets)


def test_all_twelve_have_daily_bars_and_some_hourly_ones(market: SourceBars) -> None:
    assert market.panels["1D"].assets == SampleMarket().symbols()
    assert list(SampleMarket().symbols()) == sorted(SampleMarket().symbols())
    assert (len(market.panels["1D"].assets), len(market.panels["1H"].assets)) == (12, 5)
    assert market.panels["1D"].ts.max() == close_stamp("2025-12-31")


def test_daily_bars_are_the_resampled_hourly_ones_where_both_exist(market: SourceBars) -> None:
    resampled = resample(market.panels["1H"], timeframe("1D"))
    daily = market.panels["1D"].select(resampled.assets)
    daily = daily.take(daily.ts >= close_stamp("2024-01-01"))
    assert same_bits(daily.with_columns({"gap_bars": resampled["gap_bars"]}), resampled)


def test_it_holds_what_real_markets_hold(market: SourceBars) -> None:
    daily = market.panels["1D"]
    first = {daily.ts[daily.rows_of(asset)][0] for asset in daily.assets}
    last = {asset: daily.ts[daily.rows_of(asset)][-1] for asset in daily.assets}
    assert len(first) >= 8
    assert [a for a, ts in last.items() if ts != close_stamp("2025-12-31")] == ["S-MU"]
    assert {issue.reason.value for issue in market.issues} == {"gap"}


def test_the_assets_share_one_factor(market: SourceBars) -> None:
    closes = {a: market.panels["1D"].frame(a)["close"] for a in ("S-ALPHA", "S-BETA", "S-GAMMA")}
    returns = [close.pct_change().to_numpy()[1:] for close in closes.values()]
    correlation = np.corrcoef(returns)
    assert correlation.min() > 0.5
    assert correlation[0, 1] < 0.99


def test_an_asset_has_the_same_bars_alone_and_among_all(market: SourceBars) -> None:
    alone = SampleMarket().read(["S-DELTA"])
    for name, panel in alone.panels.items():
        assert same_bits(panel, market.panels[name].select(["S-DELTA"]))
    assert list(SampleMarket().read(["S-GAMMA"]).panels) == ["1D"]


def test_an_unknown_asset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="did you mean S-ALPHA"):
        SampleMarket().read(["ALPHA"])
