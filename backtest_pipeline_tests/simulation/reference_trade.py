"""One position of the slow simulator: its levels, what ends it within a bar, and its record.

Sides are 1 and -1. A short mirrors a long, so that `side * price` is what the holder likes more
of: the better of two prices has the larger one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NAN = float("nan")


@dataclass(frozen=True)
class Bar:
    """Prices of one period, and what is known of it beside them.

    Attributes:
        time: bars of one account with the same time happen together.
        rate: funding that a long pays on the notional at the close.
        hole_rate: the same at the open, for the time since the end of the bar before.
        finer: low and high of each finer bar within, first to last.
    """

    time: int
    open: float
    high: float
    low: float
    close: float
    rate: float = 0.0
    hole_rate: float = 0.0
    finer: tuple[tuple[float, float], ...] = ()

    def worst(self, side: int) -> float:
        return self.low if side > 0 else self.high

    def best(self, side: int) -> float:
        return self.high if side > 0 else self.low


@dataclass(frozen=True)
class Stops:
    """The rules by which a position is left without a signal; None is no such rule, and NaN one
    whose distance is unknown.
    """

    stop_loss: float | None = None
    take_profit: float | None = None
    trailing: float | None = None
    trailing_atr: float | None = None
    max_bars: int | None = None
    target_first: bool = False

    @property
    def known(self) -> bool:
        """Whether every distance is known."""
        given = (self.stop_loss, self.take_profit, self.trailing, self.trailing_atr)
        return not any(one is not None and math.isnan(one) for one in given)


@dataclass(frozen=True)
class Exit:
    """A way out: the price before slippage, its name, and whether the bar's open filled it."""

    price: float
    reason: str
    at_open: bool


class Trade:
    """A position from its entry on, and at last its record."""

    def __init__(
        self,
        side: int,
        bar: int,
        open_: float,
        size: float,
        fee: float,
        slippage: float,
        stops: Stops,
    ) -> None:
        self.side, self.size, self.entry_bar, self.stops = side, size, bar, stops
        self.entry_price = open_ * (1 + side * slippage)
        self.fees = size * self.entry_price * fee
        self.slippage_cost = size * abs(self.entry_price - open_)
        self.funding = 0.0
        self.bars_held = 0
        self.lowest = self.highest = self.entry_price
        self.best_price = self.entry_price  # highest high of a long, lowest low of a short
        self.atr_level = NAN
        self.entry_stop: tuple[float, str] | None = None
        self.exit_time, self.exit_price = -1, NAN
        self.reason, self.at_open = "", False

    @property
    def units(self) -> float:
        return self.side * self.size

    @property
    def pnl(self) -> float:
        return self.units * (self.exit_price - self.entry_price) - self.fees - self.funding

    @property
    def mae(self) -> float:
        worst = self.lowest if self.side > 0 else self.highest
        return self.side * (worst / self.entry_price - 1)

    @property
    def mfe(self) -> float:
        best = self.highest if self.side > 0 else self.lowest
        return self.side * (best / self.entry_price - 1)

    def trail_atr(self, anchor: float, atr: float) -> None:
        """Draw the level behind the price: it comes with the first ATR, and never goes back."""
        multiple = self.stops.trailing_atr
        if multiple is None or math.isnan(atr):
            return
        level = anchor - self.side * multiple * atr
        if math.isnan(self.atr_level) or self.side * level > self.side * self.atr_level:
            self.atr_level = level

    def held_to_close(self, bar: Bar, atr: float) -> None:
        """See the bar's whole range, and draw the trailing levels of the next bar."""
        self.bars_held += 1
        self.lowest, self.highest = min(self.lowest, bar.low), max(self.highest, bar.high)
        if self.side * bar.best(self.side) > self.side * self.best_price:
            self.best_price = bar.best(self.side)
        self.trail_atr(self.best_price, atr)

    def stop(self) -> tuple[float, str] | None:
        """The level on the losing side that is nearest to the price, and its name."""
        rules = self.stops
        levels: list[tuple[float, str]] = []
        if rules.stop_loss is not None:
            levels.append((self.entry_price * (1 - self.side * rules.stop_loss), "stop_loss"))
        if rules.trailing is not None:
            levels.append((self.best_price * (1 - self.side * rules.trailing), "trailing_stop"))
        if not math.isnan(self.atr_level):
            levels.append((self.atr_level, "trailing_stop"))
        # Of equals, max keeps the first.
        return max(levels, key=lambda level: self.side * level[0], default=None)

    def exit_within(self, bar: Bar) -> Exit | None:
        """The stop or target that ends the position in this bar, if one does."""
        side, stopped, gained, rules = self.side, None, None, self.stops
        stop = self.stop()
        if stop is not None and side * bar.worst(side) <= side * stop[0]:
            gap = side * bar.open <= side * stop[0]
            stopped = Exit(bar.open if gap else stop[0], stop[1], gap)
        target = NAN
        if rules.take_profit is not None:
            target = self.entry_price * (1 + side * rules.take_profit)
            if side * bar.best(side) >= side * target:
                gap = side * bar.open >= side * target
                gained = Exit(bar.open if gap else target, "take_profit", gap)
        if stop is None or stopped is None or gained is None:
            return stopped or gained
        if stopped.at_open or gained.at_open:
            return stopped if stopped.at_open else gained
        for low, high in bar.finer:
            worst, best = (low, high) if side > 0 else (high, low)
            touches_stop = side * worst <= side * stop[0]
            touches_target = side * best >= side * target
            if touches_stop and touches_target:
                break
            if touches_stop or touches_target:
                return stopped if touches_stop else gained
        return gained if rules.target_first else stopped

    def end(self, time: int, price: float, reason: str, at_open: bool) -> None:
        """Write down the fill that ends the position."""
        self.exit_time, self.exit_price = time, price
        self.reason, self.at_open = reason, at_open
        self.lowest, self.highest = min(self.lowest, price), max(self.highest, price)
