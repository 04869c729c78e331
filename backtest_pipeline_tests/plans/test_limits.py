"""Limits of which one can never be reached are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from backtest_pipeline.plans.limits import RiskLimits, TradeLimits


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (
            {"max_position_risk_pct": 3.0, "max_daily_risk_budget_pct": 2.0},
            "max_position_risk_pct: 3 contradicts max_daily_risk_budget_pct of 2",
        ),
        (
            {"max_symbol_exposure_pct": 60.0, "max_portfolio_exposure_pct": 50.0},
            "max_symbol_exposure_pct: 60 contradicts max_portfolio_exposure_pct of 50",
        ),
        ({"max_daily_loss_pct": -2.0}, "max_daily_loss_pct\n  Input should be greater than 0"),
        ({"max_daily_loss_pct": 0.0}, "max_daily_loss_pct\n  Input should be greater than 0"),
        ({"max_daily_loss_pct": "2"}, "max_daily_loss_pct\n  Input should be a valid number"),
        ({"max_loss": 2.0}, "max_loss\n  Extra inputs are not permitted"),
    ],
)
def test_limits_of_risk_that_contradict_are_refused(limits: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as error:
        RiskLimits(**limits)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (
            {"max_triggers_per_symbol_per_day": 4, "max_trades_per_day": 3},
            "max_triggers_per_symbol_per_day: 4 contradicts max_trades_per_day of 3",
        ),
        (
            {"max_trades_per_timeframe_per_day": {"1h": 4}, "max_trades_per_day": 3},
            "max_trades_per_timeframe_per_day.1H: 4 contradicts",
        ),
        ({"max_trades_per_timeframe_per_day": {"1X": 4}}, "unknown timeframe '1X'"),
        ({"sessions": [{"start": "9:00", "end": "16:00"}]}, "'9:00' is no time of day"),
        ({"sessions": [{"start": "16:00", "end": "08:00"}]}, "end: 08:00 is not after 16:00"),
        (
            {"sessions": [{"start": "08:00", "end": "16:00"}, {"start": "15:59", "end": "24:00"}]},
            "sessions: 15:59-24:00 overlaps 08:00-16:00",
        ),
        (
            {
                "sessions": [{"start": "08:00", "end": "16:00", "max_trades": 4}],
                "max_trades_per_day": 3,
            },
            "max_trades of 08:00: 4 contradicts max_trades_per_day of 3",
        ),
        ({"min_hold_bars": -1}, "min_hold_bars\n  Input should be greater than or equal to 0"),
        ({"cooldown_bars": 1.5}, "cooldown_bars\n  Input should be a valid integer"),
    ],
)
def test_limits_of_trades_that_contradict_are_refused(limits: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as error:
        TradeLimits(**limits)
    assert reason in str(error.value)


def test_sessions_and_timeframes_have_one_order_and_one_spelling() -> None:
    evening = {"start": "16:00", "end": "24:00"}
    morning = {"start": "08:00", "end": "16:00"}
    given: dict[str, Any] = {
        "sessions": [evening, morning],
        "max_trades_per_timeframe_per_day": {"4h": 1, "1d": 2},
    }
    limits = TradeLimits(**given)
    assert [session.minutes for session in limits.sessions] == [(480, 960), (960, 1440)]
    assert limits.max_trades_per_timeframe_per_day == {"1D": 2, "4H": 1}
