from __future__ import annotations

import pytest

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.strategist.known_strategists import (
    STRATEGISTS,
    open_strategist,
    settings_type,
)
from backtest_pipeline.strategist.llm.llm_strategist import LlmStrategist
from backtest_pipeline.strategist.regime_rules import RegimeRules
from backtest_pipeline_tests.strategist.llm.models import GOOD, scripted


def test_each_name_opens_a_strategist_of_that_name_at_its_defaults() -> None:
    for name in STRATEGISTS:
        strategist = open_strategist(name, {}, model=scripted(GOOD).model)
        assert strategist.name == name
        assert settings_type(name)()


def test_the_configuration_is_typed_and_read_from_json() -> None:
    rules = open_strategist("rules", {"direction": "both", "regimes": {"confirm_bars": 5}})
    assert isinstance(rules, RegimeRules)
    assert rules.settings.regimes.confirm_bars == 5
    llm = open_strategist(
        "llm",
        {"features": ["rsi_7"], "ceilings": {"max_daily_loss_pct": 1.0}},
        model=scripted(GOOD).model,
    )
    assert isinstance(llm, LlmStrategist)
    assert (llm.reads, llm.terms.ceilings.max_daily_loss_pct) == (("rsi_7",), 1.0)


def test_a_configuration_survives_json() -> None:
    for name in STRATEGISTS:
        kind = settings_type(name)
        assert kind.model_validate_json(kind().model_dump_json()) == kind()


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        ("rules", {"stop_loss_pct": 90}, "strategist rules: stop_loss_pct: must be"),
        ("rules", {"regimes": {"confirm_bars": "3"}}, "regimes.confirm_bars"),
        ("llm", {"most_triggers": 1}, "strategist llm: most_triggers"),
        ("llm", {}, "needs a language model"),
    ],
)
def test_what_cannot_be_configured_is_named(name: str, config: dict, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        open_strategist(name, config)
    with pytest.raises(
        UnknownName, match="option of strategist rules 'stop_loss'; did you mean stop_loss_pct"
    ):
        open_strategist("rules", {"stop_loss": 1})
    with pytest.raises(UnknownName, match=r"strategist rules.regimes 'confirm'; .*confirm_bars"):
        open_strategist("rules", {"regimes": {"confirm": 1}})
    with pytest.raises(UnknownName, match="unknown strategist 'rule'; did you mean rules"):
        open_strategist("rule", {})
