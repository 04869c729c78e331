"""The closed sets of words that plans are written in."""

from __future__ import annotations

from enum import StrEnum


class Category(StrEnum):
    """What a trigger is for."""

    TREND_CONTINUATION = "trend_continuation"
    REVERSAL = "reversal"
    VOLATILITY_BREAKOUT = "volatility_breakout"
    MEAN_REVERSION = "mean_reversion"
    RISK_REDUCE = "risk_reduce"
    RISK_OFF = "risk_off"
    EMERGENCY_EXIT = "emergency_exit"
    OTHER = "other"

    @property
    def enters(self) -> bool:
        """Whether triggers of it open positions; those of the others only close them.

        Examples:
            >>> Category.REVERSAL.enters, Category.RISK_OFF.enters
            (True, False)
        """
        return self not in (Category.RISK_REDUCE, Category.RISK_OFF, Category.EMERGENCY_EXIT)


class Regime(StrEnum):
    """The state of the market, as a strategist sees it."""

    BULL = "bull"
    BEAR = "bear"
    RANGE = "range"
    HIGH_VOL = "high_vol"
    MIXED = "mixed"


class Stance(StrEnum):
    """How a plan means to trade; under `wait` no position is opened."""

    ACTIVE = "active"
    DEFENSIVE = "defensive"
    WAIT = "wait"


class ReplanReason(StrEnum):
    """Why a plan was made."""

    INITIAL_PLAN = "initial_plan"
    NEW_DAY = "new_day"
    JUDGE_TRIGGERED = "judge_triggered"
    PLAN_EXPIRED = "plan_expired"
    DATA_RESTATED = "data_restated"
    NEW_ASSET = "new_asset"
    MANUAL = "manual"
