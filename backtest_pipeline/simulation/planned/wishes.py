"""What triggers wish for, bar by bar, where a plan that holds them is in force.

Nothing here knows what is held.
"""

from __future__ import annotations

import numpy as np

from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.plans.vocabulary import Category, Stance
from backtest_pipeline.simulation.engine import (
    ALLOWED,
    CATEGORY_NOT_ALLOWED,
    EMERGENCY_NOT_ALLOWED,
    EMERGENCY_UNDEFINED,
    PLAN_EXPIRED,
    RULE_FAILED,
    SIDE_NOT_ALLOWED,
    STANCE_WAITS,
    SYMBOL_NOT_ALLOWED,
    WISH,
)
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.simulation.planned.plans_on_panel import PlansOnPanel, microseconds
from backtest_pipeline.simulation.planned.trigger_events import TriggerEvents
from backtest_pipeline.trading.direction import Direction

_LONG, _SHORT = (1, LONG_ENTRY, LONG_EXIT), (-1, SHORT_ENTRY, SHORT_EXIT)
_SIDES = {Direction.LONG: (_LONG,), Direction.SHORT: (_SHORT,), Direction.BOTH: (_LONG, _SHORT)}
_NAMES = {1: Direction.LONG, -1: Direction.SHORT}
_HELD_SIDE = {Direction.LONG: 1, Direction.SHORT: -1, Direction.BOTH: 0}


class _Allowed:
    """What a plan lets its triggers do."""

    def __init__(self, plan: Plan) -> None:
        symbols, categories = plan.allowed_symbols, plan.allowed_categories
        self._waits = plan.stance is Stance.WAIT
        self._symbols = None if symbols is None else frozenset(symbols)
        self._categories = frozenset(Category if categories is None else categories)
        sides = frozenset(plan.allowed_directions or Direction)
        self._sides = {
            side for side, name in _NAMES.items() if name in sides or Direction.BOTH in sides
        }

    def acts(self, trigger: Trigger) -> bool:
        """Whether the category of a trigger may act."""
        return trigger.category in self._categories

    def enters(self, trigger: Trigger, side: int) -> int:
        """ALLOWED, or why a trigger may not enter a side."""
        if self._waits:
            return STANCE_WAITS
        if self._symbols is not None and trigger.symbol not in self._symbols:
            return SYMBOL_NOT_ALLOWED
        if side not in self._sides:
            return SIDE_NOT_ALLOWED
        return ALLOWED if self.acts(trigger) else CATEGORY_NOT_ALLOWED


class Wishes:
    """Wishes of all triggers, gathered one trigger after the other.

    Args:
        on_panel: the plans.
        delay: bars by which every wish is late.
    """

    def __init__(self, on_panel: PlansOnPanel, delay: int) -> None:
        self._on, self._delay = on_panel, delay
        self._allowed = [_Allowed(plan) for plan in on_panel.plans]
        self._ends = np.array([microseconds(plan.valid_until) for plan in on_panel.plans], np.int64)
        self._parts: list[np.ndarray] = []
        self._ranks: list[np.ndarray] = []

    def allowed_by(self, number: int) -> list[_Allowed]:
        """What each plan that holds a trigger allows."""
        return [self._allowed[position] for position in self._on.held[number][:, 0].tolist()]

    def first_bars(self, number: int) -> np.ndarray:
        """The first bar of its symbol at which each plan that holds a trigger is in force."""
        in_force = self._on.plan_of[self._rows(number)]
        at = np.searchsorted(in_force, self._on.held[number][:, 0])
        return np.unique(at[at < len(in_force)])

    def add(
        self,
        number: int,
        at: np.ndarray,
        side: int,
        allowed: np.ndarray,
        cause: np.ndarray,
        void: np.ndarray,
        *,
        until_end: bool,
    ) -> None:
        """Add the wishes of a trigger, where a plan that holds it is in force.

        Args:
            number: the trigger.
            at: int64 `(n,)`, bars of its symbol.
            side: as WISH has it.
            allowed: int8, for each plan that holds it whether it allows the wish.
            cause: int8 `(n,)`, ALLOWED, or why it is not known whether it is one. Such a wish of a
                plan that does not allow it is none.
            void: bool `(n,)`, as WISH has it.
            until_end: whether the plan's end is one of the wish.
        """
        rows, held = self._rows(number), self._on.held[number]
        row = rows.start + at
        plan = self._on.plan_of[row]
        position = np.minimum(np.searchsorted(held[:, 0], plan), len(held) - 1)
        by_plan = allowed[position]
        if until_end:
            by_plan = np.where(
                self._on.panel.ts[row] >= self._ends[plan], np.int8(PLAN_EXPIRED), by_plan
            )
        keep = (held[position, 0] == plan) & (row + self._delay < rows.stop)
        keep &= (by_plan == ALLOWED) | ((cause == ALLOWED) & ~void)
        part = np.zeros(np.count_nonzero(keep), WISH)
        part["trigger"], part["side"] = number, side
        part["plan"], part["row"] = plan[keep], row[keep] + self._delay
        part["cause"] = np.where(by_plan == ALLOWED, cause, by_plan)[keep]
        part["void"] = void[keep]
        self._parts.append(part)
        self._ranks.append(held[position, 1][keep])

    def by_line(self, line_of: np.ndarray, n_lines: int) -> tuple[np.ndarray, np.ndarray]:
        """All wishes, WISH by line, plan and rank, and the bounds of each line, int64."""
        wishes = np.concatenate([np.zeros(0, WISH), *self._parts])
        ranks = np.concatenate([np.zeros(0, np.int64), *self._ranks])
        line = line_of[wishes["row"]]
        in_line = wishes["plan"] * (int(ranks.max(initial=0)) + 1) + ranks
        width = int(in_line.max(initial=0)) + 1
        order = np.argsort(line * width + in_line, kind="stable")
        bounds = np.searchsorted(line[order], np.arange(n_lines + 1))
        return wishes[order], bounds

    def _rows(self, number: int) -> slice:
        return self._on.panel.rows_of(self._on.triggers[number].symbol)


def add_entries(
    wishes: Wishes, number: int, trigger: Trigger, found: TriggerEvents, direction: Direction
) -> None:
    """Add where a trigger would enter, or where that is not known.

    One that cannot be evaluated wishes once in each plan, at its first bar, and is blocked there.
    """
    plans, failed = wishes.allowed_by(number), bool(found.failure)
    told = np.zeros(len(plans), bool)  # that it failed
    for side, entry, exit_ in _SIDES[trigger.direction]:
        if (side, entry, exit_) not in _SIDES[direction]:
            continue
        allowed = np.array([plan.enters(trigger, side) for plan in plans], np.int8)
        hit = (found.bits & entry) > 0
        at = wishes.first_bars(number) if failed else np.flatnonzero(hit | (found.unknown > 0))
        cause = np.where(hit[at], np.int8(ALLOWED), found.unknown[at])
        if failed:
            cause = np.full(len(at), RULE_FAILED, np.int8)
            allowed, told = np.where(told, np.int8(SIDE_NOT_ALLOWED), allowed), allowed == ALLOWED
        void = hit[at] & ((found.bits[at] & exit_) > 0)
        wishes.add(number, at, side, allowed, cause, void, until_end=True)


def add_exits(wishes: Wishes, number: int, trigger: Trigger, found: TriggerEvents) -> None:
    """Add where a trigger that only closes would close, or where that is not known.

    An emergency exit that cannot be is a veto; one that cannot be evaluated is unknown at each bar.
    """
    urgent = trigger.category is Category.EMERGENCY_EXIT
    hit = (found.bits & (LONG_EXIT | SHORT_EXIT)) > 0
    if trigger.exit_fraction < 1.0:  # else a condition that stays true would close it in pieces
        hit &= np.concatenate(([True], ~hit[:-1]))[: len(hit)]
    not_allowed = EMERGENCY_NOT_ALLOWED if urgent else CATEGORY_NOT_ALLOWED
    allowed = np.array(
        [ALLOWED if plan.acts(trigger) else not_allowed for plan in wishes.allowed_by(number)],
        np.int8,
    )
    unknown = np.full(len(hit), RULE_FAILED, np.int8) if found.failure else found.unknown
    if urgent:
        unknown = np.where(unknown > 0, np.int8(EMERGENCY_UNDEFINED), np.int8(0))
    at = np.flatnonzero(hit | (unknown > 0))
    cause = np.where(hit[at], np.int8(ALLOWED), unknown[at])
    void = np.zeros(len(at), bool)
    side = _HELD_SIDE[trigger.direction]
    wishes.add(number, at, side, allowed, cause, void, until_end=False)
