"""Limits that a plan sets to what its triggers may do."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field, StrictStr, model_validator

from backtest_pipeline.plans.content import Bars, Count, Percent, PlanModel

_CLOCK = re.compile(r"(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")


def minutes_of(clock: str) -> int:
    """Minutes since midnight of a time of day, `00:00` to `24:00`.

    Raises:
        ValueError: for a text that is no time of day.

    Examples:
        >>> minutes_of("08:30"), minutes_of("24:00")
        (510, 1440)
    """
    match = _CLOCK.fullmatch(clock)
    if match is None:
        raise ValueError(f"{clock!r:.40} is no time of day; write it as 08:30, up to 24:00")
    return 24 * 60 if match[1] is None else 60 * int(match[1]) + int(match[2])


def _time_of_day(clock: str) -> str:
    minutes_of(clock)
    return clock


Clock = Annotated[StrictStr, AfterValidator(_time_of_day), Field(examples=["08:00"])]
AnyPercent = Annotated[float, Field(strict=True, gt=0, le=10_000)]
"""Percent of the equity; with leverage an exposure may be above 100."""


class RiskLimits(PlanModel):
    """Limits of risk, percent of the equity: 2.0 is 2 %; None is no limit.

    Examples:
        >>> RiskLimits(max_position_risk_pct=1.0, max_daily_loss_pct=3.0).max_daily_loss_pct
        3.0
    """

    max_position_risk_pct: Percent | None = Field(
        default=None, description="most that one entry may lose at its stop, percent of equity"
    )
    max_symbol_exposure_pct: AnyPercent | None = Field(
        default=None, description="largest position in one symbol after an entry, percent of equity"
    )
    max_portfolio_exposure_pct: AnyPercent | None = Field(
        default=None,
        description="largest sum of all positions, long and short, after an entry, percent of "
        "equity",
    )
    max_daily_loss_pct: Percent | None = Field(
        default=None,
        description="loss of a UTC day, percent of the equity at its start, from which on nothing "
        "is entered that day",
    )
    max_daily_risk_budget_pct: Percent | None = Field(
        default=None,
        description="most that all entries of a UTC day may lose at their stops, percent of equity",
    )

    @model_validator(mode="after")
    def _sound(self) -> RiskLimits:
        for least, most in (
            ("max_position_risk_pct", "max_daily_risk_budget_pct"),
            ("max_symbol_exposure_pct", "max_portfolio_exposure_pct"),
        ):
            require_not_above(least, getattr(self, least), most, getattr(self, most))
        return self


class Session(PlanModel):
    """Hours of the UTC day in which positions may be opened.

    Examples:
        >>> Session(start="08:00", end="16:00", max_trades=2).max_trades
        2
    """

    start: Clock = Field(description="first minute, UTC")
    end: Clock = Field(description="minute after the last, UTC, up to 24:00")
    max_trades: Count | None = Field(
        default=None, description="most entries in it on a day; null for no limit"
    )

    @property
    def minutes(self) -> tuple[int, int]:
        """Minutes since midnight of its start and its end."""
        return minutes_of(self.start), minutes_of(self.end)

    @model_validator(mode="after")
    def _sound(self) -> Session:
        first, end = self.minutes
        if end <= first:
            raise ValueError(
                f"end: {self.end} is not after {self.start}; write a session over midnight as two"
            )
        return self


class TradeLimits(PlanModel):
    """Limits of how often and when is traded, as fields of a plan; None is no limit.

    Examples:
        >>> TradeLimits(max_trades_per_day=4, min_hold_bars=2).min_flat_bars
        0
    """

    max_trades_per_day: Count | None = Field(
        default=None, description="most entries of the account on a UTC day"
    )
    max_triggers_per_symbol_per_day: Count | None = Field(
        default=None, description="most entries of a symbol on a UTC day"
    )
    max_trades_per_timeframe_per_day: dict[str, Count] = Field(
        default={}, description="most entries on a UTC day by timeframe, as {'1H': 3}"
    )
    sessions: tuple[Session, ...] = Field(
        default=(), description="hours in which positions may be opened; all where there are none"
    )
    min_hold_bars: Bars = Field(
        default=0, description="bars that a position is held before a signal may close it"
    )
    min_flat_bars: Bars = Field(
        default=0,
        description="bars of a symbol without an entry, from the one that its position closes in",
    )
    cooldown_bars: Bars = Field(
        default=0,
        description="bars without an entry of the same trigger, from the one that its position "
        "closes in",
    )

    @model_validator(mode="after")
    def _sound_limits(self) -> TradeLimits:
        from backtest_pipeline.plans.trigger import known_timeframe

        total = ("max_trades_per_day", self.max_trades_per_day)
        name = "max_triggers_per_symbol_per_day"
        require_not_above(name, self.max_triggers_per_symbol_per_day, *total)
        caps = {
            known_timeframe(tf): cap for tf, cap in self.max_trades_per_timeframe_per_day.items()
        }
        for timeframe, cap in caps.items():
            require_not_above(f"max_trades_per_timeframe_per_day.{timeframe}", cap, *total)
        self._take("max_trades_per_timeframe_per_day", dict(sorted(caps.items())))
        by_start = sorted(self.sessions, key=lambda session: session.minutes)
        for before, after in pairwise(by_start):
            if after.minutes[0] < before.minutes[1]:
                raise ValueError(
                    f"sessions: {after.start}-{after.end} overlaps {before.start}-{before.end}"
                )
        for session in by_start:
            require_not_above(f"max_trades of {session.start}", session.max_trades, *total)
        self._take("sessions", tuple(by_start))
        return self


def require_not_above(least: str, value: float | None, most: str, bound: float | None) -> None:
    """Raises ValueError for two limits of which the first can never be reached."""
    if value is not None and bound is not None and value > bound:
        raise ValueError(
            f"{least}: {value:g} contradicts {most} of {bound:g}, which is reached before; "
            f"lower {least} or raise {most}"
        )
