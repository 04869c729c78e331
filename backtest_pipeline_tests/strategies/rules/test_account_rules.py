"""Stops, cooldown and sizing of a file of rules."""

from __future__ import annotations

from typing import Any

import pytest

from backtest_pipeline.market.errors import InvalidInput, RuleError
from backtest_pipeline.strategies.rules.rule_file import from_toml, rule_hash
from backtest_pipeline.strategies.strategy import Strategy
from backtest_pipeline.trading.sizing import (
    AtrRisk,
    ByExpression,
    EqualWeight,
    FixedFractional,
    Sizing,
    VolatilityScaled,
)
from backtest_pipeline.trading.stops import StopRules

SMALL = b"""
name = "my"
long_entry = "close > ema_21"
[params]
risk = { default = 0.02, min = 0.001, max = 2 }
days = 14
[define]
room = "risk / (atr(days) / close)"
"""


def of(sizing: str, table: str = "sizing") -> Strategy[Any]:
    return from_toml(SMALL + f"[{table}]\n{sizing}".encode(), "my.toml")


@pytest.mark.parametrize(
    ("sizing", "expected"),
    [
        ("fraction = 0.5", FixedFractional(0.5)),
        ('fraction = "10 * risk"', FixedFractional(0.5)),
        ('mode = "fixed"\nfraction = "risk"', FixedFractional(0.05)),
        ('mode = "atr"\nrisk = "risk"\natr_period = "days + 1"', AtrRisk(0.05, 2.0, 15)),
        ('mode = "atr"', AtrRisk()),
        ('mode = "volatility"\ntarget = 0.3\nlookback = "2 * days"', VolatilityScaled(0.3, 28)),
        ('mode = "equal"\nn_assets = 4', EqualWeight(4)),
        ('fraction = "room"', ByExpression("0.05 / (atr_14 / close)")),
        ('fraction = "min(room, 1)"', ByExpression("min((0.05 / (atr_14 / close)), 1)")),
        ('fraction = "rank_pct(close)"', ByExpression("rank_pct(close)")),
    ],
)
def test_a_sizing_follows_from_the_parameters(sizing: str, expected: Sizing) -> None:
    strategy = of(sizing)
    assert strategy.sizing is not None
    assert strategy.sizing(strategy.parse({"risk": 0.05})) == expected


def test_without_a_sizing_there_is_none() -> None:
    assert from_toml(SMALL, "my.toml").sizing is None


def test_what_a_sizing_reads_is_read_by_the_strategy() -> None:
    strategy = of('fraction = "room * highest(high, 50) / high"')
    params = strategy.parse({"days": 40})
    assert {"atr_40", "high"} <= set(strategy.columns(params))
    lookback = strategy.lookback(params)
    assert lookback is not None
    assert lookback.rows == 50


def test_a_sizing_changes_the_version() -> None:
    texts = ["fraction = 0.5", "fraction = 0.6", 'fraction = "room"', 'mode = "atr"']
    hashes = {rule_hash(SMALL + f"[sizing]\n{text}".encode(), "my.toml") for text in texts}
    assert len({*hashes, rule_hash(SMALL, "my.toml")}) == 5
    spaced = b"[sizing]\nfraction = 'risk/(atr(days)/close)' # the same"
    plain = b'[sizing]\nfraction = "room"'
    assert rule_hash(SMALL + spaced, "my.toml") == rule_hash(SMALL + plain, "my.toml")


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        ('stop_loss = "room"', StopRules(stop_loss="0.05 / (atr_14 / close)")),
        ('trailing = "min(risk, 1)"', StopRules(trailing=0.05)),
        (
            'take_profit = 0.1\ntrailing_atr = "3 if close > open else risk"\natr_period = "days"',
            StopRules(take_profit=0.1, trailing_atr="3 if (open < close) else 0.05", atr_period=14),
        ),
    ],
)
def test_stops_follow_from_the_parameters(stops: str, expected: StopRules) -> None:
    strategy = of(stops, "stops")
    assert strategy.stops(strategy.parse({"risk": 0.05})) == expected


def test_what_a_stop_reads_is_read_by_the_strategy_and_changes_its_version() -> None:
    strategy = of('trailing = "room * highest(high, 50) / high"', "stops")
    params = strategy.parse({"days": 40})
    assert {"atr_40", "high"} <= set(strategy.columns(params))
    lookback = strategy.lookback(params)
    assert lookback is not None
    assert lookback.rows == 50
    texts = [b"", b"[stops]\ntrailing = 'room'", b"[stops]\nstop_loss = 'room'"]
    assert len({rule_hash(SMALL + text, "my.toml") for text in texts}) == 3


@pytest.mark.parametrize(
    ("stops", "message"),
    [
        ('max_bars = "close"', "stops.max_bars: this is one number for a whole run"),
        ('trailing = "close > 3"', "my.toml:10: stops.trailing: this is a condition"),
        ('stop_loss = "shift(close, -1) / close"', "a later bar is the future"),
        ('stop_loss = "cloes / 3"', "stops.stop_loss, line 1, column 1: unknown column"),
        ('trailing_atr = "-risk"', "stops: trailing_atr must be above 0"),
    ],
)
def test_a_stop_that_cannot_be_read_is_refused(stops: str, message: str) -> None:
    with pytest.raises(RuleError) as refused:
        of(stops, "stops")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("sizing", "message"),
    [
        ("", "my.toml:9: sizing: there is no fraction"),
        ('mode = "atrr"', "my.toml:10: sizing.mode: unknown sizing 'atrr'; did you mean atr?"),
        ("mode = 3", "sizing.mode: unknown sizing '3'"),
        ("mode = [3]", "sizing.mode: unknown sizing '[3]'"),
        ('fraction = "log(risk - 9)"', "sizing: fraction must be above 0"),
        ('mode = "expression"', "sizing.mode: unknown sizing 'expression'"),
        ("fractoin = 1", "my.toml:10: sizing.fractoin: unknown key 'fractoin'"),
        ('fraction = "close > 3"', "sizing.fraction: this is a condition and must be a number"),
        ('fraction = "shift(close, -1)"', "a later bar is the future"),
        ('mode = "atr"\nrisk = "atr_14"', "sizing.risk: this is one number for a whole run"),
        ("fraction = 0", "the defaults are not allowed: sizing: fraction must be above 0"),
        ('mode = "atr"\nrisk = 2', "sizing: risk must be above 0 and at most 1"),
        ('mode = "atr"\natr_period = 2.5', "sizing: atr_period must be a whole number"),
    ],
)
def test_a_sizing_that_cannot_be_read_is_refused(sizing: str, message: str) -> None:
    with pytest.raises(RuleError) as refused:
        of(sizing)
    assert message in str(refused.value)


def test_parameters_with_which_a_sizing_is_none_are_refused() -> None:
    strategy = of('mode = "atr"\nrisk = "risk"')
    with pytest.raises(InvalidInput, match="sizing: risk must be above 0 and at most 1"):
        strategy.parse({"risk": 1.5})
