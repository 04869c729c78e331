"""From plans to the arrays that an account follows: what their triggers wish for, bar by bar.

A trigger wishes while a plan that holds it is in force: at the closes from the plan's
`effective_ts` on, before the next plan's. Nothing here knows what is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.plans.vocabulary import Category, Stance
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.engine import (
    ALLOWED,
    CATEGORY_NOT_ALLOWED,
    DAY_BOOK,
    EMERGENCY_NOT_ALLOWED,
    EMERGENCY_UNDEFINED,
    ENTERS,
    LEAVES,
    LEAVES_AT_ONCE,
    LIMITS,
    NEVER,
    ORDER,
    PLAN_EXPIRED,
    REDUCES,
    RULE_FAILED,
    SESSION,
    SIDE_NOT_ALLOWED,
    STANCE_WAITS,
    SYMBOL_NOT_ALLOWED,
    TRIGGER,
    WISH,
    Followed,
)
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT
from backtest_pipeline.simulation.planned.trigger_events import TriggerEvents
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.trading.direction import Direction
from backtest_pipeline.trading.sizing import Sizing

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_LIMIT = 2**62
_LONG, _SHORT = (1, LONG_ENTRY, LONG_EXIT), (-1, SHORT_ENTRY, SHORT_EXIT)
_SIDES = {Direction.LONG: (_LONG,), Direction.SHORT: (_SHORT,), Direction.BOTH: (_LONG, _SHORT)}
_HELD_SIDE = {Direction.LONG: 1, Direction.SHORT: -1, Direction.BOTH: 0}
_KINDS = {
    Category.RISK_REDUCE: REDUCES,
    Category.RISK_OFF: LEAVES,
    Category.EMERGENCY_EXIT: LEAVES_AT_ONCE,
}


@dataclass(frozen=True)
class PlansOnPanel:
    """Plans in their order, and those of their triggers that trade on a panel.

    Attributes:
        panel: the bars.
        plans: the plans, each replacing the one before.
        triggers: triggers of the panel's symbols and timeframe, each once.
        held: for each of them the positions of the plans that hold it, ascending, and its rank in
            each, int64 `(n_plans, 2)`.
        plan_of: int64 `(n_rows,)`, the plan in force at each close, also past its `valid_until`; -1
            before the first.
    """

    panel: Panel
    plans: tuple[Plan, ...]
    triggers: tuple[Trigger, ...]
    held: tuple[np.ndarray, ...]
    plan_of: np.ndarray

    @staticmethod
    def of(panel: Panel, plans: Sequence[Plan]) -> PlansOnPanel:
        """Plans that are sorted already on a panel."""
        symbols, timeframe = set(panel.assets), panel.timeframe.name
        triggers: dict[str, Trigger] = {}
        held: dict[str, list[tuple[int, int]]] = {}
        for position, plan in enumerate(plans):
            for rank, trigger in enumerate(plan.triggers):
                if trigger.symbol in symbols and trigger.timeframe == timeframe:
                    triggers.setdefault(trigger.id, trigger)
                    held.setdefault(trigger.id, []).append((position, rank))
        return PlansOnPanel(
            panel,
            tuple(plans),
            tuple(triggers.values()),
            tuple(np.array(held[name], np.int64) for name in triggers),
            plan_in_force(panel.ts, plans),
        )


def plan_in_force(ts: np.ndarray, plans: Sequence[Plan]) -> np.ndarray:
    """Position of the plan in force at each stamp, int64, also past its end; -1 before the first.

    Args:
        ts: int64, microseconds since 1970 UTC.
        plans: plans by `effective_ts`.
    """
    starts = np.array([_us(plan.effective_ts) for plan in plans], np.int64)
    return np.searchsorted(starts, ts, side="right") - 1


def followed_plans(
    on_panel: PlansOnPanel,
    events: Sequence[TriggerEvents],
    config: SimulationConfig,
    ts: np.ndarray,
    line_of: np.ndarray,
    members: np.ndarray,
    fractions: np.ndarray,
    sizings: Mapping[Sizing, int],
) -> Followed:
    """The plans as an account follows them.

    Args:
        on_panel: the plans.
        events: those of its triggers.
        config: sides that may be traded, and by how many bars every wish is late.
        ts: int64 `(n_lines,)`, stamps of the account's lines.
        line_of: int64 `(n_rows,)`, the line of each row.
        members: positions among the assets of the account's members.
        fractions: float64 `(n_sizings, n_rows)`, of the equity for an entry at each open.
        sizings: which of them is of each sizing.
    """
    panel, plans = on_panel.panel, on_panel.plans
    entries, exits = _Wishes(on_panel, config.delay_bars), _Wishes(on_panel, config.delay_bars)
    for number, (trigger, found) in enumerate(zip(on_panel.triggers, events, strict=True)):
        if trigger.category.enters:
            _wish_entries(entries, number, trigger, found, config.direction)
        else:
            _wish_exits(exits, number, trigger, found)
    limits, sessions = _limits(plans, panel.timeframe.name, sizings)
    member_of = np.empty(len(members), np.int64)
    member_of[members] = np.arange(len(members))
    orders = np.zeros(len(members), ORDER)
    orders["end"] = panel.offsets[1:][members]
    orders["day"] = -1
    book = np.zeros(1, DAY_BOOK)
    book["day"], book["equity"] = -1, config.initial_cash
    triggers, bits = _triggers(on_panel, events, member_of, config.delay_bars)
    wanted, wanted_bounds = entries.by_line(line_of, len(ts))
    left, left_bounds = exits.by_line(line_of, len(ts))
    return Followed(
        ts=ts,
        entries=wanted,
        entry_bounds=wanted_bounds,
        exits=left,
        exit_bounds=left_bounds,
        plan_of=np.maximum(plan_in_force(ts, plans), 0),
        triggers=triggers,
        bits=bits,
        limits=limits,
        sessions=sessions,
        fractions=fractions,
        orders=orders,
        book=book,
        minutes=np.zeros(len(wanted) + 1, np.int64),
        queue=np.zeros(len(members), np.int64),
    )


class _Wishes:
    """Wishes of all triggers, gathered one trigger after the other.

    Args:
        on_panel: the plans.
        delay: bars by which every wish is late.
    """

    def __init__(self, on_panel: PlansOnPanel, delay: int) -> None:
        self._on, self._delay = on_panel, delay
        self._ends = np.array([_us(plan.valid_until) for plan in on_panel.plans], np.int64)
        self._parts: list[np.ndarray] = []
        self._ranks: list[np.ndarray] = []

    def plans_of(self, number: int) -> list[Plan]:
        """The plans that hold a trigger."""
        return [self._on.plans[position] for position in self._on.held[number][:, 0].tolist()]

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


def _wish_entries(
    wishes: _Wishes, number: int, trigger: Trigger, found: TriggerEvents, direction: Direction
) -> None:
    """Add where a trigger would enter, or where that is not known.

    One that cannot be evaluated wishes once in each plan, at its first bar, and is blocked there.
    """
    plans, failed = wishes.plans_of(number), bool(found.failure)
    for side, entry, exit_ in _SIDES[trigger.direction]:
        if (side, entry, exit_) not in _SIDES[direction]:
            continue
        allowed = np.array([_allows_entry(plan, trigger, side) for plan in plans], np.int8)
        hit = (found.bits & entry) > 0
        at = wishes.first_bars(number) if failed else np.flatnonzero(hit | (found.unknown > 0))
        cause = np.where(hit[at], np.int8(ALLOWED), found.unknown[at])
        if failed:
            cause = np.full(len(at), RULE_FAILED, np.int8)
        void = hit[at] & ((found.bits[at] & exit_) > 0)
        wishes.add(number, at, side, allowed, cause, void, until_end=True)
        if failed:
            return


def _wish_exits(wishes: _Wishes, number: int, trigger: Trigger, found: TriggerEvents) -> None:
    """Add where a trigger that only closes would close, or where that is not known.

    An emergency exit that cannot be is a veto; one that cannot be evaluated is unknown at each bar.
    """
    urgent = trigger.category is Category.EMERGENCY_EXIT
    hit = (found.bits & (LONG_EXIT | SHORT_EXIT)) > 0
    if trigger.exit_fraction < 1.0:  # else a condition that stays true would close it in pieces
        hit &= np.concatenate(([True], ~hit[:-1]))[: len(hit)]
    not_allowed = EMERGENCY_NOT_ALLOWED if urgent else CATEGORY_NOT_ALLOWED
    allowed = np.array(
        [ALLOWED if _allows(plan, trigger) else not_allowed for plan in wishes.plans_of(number)],
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


def _allows(plan: Plan, trigger: Trigger) -> bool:
    """Whether a plan lets the category of a trigger act."""
    return plan.allowed_categories is None or trigger.category in plan.allowed_categories


def _allows_entry(plan: Plan, trigger: Trigger, side: int) -> int:
    """ALLOWED, or why a plan does not allow what a trigger would enter."""
    name = Direction.LONG if side > 0 else Direction.SHORT
    if plan.stance is Stance.WAIT:
        return STANCE_WAITS
    if plan.allowed_symbols is not None and trigger.symbol not in plan.allowed_symbols:
        return SYMBOL_NOT_ALLOWED
    sides = plan.allowed_directions
    if sides is not None and Direction.BOTH not in sides and name not in sides:
        return SIDE_NOT_ALLOWED
    return ALLOWED if _allows(plan, trigger) else CATEGORY_NOT_ALLOWED


def _triggers(
    on_panel: PlansOnPanel, events: Sequence[TriggerEvents], member_of: np.ndarray, delay: int
) -> tuple[np.ndarray, np.ndarray]:
    """TRIGGER for each trigger, and the events of all, each of them `delay` bars late."""
    rows = np.zeros(len(on_panel.triggers), TRIGGER)
    late: list[np.ndarray] = [np.zeros(0, np.uint8)]
    n_bits = 0
    for row, trigger, found in zip(rows, on_panel.triggers, events, strict=True):
        first = on_panel.panel.rows_of(trigger.symbol).start
        row["member"] = member_of[on_panel.panel.assets.index(trigger.symbol)]
        row["bits_from"] = n_bits - first
        row["kind"] = _KINDS.get(trigger.category, ENTERS)
        row["stop_loss"] = np.nan if trigger.stop_loss_pct is None else trigger.stop_loss_pct / 100
        row["share"] = trigger.exit_fraction
        row["cooldown"] = _cooldown(trigger)
        late.append(np.concatenate((np.zeros(delay, np.uint8), found.bits))[: len(found.bits)])
        n_bits += len(found.bits)
    rows["rests_from"] = NEVER
    return rows, np.concatenate(late)


def _cooldown(trigger: Trigger) -> int:
    """The cooldown that a trigger's strategy brings."""
    if trigger.strategy is None:
        return 0
    strategy = strategy_of(trigger.strategy)
    return strategy.cooldown(strategy.parse(trigger.params))


def _limits(
    plans: Sequence[Plan], timeframe: str, sizings: Mapping[Sizing, int]
) -> tuple[np.ndarray, np.ndarray]:
    """LIMITS of each plan, and SESSION of all."""
    rows, sessions = np.zeros(len(plans), LIMITS), list[tuple[int, int, int]]()
    for row, plan in zip(rows, plans, strict=True):
        risk = plan.limits
        for name, percent in (
            ("position_risk", risk.max_position_risk_pct),
            ("symbol_exposure", risk.max_symbol_exposure_pct),
            ("portfolio_exposure", risk.max_portfolio_exposure_pct),
            ("daily_loss", risk.max_daily_loss_pct),
            ("risk_budget", risk.max_daily_risk_budget_pct),
        ):
            row[name] = np.inf if percent is None else percent / 100
        for name, count in (
            ("trades_per_day", plan.max_trades_per_day),
            ("trades_per_symbol", plan.max_triggers_per_symbol_per_day),
            ("trades_per_timeframe", plan.max_trades_per_timeframe_per_day.get(timeframe)),
        ):
            row[name] = _NO_LIMIT if count is None else count
        for name in ("min_hold", "min_flat", "cooldown"):
            row[name] = getattr(plan, f"{name}_bars")
        row["sizing"] = sizings[plan.sized()]
        row["first_session"] = len(sessions)
        sessions += [
            (*one.minutes, _NO_LIMIT if one.max_trades is None else one.max_trades)
            for one in plan.sessions
        ]
        row["end_session"] = len(sessions)
    return rows, np.array(sessions, SESSION)


def _us(stamp: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (stamp - _EPOCH) // timedelta(microseconds=1)
