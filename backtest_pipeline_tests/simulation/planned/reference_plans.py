"""The slow simulator under plans: what docs/plans.md says, bar by bar, in plain Python."""

from __future__ import annotations

import copy

from backtest_pipeline_tests.simulation.planned.reference_decisions import (
    NAN,
    DecidingAccount,
    Order,
)
from backtest_pipeline_tests.simulation.reference import Prices
from backtest_pipeline_tests.simulation.reference_trade import Exit, Stops, Trade


class PlannedAccount(DecidingAccount):
    """An account that follows plans: what it decides at the closes it does at the opens."""

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
