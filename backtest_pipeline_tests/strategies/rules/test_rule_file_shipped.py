"""The shipped strategies as rules, as docs/rules.md has them: the same conditions to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.features import build_features, with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.strategies.registry import strategies, strategy_of
from backtest_pipeline.strategies.rules import from_toml
from backtest_pipeline.strategies.rules.ranks import with_ranks
from backtest_pipeline.strategies.strategy import conditions_of
from backtest_pipeline_tests.market.features.panels import random_bars, with_holes
from backtest_pipeline_tests.strategies.rules.documented import BY_NAME

RULES = {name: from_toml(text.encode(), "rules.md") for name, text in BY_NAME.items()}
# Parameters of a shipped strategy, and what its rules call those that have another name there.
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("ema_crossover", {}, {}),
    ("ema_crossover", {"rsi_min_long": 55.0}, {"strong": True, "rsi_min_long": 55.0}),
    ("ema_crossover", {"rsi_max_short": 45.0}, {"weak": True, "rsi_max_short": 45.0}),
    ("ema_crossover", {"min_atr_pct": 0.03}, {"lively": True, "min_atr_pct": 0.03}),
    (
        "ema_crossover",
        {"rsi_min_long": 55.0, "rsi_max_short": 45.0, "min_atr_pct": 0.03},
        {"strong": True, "weak": True, "lively": True}
        | {"rsi_min_long": 55.0, "rsi_max_short": 45.0, "min_atr_pct": 0.03},
    ),
    ("rsi_mean_revert", {}, {}),
    (
        "rsi_mean_revert",
        {"percentile_window": 100, "lower": 20, "upper": 80},
        {"percentile": True, "window": 100, "lower": 20, "upper": 80},
    ),
    ("atr_breakout", {}, {}),
    ("bollinger_revert", {}, {}),
    ("macd_crossover", {}, {}),
]


def require_equal(
    panel: Panel, name: str, params: dict[str, Any], as_rules: dict[str, Any] | None = None
) -> int:
    """Fails unless both give the same bits; how many conditions hold."""
    shipped, rules = strategy_of(name), RULES[f"my_{name}"]
    one, other = shipped.parse(params), rules.parse(params if as_rules is None else as_rules)
    assert set(rules.columns(other)) == set(shipped.columns(one))
    known = with_indicators(panel, shipped.columns(one))
    expected, found = conditions_of(shipped, known, one), conditions_of(rules, known, other)
    for rule, column in vars(expected).items():
        assert getattr(found, rule).tobytes() == column.tobytes(), rule
    assert rules.stops(other) == shipped.stops(one)
    assert rules.cooldown(other) == shipped.cooldown(one)
    return int(sum(column.sum() for column in vars(expected).values()))


def test_every_shipped_strategy_is_written_as_rules() -> None:
    assert {f"my_{name}" for name in strategies()} <= RULES.keys()
    assert {name for name, _, _ in CASES} == strategies().keys()


@pytest.fixture(scope="module")
def random_panel() -> Panel:
    return build_features(random_bars([0, 1, 30, 500, 700], seed=9))


@pytest.mark.parametrize(("name", "params", "as_rules"), CASES)
def test_rules_give_the_conditions_of_the_shipped_strategy(
    random_panel: Panel, name: str, params: dict[str, Any], as_rules: dict[str, Any]
) -> None:
    assert require_equal(random_panel, name, params, as_rules) > 0
    holes = with_holes(random_panel, seed=1, share=0.01)
    assert require_equal(holes, name, params, as_rules) > 0


@pytest.mark.parametrize(("name", "params", "as_rules"), CASES)
def test_so_they_do_on_real_markets(
    test_data: Path, name: str, params: dict[str, Any], as_rules: dict[str, Any]
) -> None:
    symbols = ("BTCUSDT", "XRPUSDT", "SOLUSDT")
    read = pd.read_parquet(test_data / "binance_daily.parquet", filters=[("symbol", "in", symbols)])
    frames = {
        str(symbol): bars.set_index(pd.DatetimeIndex(bars["ts"])).sort_index()
        for symbol, bars in read.groupby("symbol")
    }
    panel = build_features(Panel.stack(timeframe("1D"), frames))
    assert require_equal(panel, name, params, as_rules) > 100


@given(
    seed=st.integers(0, 10_000),
    fast=st.integers(2, 12),
    more=st.integers(1, 30),
    width=st.floats(0.1, 4),
)
def test_so_they_do_at_any_periods(seed: int, fast: int, more: int, width: float) -> None:
    panel = with_holes(random_bars([0, fast, 90, 130], seed=seed), seed, 0.005)
    slow = fast + more
    require_equal(panel, "macd_crossover", {"fast": fast, "slow": slow, "signal": more + 1})
    require_equal(panel, "ema_crossover", {"fast": fast, "slow": slow, "cooldown_bars": more})
    require_equal(panel, "bollinger_revert", {"period": fast, "width": width})
    require_equal(
        panel, "rsi_mean_revert", {"period": fast, "lower": 50 - more, "upper": 50 + width}
    )
    require_equal(
        panel, "atr_breakout", {"lookback": more, "trail_mult": width, "atr_period": fast}
    )


def test_nothing_is_read_beside_the_columns_that_are_named(random_panel: Panel) -> None:
    for rules in RULES.values():
        params = rules.parse({})
        names = rules.columns(params)
        known = with_indicators(with_ranks(random_panel, names), names)
        named = {name: known[name] for name in rules.columns(params)}
        alone = Panel(known.timeframe, known.assets, known.offsets, known.ts, named)
        found, expected = conditions_of(rules, alone, params), conditions_of(rules, known, params)
        assert np.array_equal(found.long_entry, expected.long_entry)
