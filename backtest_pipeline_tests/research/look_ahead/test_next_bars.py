"""A size or a stop must not follow from a later bar, no more than a signal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backtest_pipeline.market.errors import LooksAhead
from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.look_ahead.look_ahead import require_no_look_ahead
from backtest_pipeline.strategies.rules import from_toml
from backtest_pipeline.strategies.rules.operators import OPERATORS, VALUE, Way
from backtest_pipeline_tests.simulation.markets import random_panel

RULES = b"""
name = "sized"
long_entry = "close > ema_21"
long_exit = "close < ema_21"
[params]
risk = 0.02
[sizing]
fraction = "risk / abs(high / low - 1)"
"""
STOPPED = RULES.replace(b"[sizing]\nfraction", b"[stops]\ntrailing")


@pytest.fixture(scope="module")
def panel() -> Panel:
    bars = random_panel(np.random.default_rng(7), [400])
    return build_features(bars.with_columns({"volume": np.ones(len(bars))}))


@pytest.mark.parametrize("rules", [RULES, STOPPED])
def test_a_number_of_its_own_bar_passes(panel: Panel, rules: bytes) -> None:
    strategy = from_toml(rules, "sized.toml")
    require_no_look_ahead(panel, strategy, [{}, {"risk": 0.05}], panel.assets[0])


@pytest.mark.parametrize("rules", [RULES, STOPPED])
def test_a_number_of_the_next_bar_is_refused(
    panel: Panel, monkeypatch: pytest.MonkeyPatch, rules: bytes
) -> None:
    """No function of the language looks ahead, so one that does is planted in it."""

    def next_one(_offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.append(values[1:], np.nan)

    peeking = replace(OPERATORS["abs"], ways={VALUE: Way(((0, VALUE),), next_one)})
    monkeypatch.setitem(OPERATORS, "abs", peeking)
    strategy = from_toml(rules, "sized.toml")
    with pytest.raises(LooksAhead, match="signals, stops or sizes up to that bar depend"):
        require_no_look_ahead(panel, strategy, [{}, {"risk": 0.05}], panel.assets[0])
