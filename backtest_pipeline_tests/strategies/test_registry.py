"""Parameters that make no sense are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import backtest_pipeline.strategies
from backtest_pipeline.market.errors import AmbiguousName, InvalidInput, UnknownName
from backtest_pipeline.strategies.registry import Named, named, strategies, strategy_of

GOOD: dict[str, dict[str, Any]] = {
    "ema_crossover": {"fast": 9, "slow": 21},
    "rsi_mean_revert": {"period": 14, "lower": 30, "upper": 70},
    "atr_breakout": {"lookback": 20, "atr_period": 14, "trail_mult": 2},
    "bollinger_revert": {"period": 20, "width": 2},
    "macd_crossover": {"fast": 12, "slow": 26, "signal": 9},
}


def test_every_file_with_a_strategy_is_found_and_has_its_name() -> None:
    folder = Path(backtest_pipeline.strategies.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if "\nSTRATEGY = " in path.read_text()}
    assert strategies().keys() == files
    assert files >= GOOD.keys()


@pytest.mark.parametrize("name", strategies())
def test_defaults_are_within_their_own_bounds(name: str) -> None:
    strategy = strategies()[name]
    assert strategy.parse(strategy.parse({}).model_dump()) == strategy.parse({})


def test_an_unknown_strategy_names_its_neighbours() -> None:
    with pytest.raises(UnknownName, match="did you mean ema_crossover"):
        strategy_of("ema_cross")


@pytest.mark.parametrize("name", GOOD)
def test_whole_numbers_from_json_are_good_numbers(name: str) -> None:
    params = strategy_of(name).parse(GOOD[name])
    assert {key: getattr(params, key) for key in GOOD[name]} == GOOD[name]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rsi_mean_revert", {"uper": 70}, "unknown parameter 'uper'; did you mean upper"),
        ("rsi_mean_revert", {"oversold": 30, "Lower": 1}, "'oversold'.*'Lower'; did you mean low"),
        ("ema_crossover", {"fast": 21}, r"fast \(21\) must be below slow \(21\)"),
        ("ema_crossover", {"fast": 50}, r"fast \(50\) must be below slow \(21\)"),
        ("ema_crossover", {"fast": 0}, "fast: .*must be at least 1"),
        ("ema_crossover", {"fast": 9.0}, "fast: .*whole number"),
        ("ema_crossover", {"fast": "9"}, "fast: .*whole number"),
        ("ema_crossover", {"fast": True}, "fast: .*whole number"),
        ("ema_crossover", {"fast": None}, "fast: .*whole number"),
        ("ema_crossover", {"cooldown_bars": -1}, "cooldown_bars: "),
        ("ema_crossover", {"cooldown_bars": 2**63}, "cooldown_bars: "),
        ("ema_crossover", {"rsi_min_long": float("nan")}, "rsi_min_long: "),
        ("ema_crossover", {"min_atr_pct": float("inf")}, "min_atr_pct: "),
        ("ema_crossover", {"min_atr_pct": 1.5}, "min_atr_pct: .*must be at most 1"),
        ("rsi_mean_revert", {"lower": 70}, r"lower \(70.*\) must be below upper \(70"),
        ("rsi_mean_revert", {"lower": 0}, "lower: "),
        ("rsi_mean_revert", {"upper": 100}, "upper: "),
        ("rsi_mean_revert", {"period": 1}, "period: "),
        ("rsi_mean_revert", {"percentile_window": 5}, "percentile_window: "),
        ("atr_breakout", {"lookback": 0}, "lookback: "),
        ("atr_breakout", {"trail_mult": 0}, "trail_mult: "),
        ("atr_breakout", {"trail_mult": float("nan")}, "trail_mult: "),
        ("atr_breakout", {"trail_mult": "2"}, "trail_mult: .*number"),
        ("bollinger_revert", {"period": 1}, "period: "),
        ("bollinger_revert", {"width": 0}, "width: "),
        ("macd_crossover", {"fast": 26}, r"fast \(26\) must be below slow \(26\)"),
        ("macd_crossover", {"signal": 1}, "signal: "),
    ],
)
def test_bad_parameters_are_refused_by_name(
    name: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^{name}: .*{message}"):
        strategy_of(name).parse(GOOD[name] | change)


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in GOOD for key in GOOD[name]])
def test_a_parameter_that_is_not_given_has_its_default(name: str, key: str) -> None:
    given = {k: v for k, v in GOOD[name].items() if k != key}
    strategy = strategy_of(name)
    assert strategy.parse(given) == strategy.parse(GOOD[name])


def test_short_names_are_the_shipped_strategies_and_others_are_their_first_word() -> None:
    assert strategy_of("rsi").name == "rsi_mean_revert"
    assert strategy_of("macd").name == "macd_crossover"
    assert named("ema_9_21", ["ema_9_21"]) == Named(preset="ema_9_21")
    assert named("ema", ["ema_9_21", "ema_21_50"]) == Named(strategy="ema_crossover")


def test_a_first_word_that_several_have_is_refused_with_all_of_them() -> None:
    with pytest.raises(AmbiguousName, match=r"macd_crossover \(strategy\), macd_fast \(preset\)"):
        named("macd", ["macd_fast"])


def test_parameters_cannot_be_changed_after_the_fact() -> None:
    params = strategy_of("ema_crossover").parse(GOOD["ema_crossover"])
    with pytest.raises(ValueError, match="frozen"):
        params.fast = 3
