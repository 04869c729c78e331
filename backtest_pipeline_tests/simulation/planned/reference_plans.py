"""The slow simulator under plans: what docs/plans.md says, bar by bar, in plain Python.

It reads plans as data and shares no code with the product.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline_tests.simulation.reference import Account, Asset, Prices, Rules
from backtest_pipeline_tests.simulation.reference_trade import NAN, Exit, Stops, Trade

ENTERS = ("trend_continuation", "reversal", "volatility_breakout", "mean_reversion", "other")
SIDES = {"long": (1,), "short": (-1,), "both": (1, -1)}
DAY = 86_400_000_000
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


@dataclass
class Day:
    """What has happened on a UTC day: its entries, as (asset, minute), and their risk."""

    number: int = -1
    start: float = NAN
    entries: list[tuple[int, int]] = field(default_factory=list)
    risk: float = 0.0


class PlannedAccount(Account):
    """An account that follows plans.

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
        asked: list[tuple[int, int, Trigger, Plan, int, str, bool]] = []
        for a, t, s, trigger, plan in wishes:
            if trigger.category.value in ENTERS:
                for side in SIDES[trigger.direction.value]:
                    asked += self.asked(a, t, s, trigger, plan, side)
        sides: dict[int, set[int]] = {a: set() for a in now}
        for a, _, _, _, side, cause, _ in asked:
            if cause == "ALLOWED":
                sides[a].add(side)
        entering: set[int] = set()
        for a, t, trigger, plan, side, why, void in asked:
            held = self.side(a)
            if void or held == side:
                continue
            is_due, why_numbers = t + 1 < len(self.assets[a].bars), (NAN, NAN)
            cause, of_account = why, False
            if cause == "ALLOWED" and len(sides[a]) == 2:
                cause = "BOTH_SIDES"
            elif cause == "ALLOWED" and a in entering:
                cause = "OUTRANKED"
            elif cause == "ALLOWED" and held and self.held[a].bars_held < plan.min_hold_bars:
                cause, why_numbers = (
                    "HELD_TOO_SHORT",
                    (self.held[a].bars_held, plan.min_hold_bars),
                )
            elif cause == "ALLOWED":
                cause, *numbers = self.limit(time, a, t, trigger, plan)
                why_numbers, of_account = (numbers[0], numbers[1]), cause != "ALLOWED"
            if held and of_account:
                self.going[a] = (1.0, self.going.get(a, (1.0, trigger))[1])
            if is_due:
                self.triggered[trigger.id] = self.triggered.get(trigger.id, 0) + 1
            if cause != "ALLOWED":
                if is_due:
                    close = self.assets[a].bars[t].close
                    units = self.fraction[plan.plan_id] * self.equity[-1] / close
                    self.block(a, t, trigger, side, units, cause, False, *why_numbers)
                continue
            entering.add(a)
            if held:
                self.going[a] = (1.0, self.going.get(a, (1.0, trigger))[1])
            minute = time % DAY // 60_000_000
            self.due[a] = Order(trigger, plan, side, t, self.day.number, minute)
            self.day.entries.append((a, minute))

    def asked(
        self, a: int, t: int, s: int, trigger: Trigger, plan: Plan, side: int
    ) -> list[tuple[int, int, Trigger, Plan, int, str, bool]]:
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
        return [(a, t, trigger, plan, side, cause, void)]

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

    def limit(
        self, time: int, a: int, t: int, trigger: Trigger, plan: Plan
    ) -> tuple[str, float, float]:
        """The first limit of the account that an entry meets, with its numbers."""
        change, entries = self.equity[-1] / self.day.start - 1, self.day.entries
        loss = plan.limits.max_daily_loss_pct
        if loss is not None and change <= -loss / 100 * (1 - 1e-9):
            return "DAY_LOSS", change, -loss / 100
        for cause, count in (
            ("TRADES_OF_DAY", plan.max_trades_per_day),
            ("TRADES_OF_TIMEFRAME", plan.max_trades_per_timeframe_per_day.get(trigger.timeframe)),
        ):
            if count is not None and len(entries) >= count:
                return cause, len(entries), count
        minute, inside = time % DAY // 60_000_000, None
        for session in plan.sessions:
            start, end = (clock_minutes(clock) for clock in (session.start, session.end))
            if start <= minute < end:
                inside = sum(start <= at < end for _, at in entries)
                if session.max_trades is not None and inside >= session.max_trades:
                    return "TRADES_OF_SESSION", inside, session.max_trades
        if plan.sessions and inside is None:
            return "OUT_OF_SESSION", minute, NAN
        own, most = sum(asset == a for asset, _ in entries), plan.max_triggers_per_symbol_per_day
        if most is not None and own >= most:
            return "TRADES_OF_SYMBOL", own, most
        closed = t if a in self.held else self.closed.get(a, -NO_LIMIT)
        if t < closed + plan.min_flat_bars:
            return "FLAT_TOO_SHORT", t - closed + 1, plan.min_flat_bars
        closed = self.trigger_closed.get(trigger.id, -NO_LIMIT)
        if a in self.held and self.trigger_of[a].id == trigger.id:
            closed = t
        if t < closed + plan.cooldown_bars:
            return "COOLING_DOWN", t - closed + 1, plan.cooldown_bars
        return "ALLOWED", NAN, NAN

    # At the open

    def at_open(self, time: int, now: dict[int, int]) -> None:
        super().at_open(time, now)
        self.drop_if_ruined()

    def within(self, time: int, now: dict[int, int]) -> None:
        super().within(time, now)
        self.drop_if_ruined()

    def drop_if_ruined(self) -> None:
        if self.ruined:
            for a, order in self.due.items():
                self.block(a, order.bar, order.trigger, order.side, NAN, "LIQUIDATED", False)
            self.due.clear()

    def trade_at_open(self, time: int, now: dict[int, int]) -> None:
        leaving: dict[int, Exit] = {}
        for a in now:
            if a in self.held and a in self.going:
                self.shares[a] = self.going[a][0]
                reason = "reversal" if a in self.due else "signal"
                leaving[a] = Exit(self.prices[a], reason, at_open=True)
        for a in leaving:
            self.sources[id(self.held[a])] = (self.trigger_of[a].id, self.going[a][1].id)
        self.leave(now, time, leaving, self.prices)
        self.shares.clear()
        for a in now:
            self.going.pop(a, None)
        if not self.ruined:
            self.enter_due(now)

    def enter_due(self, now: dict[int, int]) -> None:
        """Ask the limits of risk in the order of the decisions, then fill what they allow."""
        equity = self.worth(self.prices)
        gross = sum(trade.size * self.prices[a] for a, trade in self.held.items())
        asked: dict[int, tuple[Order, float]] = {}
        for a in [a for a in self.due if a in now]:
            order, t = self.due.pop(a), now[a]
            limits, stop = order.plan.limits, (order.trigger.stop_loss_pct or NAN) / 100
            fraction = min(self.fraction[order.plan.plan_id], self.rules.max_leverage)
            risk, exposure = fraction * stop, gross / equity + fraction
            budget = limits.max_daily_risk_budget_pct
            for cause, value, bound in (
                ("POSITION_RISK", risk, limits.max_position_risk_pct),
                ("SYMBOL_EXPOSURE", fraction, limits.max_symbol_exposure_pct),
                ("PORTFOLIO_EXPOSURE", exposure, limits.max_portfolio_exposure_pct),
                ("RISK_OF_DAY", self.day.risk + risk, budget),
            ):
                if bound is not None and value > bound / 100 * (1 + 1e-9):
                    units = fraction * equity / self.prices[a]
                    self.take_back(a, order)
                    self.block(
                        a, t - 1, order.trigger, order.side, units, cause, False, value, bound / 100
                    )
                    break
            else:
                gross += fraction * equity
                self.day.risk += risk
                self.assets[a].fractions[t], self.assets[a].stops[t] = fraction, Stops(stop)
                asked[a] = order, risk
        self.enter(now, {a: order.side for a, (order, _) in asked.items()})
        for a, (order, risk) in asked.items():
            self.day.risk -= risk
            if a not in self.held:
                self.take_back(a, order)
                refusal, why = self.refusals[a].pop(), {"no room": "NO_ROOM", "no lot": "BELOW_LOT"}
                cause = why.get(refusal.why, "BELOW_NOTIONAL")
                self.block(a, now[a] - 1, order.trigger, order.side, refusal.units, cause, False)
                continue
            trade, stop = self.held[a], (order.trigger.stop_loss_pct or NAN) / 100
            self.day.risk += trade.size * self.prices[a] * stop / equity
            self.trigger_of[a] = order.trigger
            self.sources[id(trade)] = (order.trigger.id, "")
            self.entered[order.trigger.id] = self.entered.get(order.trigger.id, 0) + 1

    def take_back(self, a: int, order: Order) -> None:
        if order.day == self.day.number:
            self.day.entries.remove((a, order.minute))

    def leave(
        self, now: dict[int, int], time: int, exits: dict[int, Exit], elsewhere: Prices
    ) -> None:
        """As without plans, but an exit may close a part; what remains is judged at its fill."""
        fee, slippage = self.rules.fee, self.rules.slippage
        fills = {a: way.price * (1 - self.side(a) * slippage) for a, way in exits.items()}
        shares = {a: self.shares.get(a, 1.0) for a in exits}
        fees = {a: self.held[a].size * shares[a] * fill * fee for a, fill in fills.items()}
        left = self.worth(elsewhere | fills)
        if not exits or left < sum(fees.values()):
            super().leave(now, time, exits, elsewhere)
            return
        for a, way in exits.items():
            trade = self.held[a]
            source = self.sources[id(trade)]
            if shares[a] < 1.0:
                trade = self.split(a, shares[a])
                self.sources[id(trade)] = source
                self.sources[id(self.held[a])] = (source[0], "")
            else:
                del self.held[a]
                self.closed[a] = now[a]
                self.trigger_closed[source[0]] = now[a]
            self.cash += trade.units * fills[a] - fees[a]
            trade.fees += fees[a]
            trade.slippage_cost += trade.size * abs(fills[a] - way.price)
            trade.end(time, fills[a], way.reason, way.at_open)

    def split(self, a: int, share: float) -> Trade:
        """Cut a part off a position, as a trade of its own."""
        rest = self.held[a]
        part = copy.copy(rest)
        for name in ("size", "fees", "slippage_cost", "funding"):
            whole = getattr(rest, name)
            setattr(part, name, whole * share)
            setattr(rest, name, whole * (1 - share))
        self.trades[a].insert(-1, part)
        return part

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
