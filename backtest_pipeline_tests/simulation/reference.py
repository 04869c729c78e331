"""A slow, obvious simulator: one account, bar by bar, plain Python numbers.

It shares no code with the product. What it does is what docs/simulation.md says, written so that
a reader can check it with a pencil. An account of one asset and a book of many are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from backtest_pipeline_tests.simulation.reference_trade import Bar, Exit, Stops, Trade

LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT = 1, 2, 4, 8
Prices = dict[int, float]  # by asset


@dataclass(frozen=True)
class Rules:
    """What the account assumes; `allowed` are the signals that it sees."""

    cash: float
    fee: float = 0.0
    slippage: float = 0.0
    max_leverage: float = 1.0
    delay_bars: int = 0
    cooldown_bars: int = 0
    allowed: int = 15


@dataclass(frozen=True)
class Asset:
    """Bars and signals of one asset.

    Attributes:
        fractions: of the equity that an entry at each bar's open wants; NaN where unknown.
        stops: by which a position that is entered at each bar's open is left.
        atr: average true range at each bar's close, which the trailing ATR stop reads.
        lot, min_notional: what an entry is a multiple of, and the smallest.
    """

    bars: list[Bar]
    signals: list[int]
    fractions: list[float]
    stops: list[Stops]
    atr: list[float]
    lot: float = 0.0
    min_notional: float = 0.0


@dataclass(frozen=True)
class Refusal:
    """An entry that was not made; `units` are those wanted, NaN where unknown."""

    bar: int
    side: int
    units: float
    why: str


def decide(side: int, signal: int) -> int:
    """The side to hold after seeing a signal in a position of `side`, 0 being flat."""
    conflict = bool(signal & LONG_ENTRY) and bool(signal & SHORT_ENTRY)
    enter_long = bool(signal & LONG_ENTRY) and not signal & LONG_EXIT and not conflict
    enter_short = bool(signal & SHORT_ENTRY) and not signal & SHORT_EXIT and not conflict
    if side == 0:
        return 1 if enter_long else -1 if enter_short else 0
    if side > 0:
        return -1 if enter_short else 0 if signal & LONG_EXIT else 1
    return 1 if enter_long else 0 if signal & SHORT_EXIT else -1


class Account:
    """Cash and positions of one or many assets.

    Attributes:
        prices: the price seen last of each asset.
        held: the open position of each asset that has one.
        trades: all trades of each asset.
        refusals: the entries of each asset that were not made.
        closed: the bar of each asset that its last position closed in.
        pending: side that each asset takes at its next open; None where it stays as it is.
        equity, gross, net: at each time; exposures as fractions of the equity.
    """

    def __init__(self, assets: list[Asset], rules: Rules) -> None:
        self.assets, self.rules, self.cash = assets, rules, rules.cash
        self.prices: Prices = {}
        self.held: dict[int, Trade] = {}
        self.trades: list[list[Trade]] = [[] for _ in assets]
        self.closed: dict[int, int] = {}
        self.pending: list[int | None] = [None for _ in assets]
        self.refusals: list[list[Refusal]] = [[] for _ in assets]
        self.ruined = False
        self.equity: list[float] = []
        self.gross: list[float] = []
        self.net: list[float] = []

    @property
    def refused(self) -> int:
        return sum(map(len, self.refusals))

    def worth(self, prices: Prices) -> float:
        return self.cash + sum(trade.units * prices[a] for a, trade in self.held.items())

    def side(self, asset: int) -> int:
        return self.held[asset].side if asset in self.held else 0

    def signal(self, asset: int, bar: int) -> int:
        """The signal that acts at the open of this bar."""
        given_at = bar - 1 - self.rules.delay_bars
        return self.assets[asset].signals[given_at] & self.rules.allowed if given_at >= 0 else 0

    # At the open

    def at_open(self, time: int, now: dict[int, int]) -> None:
        """Funding of a hole, ruin, exits, entries; `now` is the bar of each asset that has one."""
        self.see_opens(time, now)
        if not self.ruined:
            self.trade_at_open(time, now)

    def see_opens(self, time: int, now: dict[int, int]) -> None:
        """Pay the funding of holes, and see whether anything is left at the opens."""
        seen = self.prices
        self.prices = seen | {a: self.assets[a].bars[t].open for a, t in now.items()}
        for a, t in now.items():
            if a in self.held:
                trade, bar = self.held[a], self.assets[a].bars[t]
                trade.funding += bar.hole_rate * trade.units * bar.open
                self.cash -= bar.hole_rate * trade.units * bar.open
        if self.held and self.worth(self.prices) <= 0:
            self.liquidate(time, seen, self.prices, at_open=True)

    def trade_at_open(self, time: int, now: dict[int, int]) -> None:
        """Leave and enter what signals ask for."""
        wanted = {a: self.wanted(a, t, self.signal(a, t)) for a, t in now.items()}
        entering = {a: side for a, side in wanted.items() if side not in (0, self.side(a))}
        leaving: dict[int, Exit] = {}
        for a, t in now.items():
            reason = self.reason_to_leave(a, t, wanted[a])
            if reason:
                leaving[a] = Exit(self.prices[a], reason, at_open=True)
        self.leave(now, time, leaving, self.prices)
        if not self.ruined:
            self.enter(now, entering)

    def wanted(self, asset: int, bar: int, signal: int) -> int:
        """The side to hold from this bar's open on, with regard to the cooldown."""
        side, rest = self.side(asset), self.rules.cooldown_bars
        if side == 0 and asset in self.closed and bar - 1 < self.closed[asset] + rest:
            return 0
        wanted = decide(side, signal)
        return 0 if rest and side * wanted < 0 else wanted

    def reason_to_leave(self, asset: int, bar: int, wanted: int) -> str:
        if asset not in self.held:
            return ""
        trade = self.held[asset]
        most = trade.stops.max_bars
        if wanted != trade.side:
            return "reversal" if wanted else "signal"
        return "time_stop" if most is not None and bar == trade.entry_bar + most else ""

    def leave(
        self, now: dict[int, int], time: int, exits: dict[int, Exit], elsewhere: Prices
    ) -> None:
        """Fill the exits of one moment together.

        Where they leave less than nothing, the other positions valued `elsewhere`, the account
        ends: the fills go only as far as something is left, and their fees take at most the rest.
        """
        fee, slippage = self.rules.fee, self.rules.slippage
        fills = {a: way.price * (1 - self.side(a) * slippage) for a, way in exits.items()}
        fees = {a: self.held[a].size * fill * fee for a, fill in fills.items()}
        at_open = all(way.at_open for way in exits.values())
        left = self.worth(elsewhere | fills)
        if exits and left < 0:
            self.liquidate(time, self.prices, elsewhere | fills, at_open)
        elif exits and left < sum(fees.values()):
            for a in fees:
                self.held[a].fees += fees[a] * left / sum(fees.values())
            self.close_all(time, elsewhere | fills, at_open)
        else:
            for a, way in exits.items():
                trade = self.held.pop(a)
                self.closed[a] = now[a]
                self.cash += trade.units * fills[a] - fees[a]
                trade.fees += fees[a]
                trade.slippage_cost += trade.size * abs(fills[a] - way.price)
                trade.end(time, fills[a], way.reason, way.at_open)

    def enter(self, now: dict[int, int], sides: dict[int, int]) -> None:
        """Fill the entries of one open together: they share what the leverage leaves."""
        rules, prices = self.rules, self.prices
        equity = self.worth(prices)
        gross = sum(trade.size * prices[a] for a, trade in self.held.items())
        wants: Prices = {}
        for a in sides:
            fraction = self.assets[a].fractions[now[a]]
            if not math.isnan(fraction) and self.assets[a].stops[now[a]].known:
                wants[a] = min(fraction, rules.max_leverage) * equity
        dearer = (1 + rules.slippage) * (1 + rules.fee)
        need = sum(want * (dearer if sides[a] > 0 else 1) for a, want in wants.items())
        room = rules.max_leverage * equity - gross
        if room < 1e-9 * equity:
            room = 0.0  # what rounding leaves of a room that is used up
        share = 1.0 if need <= room else room / need
        for a, side in sides.items():
            t, asset = now[a], self.assets[a]
            wanted = min(asset.fractions[t], rules.max_leverage) * equity / prices[a]
            if a not in wants:
                why = "no size" if math.isnan(wanted) else "no stop"
                self.refusals[a].append(Refusal(t, side, wanted, why))
                continue
            wanted, offered = wants[a] / prices[a], wants[a] * share / prices[a]
            units = offered
            if asset.lot > 0:
                # 0.3 is three lots of 0.1, although 0.3 / 0.1 is a little less than 3 in binary.
                units = math.floor(units / asset.lot + 1e-9) * asset.lot
            if units > 0 and units * prices[a] >= asset.min_notional:
                self.open(a, t, side, units)
                continue
            why = "no room" if offered <= 0 else "no lot" if units <= 0 else "too little notional"
            self.refusals[a].append(Refusal(t, side, wanted, why))

    def open(self, a: int, t: int, side: int, units: float) -> None:
        """Fill one entry at the open of a bar."""
        asset = self.assets[a]
        trade = Trade(
            side, t, self.prices[a], units, self.rules.fee, self.rules.slippage, asset.stops[t]
        )
        trade.trail_atr(trade.entry_price, asset.atr[t - 1])
        trade.entry_stop = trade.stop()
        self.cash -= trade.units * trade.entry_price + trade.fees
        self.held[a] = trade
        self.trades[a].append(trade)

    # Within the bar

    def within(self, time: int, now: dict[int, int]) -> None:
        """Funding, ruin, stops and targets."""
        exits: dict[int, Exit] = {}
        worst = dict(self.prices)
        for a, t in now.items():
            if a not in self.held:
                continue
            trade, bar = self.held[a], self.assets[a].bars[t]
            worst[a] = bar.worst(trade.side)
            funding = bar.rate * trade.units * bar.close
            way = trade.exit_within(bar)
            if way is not None:
                exits[a] = way
                funding = max(0.0, funding)
                if way.reason != "take_profit":
                    worst[a] = way.price * (1 - trade.side * self.rules.slippage)
            trade.funding += funding
            self.cash -= funding
        if self.held and self.worth(worst) <= 0:
            self.liquidate(time, self.prices, worst, at_open=False)
        else:
            self.leave(now, time, exits, worst)

    # Ruin

    def liquidate(self, time: int, seen: Prices, ruinous: Prices, at_open: bool) -> None:
        """Close all on the way from the prices seen last to the ruinous ones, at worth zero."""
        before, after = self.worth(seen), self.worth(ruinous)
        if before > 0:
            share = before / (before - after)
            prices = {a: seen[a] + share * (ruinous[a] - seen[a]) for a in self.held}
        else:
            # Costs have taken more than there was: the prices at which nothing is left lie
            # the other way, and each is better by the same fraction.
            gross = sum(trade.size * seen[a] for a, trade in self.held.items())
            prices = {a: seen[a] * (1 - self.side(a) * before / gross) for a in self.held}
        self.close_all(time, prices, at_open)

    def close_all(self, time: int, prices: Prices, at_open: bool) -> None:
        for a, trade in self.held.items():
            trade.end(time, prices[a], "liquidation", at_open)
        self.cash, self.held, self.ruined = 0.0, {}, True

    # At the close

    def at_close(self, now: dict[int, int]) -> None:
        """Mark the account, and let each position see its bar."""
        for a, t in now.items():
            asset = self.assets[a]
            self.prices[a] = asset.bars[t].close
            if a in self.held:
                self.held[a].held_to_close(asset.bars[t], asset.atr[t])
        equity = self.worth(self.prices)
        values = [trade.units * self.prices[a] for a, trade in self.held.items()]
        self.equity.append(equity)
        self.gross.append(sum(map(abs, values)) / equity if values else 0.0)
        self.net.append(sum(values) / equity if values else 0.0)

    def finish(self) -> None:
        """Mark what is still open to the last close, and keep what is due at the next opens."""
        for a, asset in enumerate(self.assets):
            if self.ruined or not asset.bars:
                continue
            wanted = self.wanted(a, len(asset.bars), self.signal(a, len(asset.bars)))
            self.pending[a] = None if wanted == self.side(a) else wanted
            if a in self.held:
                self.held[a].end(asset.bars[-1].time, self.prices[a], "end_of_data", at_open=False)


def run_account(assets: list[Asset], rules: Rules) -> Account:
    """An account that has walked over the bars of its assets."""
    account = Account(assets, rules)
    walk(account)
    return account


def walk(account: Account) -> None:
    """Walk an account over the bars of its assets."""
    calendar: dict[int, dict[int, int]] = {}
    for a, asset in enumerate(account.assets):
        for t, bar in enumerate(asset.bars):
            calendar.setdefault(bar.time, {})[a] = t
    for time, now in sorted(calendar.items()):
        if not account.ruined:
            account.at_open(time, now)
        if not account.ruined:
            account.within(time, now)
        account.at_close(now)
    account.finish()
