"""A trigger's id follows from what it does, and what cannot be traded is refused by field."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline_tests.plans.examples import CROSSING, DIP, LEAVE


@pytest.mark.parametrize(
    ("raw", "same"),
    [
        (DIP, dict(reversed(DIP.items()))),
        (DIP, DIP | {"entry": " ( rsi_14<30.0 ) ", "timeframe": "1d", "stop_loss_pct": 5}),
        (DIP, DIP | {"exit_fraction": 1, "params": {}, "strategy": None}),
        (CROSSING, CROSSING | {"strategy": "ema", "params": {"fast": 9, "slow": 21}}),
    ],
)
def test_what_does_the_same_has_the_same_id(raw: dict[str, Any], same: dict[str, Any]) -> None:
    assert Trigger(**raw).id == Trigger(**same).id


def test_what_does_something_else_has_another_id() -> None:
    others = [
        DIP | {"symbol": "S-BETA"},
        DIP | {"timeframe": "4H"},
        DIP | {"category": "reversal"},
        DIP | {"direction": "short"},
        DIP | {"entry": "rsi_14 <= 30"},
        DIP | {"exit": None},
        DIP | {"stop_loss_pct": 5.5},
        CROSSING | {"params": {"fast": 8}},
        LEAVE | {"category": "risk_reduce", "exit_fraction": 0.5},
        LEAVE | {"category": "risk_reduce", "exit_fraction": 0.25},
        *(DIP, CROSSING, LEAVE),
    ]
    assert len({Trigger(**raw).id for raw in others}) == len(others)


def test_an_id_that_was_given_has_to_be_the_one_of_the_content() -> None:
    trigger = Trigger(**DIP)
    assert Trigger(**trigger.model_dump()) == trigger
    with pytest.raises(ValidationError, match="is not that of this trigger"):
        Trigger(**DIP, id="t_1")


def test_a_copy_with_another_field_is_not_taken_for_the_trigger() -> None:
    trigger = Trigger(**DIP)
    changed = trigger.model_copy(update={"stop_loss_pct": 50.0})
    assert Trigger.model_validate(trigger) == trigger
    with pytest.raises(ValidationError, match="is not that of this trigger"):
        Trigger.model_validate(changed)
    assert pickle.loads(pickle.dumps(trigger)) == trigger  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (DIP | {"stop_loss_pct": None}, "stop_loss_pct: every entry needs a stop"),
        (DIP | {"stop_loss_pct": "5"}, "stop_loss_pct\n  Input should be a valid number"),
        (DIP | {"stop_loss_pct": True}, "stop_loss_pct\n  Input should be a valid number"),
        (DIP | {"stop_loss_pct": 100.0}, "stop_loss_pct\n  Input should be less than 100"),
        (DIP | {"category": "hope"}, "category\n  Input should be 'trend_continuation'"),
        (DIP | {"size": 1}, "size\n  Extra inputs are not permitted"),
        (DIP | {"timeframe": "1X"}, "unknown timeframe '1X'"),
        (DIP | {"entry": "rsi_14 < oversold"}, "entry, line 1, column 10: unknown column"),
        (DIP | {"entry": "close > shift(close, -1)"}, "a later bar is the future"),
        (DIP | {"entry": "__import__('os')"}, "unknown function '__import__'"),
        (DIP | {"exit": "close"}, "exit, line 1, column 1: this is a number"),
        (DIP | {"entry": None}, "needs an entry rule, or a strategy"),
        (DIP | {"direction": "both"}, "an entry rule enters one side"),
        (DIP | {"params": {"fast": 9}}, "params: there is no strategy"),
        (DIP | {"exit_fraction": 0.5}, "only a trigger of risk_reduce"),
        (CROSSING | {"entry": "close > 1"}, "its conditions are the entry and the exit"),
        (CROSSING | {"strategy": "astrology"}, "strategy: unknown strategy 'astrology'"),
        (CROSSING | {"params": {"fst": 9}}, "unknown parameter 'fst'"),
        (CROSSING | {"params": {"fast": "9"}}, "params.fast"),
        (LEAVE | {"exit": None}, "exit: a trigger of emergency_exit needs an exit rule"),
        (LEAVE | {"stop_loss_pct": 5.0}, "stop_loss_pct: a trigger of emergency_exit only closes"),
        (LEAVE | {"exit_fraction": 0.5}, "only a trigger of risk_reduce"),
        (LEAVE | {"strategy": "ema_crossover"}, "strategy: a trigger of emergency_exit only"),
    ],
)
def test_what_cannot_be_traded_is_refused_with_the_field(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as error:
        Trigger(**raw)
    assert reason in str(error.value)
