"""Every strategy finds trades on both sides of real markets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.strategies.strategy import conditions_of
from backtest_pipeline_tests.strategies import by_hand
from backtest_pipeline_tests.strategies.presets import REGISTERED


@pytest.fixture(scope="module")
def features(test_data: Path) -> Panel:
    frames: dict[str, pd.DataFrame] = {}
    for symbol in ("BTCUSDT", "XRPUSDT", "SOLUSDT"):
        bars = pd.read_parquet(
            test_data / "binance_daily.parquet", filters=[("symbol", "==", symbol)]
        )
        close, high, low = (bars[name].tolist() for name in ("close", "high", "low"))
        computed = {f"ema_{n}": by_hand.ema(close, n) for n in (9, 21, 50, 200)}
        computed["rsi_14"] = by_hand.rsi(close, 14)
        computed["atr_14"] = by_hand.atr(high, low, close, 14)
        prices = {"open": bars["open"].tolist(), "high": high, "low": low, "close": close}
        frames[symbol] = pd.DataFrame(prices | computed, index=pd.DatetimeIndex(bars["ts"]))
    return Panel.stack(timeframe("1D"), frames, next(iter(frames.values())).columns)


@pytest.mark.parametrize(("strategy", "params"), REGISTERED)
def test_real_markets_give_events_on_both_sides(
    features: Panel, strategy: str, params: dict[str, Any]
) -> None:
    definition = strategy_of(strategy)
    events = conditions_of(definition, features, definition.parse(params))
    for asset in features.assets:
        rows = features.rows_of(asset)
        for name in ("long_entry", "long_exit", "short_entry", "short_exit"):
            assert getattr(events, name)[rows].any(), (asset, name)
