"""The budget of a UTC day: what a call can use at most is taken before it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Protocol

from backtest_pipeline.strategist.proposal import NOTHING_USED, ModelUse

Settle = Callable[[ModelUse], None]
"""Puts what a call used in the place of the most that it could use."""


@dataclass(frozen=True)
class DayLimits:
    """What all calls of a UTC day may use together."""

    tokens: int
    cost_usd: float

    def allow(self, used: ModelUse, call: ModelUse) -> bool:
        """Whether a call fits beside what is used.

        Examples:
            >>> DayLimits(1000, 5.0).allow(ModelUse(1, 600, 200), ModelUse(1, 200, 0))
            True
        """
        return (
            used.tokens + call.tokens <= self.tokens
            and used.cost_usd + call.cost_usd <= self.cost_usd
        )


@dataclass(frozen=True)
class Reservation:
    """Whether a call may be made.

    Attributes:
        used: what was used and reserved today before it.
        settle: to be called once with what it used; None where it may not be made. A call that is
            never settled, as of a process that was killed, counts as the most that it could use.
    """

    used: ModelUse
    settle: Settle | None


class DayBudget(Protocol):
    """What language models use of a day, counted for whoever shares it."""

    def reserve(self, model: str, most: ModelUse, limits: DayLimits) -> Reservation:
        """Count the most that a call can use, if that fits into what is left of today."""
        ...


class OwnBudget:
    """The budget of whoever holds it: it knows of no other process.

    Args:
        used: today before.

    Examples:
        >>> budget = OwnBudget()
        >>> first = budget.reserve("openai:m", ModelUse(1, 600, 300), DayLimits(1000, 5.0))
        >>> budget.reserve("openai:m", ModelUse(1, 600, 300), DayLimits(1000, 5.0)).settle is None
        True
        >>> first.settle(ModelUse(1, 50, 50))
        >>> budget.reserve("openai:m", ModelUse(1, 600, 300), DayLimits(1000, 5.0)).used.tokens
        100
    """

    def __init__(self, used: ModelUse = NOTHING_USED) -> None:
        self._day, self._used = _today(), used

    def reserve(self, model: str, most: ModelUse, limits: DayLimits) -> Reservation:
        """Count a call of this model; see `DayBudget.reserve`."""
        day = _today()
        if day != self._day:
            self._day, self._used = day, NOTHING_USED
        used = self._used
        if not limits.allow(used, most):
            return Reservation(used, None)
        self._used += most

        def settle(use: ModelUse) -> None:
            if day == self._day:
                self._used += use - most

        return Reservation(used, settle)


def _today() -> date:
    return datetime.now(UTC).date()
