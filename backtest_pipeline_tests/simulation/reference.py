"""A slow, obvious simulator: one asset, bar by bar, plain Python numbers.

It shares no code with the product. What it does is what the trading semantics say, written so
that a reader can check it with a pencil.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT = 1, 2, 4, 8


@dataclass
class Bar:
    open: float
    high: float
    low: float
    close: float


@dataclass
class HandTrade:
    side: int
    entry_bar: int
    entry_price: float
    size: float
    fees: float
    slippage_cost: float
    worst: float
    best: float
    exit_bar: int = -1
    exit_price: float = float("nan")
    reason: str = "end_of_data"
    bars_held: int = 0

    @property
    def pnl(self) -> float:
        return self.side * self.size * (self.exit_price - self.entry_price) - self.fees

    def saw(self, low: float, high: float) -> None:
        down, up = low / self.entry_price - 1, high / self.entry_price - 1
        if self.side < 0:
            down, up = -up, -down
        self.worst, self.best = min(self.worst, down), max(self.best, up)

    def end(self, bar: int, price: float, reason: str) -> None:
        self.exit_bar, self.exit_price, self.reason = bar, price, reason
        self.saw(price, price)


@dataclass
class Account:
    fee: float
    slippage: float
    fraction: float
    cash: float
    units: float = 0.0
    ruined: bool = False
    held: int = 0
    equity: list[float] = field(default_factory=list)
    trades: list[HandTrade] = field(default_factory=list)
    pending: int | None = None

    @property
    def side(self) -> int:
        return (self.units > 0) - (self.units < 0)

    def liquidate(self, bar: int) -> None:
        """Nothing is left: the position goes at the price at which the equity is zero."""
        self.trades[-1].end(bar, -self.cash / self.units, "liquidation")
        self.ruined = True

    def gone_at(self, price: float) -> bool:
        return not self.ruined and self.units < 0 and self.cash + self.units * price <= 0

    def mark(self, bar: Bar) -> None:
        self.equity.append(0.0 if self.ruined else self.cash + self.units * bar.close)
        if not self.ruined and self.units != 0:
            self.held += 1
            self.trades[-1].bars_held += 1
            self.trades[-1].saw(bar.low, bar.high)

    def go(self, target: int, bar: int, open_: float) -> None:
        """Hold `target` times the fraction of the equity, valued at this open."""
        before = self.units
        wanted = target * self.fraction * (self.cash + before * open_) / open_
        if wanted > before:
            price = open_ * (1 + self.slippage)
            size = min(wanted - before, self.cash / (price * (1 + self.fee)))
            if before < 0 and size < -before * (1 - 1e-9):
                self.liquidate(bar)  # the cash does not pay for the way out
                return
        else:
            price = open_ * (1 - self.slippage)
            size = wanted - before
        closed = -before
        opened = size + before
        if before != 0:
            trade = self.trades[-1]
            trade.fees += abs(closed) * price * self.fee
            trade.slippage_cost += abs(closed) * abs(price - open_)
            trade.end(bar, price, "reversal" if target else "signal")
        self.cash -= size * price + abs(size) * price * self.fee
        self.units = opened if target else 0.0
        if target:
            self.trades.append(
                HandTrade(
                    side=target,
                    entry_bar=bar,
                    entry_price=price,
                    size=abs(opened),
                    fees=abs(opened) * price * self.fee,
                    slippage_cost=abs(opened) * abs(price - open_),
                    worst=0.0,
                    best=0.0,
                )
            )


def decide(side: int, event: int) -> int:
    """The side to hold next."""
    enter_long = bool(event & LONG_ENTRY) and not event & LONG_EXIT
    enter_short = bool(event & SHORT_ENTRY) and not event & SHORT_EXIT
    if side == 0 and enter_long != enter_short:
        return 1 if enter_long else -1
    if side > 0 and enter_short:
        return -1
    if side < 0 and enter_long:
        return 1
    if side > 0 and event & LONG_EXIT:
        return 0
    if side < 0 and event & SHORT_EXIT:
        return 0
    return side


def trade_by_hand(
    bars: list[Bar],
    events: list[int],
    *,
    fee: float,
    slippage: float,
    fraction: float,
    cash: float,
    allowed: int = 15,
) -> Account:
    """Run one asset's signals through an account."""
    account = Account(fee, slippage, fraction, cash)
    due: int | None = None
    for t, bar in enumerate(bars):
        if account.gone_at(bar.open):
            account.liquidate(t)
        elif due is not None and not account.ruined:
            account.go(due, t, bar.open)
        if account.gone_at(bar.high):
            account.liquidate(t)
        account.mark(bar)
        if account.ruined:
            continue
        wanted = decide(account.side, events[t] & allowed)
        due = None if wanted == account.side else wanted
    if not account.ruined:
        account.pending = due
        if account.units != 0:
            account.trades[-1].end(len(bars) - 1, bars[-1].close, "end_of_data")
    return account
