"""Rules that see one asset at a time, each its own rows alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.strategies.own.per_asset import per_asset
from backtest_pipeline.strategies.strategy import Params, Strategy, conditions_of

DAY_US = 86_400_000_000


def stacked() -> Panel:
    """Two histories of one asset, as a probe for look-ahead stacks them."""
    days = np.array([1, 2, 3, 4, 1, 2, 3])
    close = np.array([1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 1.0])
    columns = {"close": close, "flag": close > 2}
    return Panel(timeframe("1D"), ("A", "A"), np.array([0, 4, 7]), days * DAY_US, columns)


def strategy(rule: Any) -> Strategy[Params]:
    return Strategy("mine", Params, lambda _: ("close", "flag"), per_asset(rule))


def test_a_rule_sees_each_history_alone() -> None:
    seen = []

    def rule(features: pd.DataFrame, _: Params) -> Mapping[str, Any]:
        assert features.index.is_monotonic_increasing
        assert features.index.is_unique
        seen.append(features)
        return {"long_entry": features["close"].diff() > 0, "long_exit": features["flag"]}

    found = conditions_of(strategy(rule), stacked(), Params())
    assert found.long_entry.tolist() == [False, True, True, False, False, True, False]
    assert found.long_exit.tolist() == [False, False, True, False, False, False, False]
    assert not found.short_entry.any()
    assert [len(one) for one in seen] == [4, 3]
    assert str(seen[0].index[0]) == "1970-01-02 00:00:00+00:00"
    assert dict(seen[0].dtypes.astype(str)) == {"close": "float64", "flag": "bool"}


def test_what_a_rule_writes_to_its_features_stays_its_own() -> None:
    panel = stacked()

    def rule(features: pd.DataFrame, _: Params) -> Mapping[str, Any]:
        assert features["close"].iloc[0] == 1.0
        features.loc[features["flag"], "close"] = 9.0
        features.iloc[0, 0] = 7.0
        features["close"] += 1
        features["own"] = 1.0
        return {"long_entry": features["close"] == 10.0}

    for alone in (panel, panel.windows([slice(0, 4)])):
        before = alone["close"].copy()
        found = conditions_of(strategy(rule), alone, Params())
        assert found.long_entry.tolist() == (before > 2).tolist()
        assert alone["close"].tolist() == before.tolist()
