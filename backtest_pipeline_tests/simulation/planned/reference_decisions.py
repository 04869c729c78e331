"""What an account under plans decides at each close, in plain Python: see docs/plans.md.

It reads plans as data and shares no code with the product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline_tests.simulation.reference import Account, Asset, Rules
from backtest_pipeline_tests.simulation.reference_trade import NAN

ENTERS = ("trend_continuation", "reversal", "volatility_breakout", "mean_reversion", "other")
SIDES = {"long": (1,), "short": (-1,), "both": (1, -1)}
DAY, MINUTE = 86_400_000_000, 60_000_000
NO_LIMIT = 10**9
# What a rule is at a bar of an asset: true, false, or why it is unknown; "" while it warms up.
Rule = Callable[[int, int], bool | str]


@dataclass(frozen=True)
class Block:
    """An entry or exit that was blocked; `bar` is the one that it would have filled at."""

    asset: int
    bar: int
    trigger: str
    side: int
    units: float
    cause: str
    is_exit: bool
    value: float = NAN
    bound: float = NAN


@dataclass
class Order:
    """An entry that is due at an asset's next open."""

    trigger: Trigger
    plan: Plan
    side: int
    bar: int
    day: int
    minute: int


@dataclass(frozen=True)
class Asked:
    """An entry that a trigger asks for at bar t of asset a.

    Attributes:
        why: ALLOWED, or why the plan does not allow it, or why it is not known.
        is_void: whether the exit of its own side is asked for as well.
    """

    a: int
    t: int
    trigger: Trigger
    plan: Plan
    side: int
    why: str
    is_void: bool


@dataclass
class Day:
    """What has happened on a UTC day: its entries, as (asset, minute), and their risk."""

    number: int = -1
    start: float = NAN
    entries: list[tuple[int, int]] = field(default_factory=list)
    risk: float = 0.0


class DecidingAccount(Account):
    """An account that decides by plans at each close, and enters and leaves nothing by them.

    Args:
        names: symbols of the assets.
        plans: by when they take effect.
        rule: what each rule is, by its text.
        fraction: of the equity that each entry wants, by plan.
    """

    def __init__(
        self,
        names: list[str],
        assets: list[Asset],
        rules: Rules,
        plans: list[Plan],
        rule: dict[str, Rule],
        fraction: dict[str, float],
    ) -> None:
        super().__init__(assets, rules)
        self.names, self.plans, self.rule, self.fraction = names, plans, rule, fraction
        self.day = Day()
        self.last_equity = rules.cash
        self.due: dict[int, Order] = {}
        self.going: dict[int, tuple[float, Trigger]] = {}
        self.shares: dict[int, float] = {}
        self.urgent: dict[int, int] = {}  # bar at which an emergency exit was ordered
        self.trigger_of: dict[int, Trigger] = {}
        self.trigger_closed: dict[str, int] = {}
        self.sources: dict[int, tuple[str, str]] = {}  # of a trade, by its identity
        self.blocks: list[Block] = []
        self.triggered: dict[str, int] = {}
        self.entered: dict[str, int] = {}
        self.exits_triggered = self.exits = 0

    # What is known of plans and rules

    def plan_at(self, time: int) -> Plan | None:
        live = [plan for plan in self.plans if micros(plan.effective_ts) <= time]
        return live[-1] if live else None

    def signal_bar(self, bar: int) -> int:
        return bar - self.rules.delay_bars

    def wishes(self, now: dict[int, int]) -> list[tuple[int, int, int, Trigger, Plan]]:
        """Asset, bar, signal's bar, trigger and plan of what is live, by plan and rank."""
        found: list[tuple[tuple[int, int], tuple[int, int, int, Trigger, Plan]]] = []
        for a, t in now.items():
            s = self.signal_bar(t)
            plan = self.plan_at(self.assets[a].bars[s].time) if s >= 0 else None
            for rank, trigger in enumerate(plan.triggers if plan else ()):
                if plan and trigger.symbol == self.names[a]:
                    order = self.plans.index(plan), rank
                    found.append((order, (a, t, s, trigger, plan)))
        return [wish for _, wish in sorted(found, key=first)]

    def is_exit(self, trigger: Trigger, a: int, s: int) -> bool:
        return trigger.exit is not None and s >= 0 and self.rule[trigger.exit](a, s) is True

    # At the close

    def at_close(self, now: dict[int, int]) -> None:
        super().at_close(now)
        if self.ruined:
            return
        time = self.assets[next(iter(now))].bars[next(iter(now.values()))].time
        if time // DAY != self.day.number:
            self.day = Day(time // DAY, self.last_equity)
        wishes = self.wishes(now)
        self.decide_exits(now, wishes)
        self.decide_entries(time, now, wishes)
        self.last_equity = self.equity[-1]

    def decide_exits(
        self, now: dict[int, int], wishes: list[tuple[int, int, int, Trigger, Plan]]
    ) -> None:
        closing = [wish for wish in wishes if wish[3].category.value not in ENTERS]
        urgent = [wish for wish in closing if wish[3].category.value == "emergency_exit"]
        for a, t, s, trigger, plan in urgent:
            self.wish_exit(a, t, s, trigger, plan)
        for a in self.held:
            if a in now:
                if a not in self.going:
                    self.urgent.pop(a, None)
                own, t = self.trigger_of[a], now[a]
                time = self.assets[a].bars[t].time
                plan = self.plan_at(time)
                if plan and self.is_exit(own, a, self.signal_bar(t)):
                    self.order_exit(a, t, own, plan, 1.0)
            elif a in self.urgent:
                t = self.urgent.pop(a)
                if t + 1 < len(self.assets[a].bars):
                    self.exits_triggered += 1
                    veto = "EMERGENCY_WITHOUT_BAR"
                    self.block(a, t, self.going[a][1], self.side(a), self.held[a].size, veto, True)
        for a, t, s, trigger, plan in closing:
            if trigger.category.value != "emergency_exit":
                self.wish_exit(a, t, s, trigger, plan)

    def wish_exit(self, a: int, t: int, s: int, trigger: Trigger, plan: Plan) -> None:
        assert trigger.exit is not None
        emergency = trigger.category.value == "emergency_exit"
        found, before = self.rule[trigger.exit](a, s), False
        if trigger.exit_fraction < 1 and s > 0:
            before = self.rule[trigger.exit](a, s - 1) is True
        if found == "" or found is False or (found is True and before):
            return
        side = self.side(a)
        if side == 0 or side not in SIDES[trigger.direction.value]:
            return
        allowed = plan.allowed_categories is None or trigger.category in plan.allowed_categories
        if not allowed and found is True:
            cause = "EMERGENCY_NOT_ALLOWED" if emergency else "CATEGORY_NOT_ALLOWED"
        elif not allowed:
            return
        elif found is not True:
            cause = "EMERGENCY_UNDEFINED" if emergency else str(found)
        else:
            self.order_exit(a, t, trigger, plan, trigger.exit_fraction)
            return
        self.block_exit(a, t, trigger, self.part(a, trigger.exit_fraction), cause)

    def order_exit(self, a: int, t: int, trigger: Trigger, plan: Plan, share: float) -> None:
        emergency, part = trigger.category.value == "emergency_exit", self.part(a, share)
        if a in self.going:
            self.block_exit(a, t, trigger, part, "OUTRANKED")
        elif not emergency and self.held[a].bars_held < plan.min_hold_bars:
            held = self.held[a].bars_held
            self.block_exit(a, t, trigger, part, "HELD_TOO_SHORT", held, plan.min_hold_bars)
        else:
            if t + 1 < len(self.assets[a].bars):
                self.exits_triggered += 1
                self.exits += 1
            self.going[a] = (part, trigger)
            if emergency:
                self.urgent[a] = t

    def part(self, a: int, share: float) -> float:
        """The share of a position that closing this share of it in whole lots closes."""
        size, lot = self.held[a].size, self.assets[a].lot
        if share < 1 and lot > 0:
            share = math.ceil(size * share / lot - 1e-9) * lot / size
        return 1.0 if share > 1 - 1e-9 else share

    def block_exit(
        self,
        a: int,
        t: int,
        trigger: Trigger,
        share: float,
        cause: str,
        value: float = NAN,
        bound: float = NAN,
    ) -> None:
        if t + 1 < len(self.assets[a].bars):
            self.exits_triggered += 1
            size = self.held[a].size * share
            self.block(a, t, trigger, self.side(a), size, cause, True, value, bound)

    def decide_entries(
        self,
        time: int,
        now: dict[int, int],
        wishes: list[tuple[int, int, int, Trigger, Plan]],
    ) -> None:
        asked: list[Asked] = []
        for a, t, s, trigger, plan in wishes:
            if trigger.category.value in ENTERS:
                for side in SIDES[trigger.direction.value]:
                    asked += self.asked(a, t, s, trigger, plan, side)
        sides = {a: {one.side for one in asked if one.a == a and one.why == "ALLOWED"} for a in now}
        entering: set[int] = set()
        for one in asked:
            if not one.is_void and self.side(one.a) != one.side:
                self.wish_entry(time, one, both=len(sides[one.a]) == 2, entering=entering)

    def wish_entry(self, time: int, one: Asked, *, both: bool, entering: set[int]) -> None:
        a, held = one.a, self.side(one.a)
        cause, value, bound = one.why, NAN, NAN
        if cause == "ALLOWED":
            cause, value, bound = self.why_not(time, one, both=both, entering=a in entering)
        stays = (one.why, "BOTH_SIDES", "OUTRANKED", "HELD_TOO_SHORT")
        if held and (cause == "ALLOWED" or cause not in stays):
            self.going[a] = (1.0, self.going.get(a, (1.0, one.trigger))[1])
        if one.t + 1 < len(self.assets[a].bars):
            self.triggered[one.trigger.id] = self.triggered.get(one.trigger.id, 0) + 1
        if cause == "ALLOWED":
            entering.add(a)
            minute = time % DAY // MINUTE
            self.due[a] = Order(one.trigger, one.plan, one.side, one.t, self.day.number, minute)
            self.day.entries.append((a, minute))
        else:
            units = self.fraction[one.plan.plan_id] * self.equity[-1] / self.prices[a]
            self.block(a, one.t, one.trigger, one.side, units, cause, False, value, bound)

    def why_not(
        self, time: int, one: Asked, *, both: bool, entering: bool
    ) -> tuple[str, float, float]:
        """Why an entry that the plan allows is not ordered, with the numbers of a limit."""
        if both or entering:
            return "BOTH_SIDES" if both else "OUTRANKED", NAN, NAN
        bars, least = (
            self.held[one.a].bars_held if one.a in self.held else 0,
            one.plan.min_hold_bars,
        )
        if one.a in self.held and bars < least:
            return "HELD_TOO_SHORT", bars, least
        for limits in (self.limits_of_day(time, one), self.limits_of_rest(one)):
            for cause, value, bound, is_met in limits:
                if is_met:
                    return cause, value, bound
        return "ALLOWED", NAN, NAN

    def asked(self, a: int, t: int, s: int, trigger: Trigger, plan: Plan, side: int) -> list[Asked]:
        """What a trigger asks of a side at a bar: why the plan forbids it, and if it is void."""
        assert trigger.entry is not None
        found = self.rule[trigger.entry](a, s)
        if trigger.exit is not None and self.rule[trigger.exit](a, s) == "RULE_FAILED":
            found = "RULE_FAILED"
        if found == "RULE_FAILED":  # once in each plan, at its first bar
            if s > 0 and self.plan_at(self.assets[a].bars[s - 1].time) is plan:
                return []
        elif found is False or found == "":
            return []
        forbidden = self.forbidden(trigger, plan, side, self.assets[a].bars[s].time)
        if found is not True and forbidden != "ALLOWED":
            return []
        void = found is True and self.is_exit(trigger, a, s)
        if void and forbidden != "ALLOWED":
            return []
        cause = forbidden if found is True else str(found)
        return [Asked(a, t, trigger, plan, side, cause, void)]

    def forbidden(self, trigger: Trigger, plan: Plan, side: int, time: int) -> str:
        sides = [side.value for side in plan.allowed_directions or ()]
        if time >= micros(plan.valid_until):
            return "PLAN_EXPIRED"
        if plan.stance.value == "wait":
            return "STANCE_WAITS"
        if plan.allowed_symbols is not None and trigger.symbol not in plan.allowed_symbols:
            return "SYMBOL_NOT_ALLOWED"
        if sides and "both" not in sides and ("long" if side > 0 else "short") not in sides:
            return "SIDE_NOT_ALLOWED"
        if plan.allowed_categories is not None and trigger.category not in plan.allowed_categories:
            return "CATEGORY_NOT_ALLOWED"
        return "ALLOWED"

    def limits_of_day(self, time: int, one: Asked) -> list[tuple[str, float, float, bool]]:
        """Limits of the day, in the order in which they are asked: numbers, and if each is met."""
        plan, entries, found = one.plan, self.day.entries, list[tuple[str, float, float, bool]]()
        change, loss = self.equity[-1] / self.day.start - 1, plan.limits.max_daily_loss_pct
        if loss is not None:
            found.append(("DAY_LOSS", change, -loss / 100, change <= -loss / 100 * (1 - 1e-9)))
        minute, inside = time % DAY // MINUTE, 0
        counts = [
            ("TRADES_OF_DAY", len(entries), plan.max_trades_per_day),
            (
                "TRADES_OF_TIMEFRAME",
                len(entries),
                plan.max_trades_per_timeframe_per_day.get(one.trigger.timeframe),
            ),
        ]
        for session in plan.sessions:
            start, end = clock_minutes(session.start), clock_minutes(session.end)
            if start <= minute < end:
                inside += 1
                today = sum(start <= at < end for _, at in entries)
                counts.append(("TRADES_OF_SESSION", today, session.max_trades))
        own = sum(asset == one.a for asset, _ in entries)
        counts.append(("TRADES_OF_SYMBOL", own, plan.max_triggers_per_symbol_per_day))
        outside = ("OUT_OF_SESSION", minute, NAN, bool(plan.sessions) and not inside)
        met = [(cause, n, most or 0, most is not None and n >= most) for cause, n, most in counts]
        return [*found, *met[:2], outside, *met[2:]]

    def limits_of_rest(self, one: Asked) -> list[tuple[str, float, float, bool]]:
        """The same of the bars since a position of the symbol, or of the trigger, closed."""
        plan, a, t = one.plan, one.a, one.t
        closed = t if a in self.held else self.closed.get(a, -NO_LIMIT)
        own = self.trigger_closed.get(one.trigger.id, -NO_LIMIT)
        if a in self.held and self.trigger_of[a].id == one.trigger.id:
            own = t
        flat, rest = plan.min_flat_bars, plan.cooldown_bars
        return [
            ("FLAT_TOO_SHORT", t - closed + 1, flat, t < closed + flat),
            ("COOLING_DOWN", t - own + 1, rest, t < own + rest),
        ]

    def block(
        self,
        a: int,
        t: int,
        trigger: Trigger,
        side: int,
        units: float,
        cause: str,
        is_exit: bool,
        value: float = NAN,
        bound: float = NAN,
    ) -> None:
        """Write down what is not done at the bar after t, if there is one."""
        if t + 1 < len(self.assets[a].bars):
            self.blocks.append(
                Block(a, t + 1, trigger.id, side, units, cause, is_exit, value, bound)
            )


def micros(stamp: datetime) -> int:
    return (stamp - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def clock_minutes(clock: str) -> int:
    return 60 * int(clock[:2]) + int(clock[3:])


def first(wish: tuple[tuple[int, int], object]) -> tuple[int, int]:
    return wish[0]
