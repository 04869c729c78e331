"""An account that trades towards target weights, compiled; docs/cross-section.md describes it.

A position is made of lots, one for each purchase; what was bought first is sold first. Each lot
that ends, whole or in part, is a trade.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest_pipeline.market.compiled import compiled
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.cross_section.targets import Targets
from backtest_pipeline.simulation.engine import (
    DELISTING,
    END_OF_DATA,
    LIQUIDATION,
    NO_STOP,
    SIGNAL,
    TRADE,
)
from backtest_pipeline.simulation.funding import FundingRates, funding_of_bars
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from backtest_pipeline.trading.costs import CostModel

REBALANCED_VERSION = 2
"""Raise it when the same targets on the same bars give other trades, equity or counts."""
_NONE = -1
_DUST = 1e-12  # of the equity: what rounding leaves of a position
_MOST_ROUNDS = 200
LOT = np.dtype(
    [
        ("units", np.float64),
        ("price", np.float64),
        ("base", np.float64),  # before slippage
        ("fee", np.float64),
        ("paid", np.float64),  # funding per unit that its member had paid when it was bought
        ("row", np.int64),
        ("bar", np.int64),  # how many bars its member had had by then
        ("lowest", np.float64),
        ("highest", np.float64),
        ("next", np.int64),
    ],
    align=True,
)


class Rebalanced(NamedTuple):
    """The result of an account.

    Attributes:
        equity: float64 `(n_times,)`, at each instant's closes; 0 from a liquidation on.
        weight: float64 `(n_times, n_assets)`, value of each position over the equity, at the close.
        turnover: float64 `(n_times,)`, what was traded at each instant's opens as a fraction of the
            equity, purchases and sales together.
        trades: TRADE records.
        is_ruined: whether it was liquidated.
        n_delisted: positions that ended by a delisting.
        n_dropped: orders for assets that had no bar until they were delisted, or decided anew.
    """

    equity: np.ndarray
    weight: np.ndarray
    turnover: np.ndarray
    trades: np.ndarray
    is_ruined: bool
    n_delisted: int
    n_dropped: int


@compiled
def _record(trade, column, lot, units, price, base, fee, paid, row, bars, at_open, reason, part):
    share = units / lot.units
    trade.column, trade.entry_row, trade.exit_row = column, lot.row, row
    trade.entry_price, trade.exit_price = lot.price, price
    trade.units = units
    trade.fees = lot.fee * share + fee
    trade.slippage_cost = abs(units) * (abs(lot.price - lot.base) + abs(price - base))
    trade.funding = units * (paid - lot.paid)
    trade.lowest, trade.highest = min(lot.lowest, price), max(lot.highest, price)
    trade.bars_held = bars - lot.bar
    trade.entry_stop = trade.exit_stop = np.nan
    trade.entry_stop_kind = trade.exit_stop_kind = NO_STOP
    trade.reason, trade.at_open, trade.is_part = reason, at_open, part
    trade.trigger = trade.exit_trigger = -1
    lot.fee -= lot.fee * share
    lot.units -= units


@compiled
def _end_lots(m, units, price, base, fee_rate, row, at_open, reason, lots, head, held, paid, bars,
              trades, n):  # fmt: skip
    """End lots of a member, the oldest first, until these units, of its side, are gone."""
    left, is_whole = units, units == held[m]
    while head[m] != _NONE and (is_whole or abs(left) > _DUST * abs(units)):
        lot = lots[head[m]]
        is_part = not is_whole and abs(left) < abs(lot.units) * (1.0 - _DUST)
        size = left if is_part else lot.units
        fee = abs(size) * price * fee_rate
        goes_on = is_part or lot.next != _NONE
        _record(trades[n], m, lot, size, price, base, fee, paid[m], row, bars[m], at_open, reason,
                goes_on)  # fmt: skip
        n += 1
        left -= size
        if not is_part:
            head[m] = lot.next
    held[m] = 0.0 if is_whole else held[m] - units
    return n


@compiled
def _equity_after(value, target, due, equity, buy, sell):
    """The equity that is left when every due member is worth its part of it."""
    after = equity
    for _ in range(_MOST_ROUNDS):
        cost = 0.0
        for m in range(len(value)):
            if due[m]:
                change = target[m] * after - value[m]
                cost += change * buy if change > 0 else -change * sell
        new = equity - cost
        if new == after:
            break
        after = new
    return after


@compiled
def _trade(  # noqa: C901 - one pass over the instants; its parts share all of its arrays
    table, open_, high, low, close, funding, hole_funding, decided, targets, cash, fee, slippage,
    delisted_after, delisting_loss, tolerance, lots, trades,
):  # fmt: skip
    """Trade towards targets; the arguments are those of `rebalance`, and room for its records."""
    n_times, n = table.shape
    equity, turnover = np.zeros(n_times), np.zeros(n_times)
    weight = np.zeros((n_times, n))
    units, mark, before = np.zeros(n), np.zeros(n), np.zeros(n)
    paid, value = np.zeros(n), np.zeros(n)
    bars, missed, seen = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    head, tail = np.full(n, _NONE), np.full(n, _NONE)
    due, acts = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    target, goal = np.zeros(n), np.zeros(n)
    n_lots = n_trades = n_delisted = n_dropped = 0
    last_row = 0
    is_ruined = False
    for t in range(n_times):
        for m in range(n):  # the opens are seen
            before[m] = mark[m]
            row = table[t, m]
            if row >= 0:
                mark[m] = open_[row]
                missed[m] = 0
                seen[m] = last_row = row
                if units[m] != 0.0:
                    owed = open_[row] * hole_funding[row]
                    paid[m] += owed
                    cash -= units[m] * owed
            else:
                missed[m] += 1
        for m in range(n):
            if missed[m] == delisted_after:
                if due[m]:
                    due[m] = False
                    n_dropped += 1
                if units[m] != 0.0:
                    price = mark[m] * (1.0 - delisting_loss)
                    cash += units[m] * price
                    n_trades = _end_lots(m, units[m], price, price, 0.0, last_row, True, DELISTING,
                                     lots, head, units, paid, bars, trades, n_trades)  # fmt: skip
                    n_delisted += 1
        worth = cash
        for m in range(n):
            worth += units[m] * mark[m]
        if worth <= 0.0:
            is_ruined = True
        else:
            any_due = False
            for m in range(n):
                value[m] = units[m] * mark[m]
                acts[m] = due[m] and table[t, m] >= 0
                if acts[m]:
                    due[m] = False
                    change = target[m] * worth - value[m]
                    keeps = abs(change) <= _DUST * worth or (
                        abs(change) < tolerance * worth and target[m] * value[m] > 0.0
                    )
                    acts[m] = not keeps
                    any_due = any_due or acts[m]
            if any_due:
                # What cannot trade now keeps its part of the account: the others share the rest.
                room, gross = 1.0, 0.0
                for m in range(n):
                    if acts[m]:
                        gross += abs(target[m])
                    else:
                        room -= abs(value[m]) / worth
                scale = 1.0 if gross <= room + _DUST else max(room, 0.0) / gross
                for m in range(n):
                    goal[m] = target[m] * scale
                after = _equity_after(
                    value, goal, acts, worth, slippage + fee * (1.0 + slippage),
                    slippage + fee * (1.0 - slippage),
                )  # fmt: skip
                for m in range(n):
                    if not acts[m]:
                        continue
                    row, base = table[t, m], mark[m]
                    wanted = goal[m] * after / base
                    turnover[t] += abs(wanted - units[m]) * base / worth
                    held = units[m]
                    ends = 0.0  # of what is held, in its own sign
                    if held != 0.0:
                        if wanted * held <= 0.0:
                            ends = held
                        elif abs(wanted) < abs(held):
                            ends = held - wanted
                    if ends != 0.0:
                        price = base * (1.0 - slippage if ends > 0 else 1.0 + slippage)
                        cash += ends * price - abs(ends) * price * fee
                        n_trades = _end_lots(m, ends, price, base, fee, row, True, SIGNAL, lots,
                                             head, units, paid, bars, trades, n_trades)  # fmt: skip
                    begins = wanted - units[m]
                    if (wanted != 0.0 and ends == 0.0) or wanted * held < 0.0:
                        price = base * (1.0 + slippage if begins > 0 else 1.0 - slippage)
                        lot = lots[n_lots]
                        lot.units, lot.price, lot.base = begins, price, base
                        lot.fee = abs(begins) * price * fee
                        lot.paid, lot.row, lot.bar = paid[m], row, bars[m]
                        lot.lowest = lot.highest = price
                        lot.next = _NONE
                        cash -= begins * price + lot.fee
                        if head[m] == _NONE:
                            head[m] = n_lots
                        else:
                            lots[tail[m]].next = n_lots
                        tail[m] = n_lots
                        n_lots += 1
                        units[m] = wanted
        if not is_ruined:
            worth = cash
            for m in range(n):  # the closes are seen
                row = table[t, m]
                if row >= 0:
                    bars[m] += 1
                    before[m], mark[m] = mark[m], close[row]
                    if units[m] != 0.0:
                        owed = close[row] * funding[row]
                        paid[m] += owed
                        cash -= units[m] * owed
                        worth -= units[m] * owed
                        at = head[m]
                        while at != _NONE:
                            lots[at].lowest = min(lots[at].lowest, low[row])
                            lots[at].highest = max(lots[at].highest, high[row])
                            at = lots[at].next
                worth += units[m] * mark[m]
            is_ruined = worth <= 0.0
        if is_ruined:
            gone = was = cash
            for m in range(n):
                gone += units[m] * mark[m]
                was += units[m] * before[m]
            share = was / (was - gone) if was != gone else 0.0
            for m in range(n):
                if units[m] != 0.0:
                    price = before[m] + share * (mark[m] - before[m])
                    n_trades = _end_lots(m, units[m], price, price, 0.0, last_row, False,
                                         LIQUIDATION, lots, head, units, paid, bars, trades,
                                         n_trades)  # fmt: skip
            break
        equity[t] = worth
        for m in range(n):
            weight[t, m] = units[m] * mark[m] / worth
        if decided[t] >= 0:
            for m in range(n):
                target[m] = targets[decided[t], m]
                n_dropped += due[m]
                due[m] = (target[m] != 0.0 or units[m] != 0.0) and missed[m] < delisted_after
    for m in range(n):
        while head[m] != _NONE:
            lot = lots[head[m]]
            _record(trades[n_trades], m, lot, lot.units, mark[m], mark[m], 0.0, paid[m], seen[m],
                    bars[m], False, END_OF_DATA, False)  # fmt: skip
            n_trades += 1
            head[m] = lot.next
    return equity, weight, turnover, is_ruined, n_delisted, n_dropped, n_trades


def rebalance(
    panel: Panel,
    table: np.ndarray,
    targets: Targets,
    costs: CostModel,
    initial_cash: float,
    rule: CrossSection,
    funding: FundingRates | None = None,
) -> Rebalanced:
    """Trade towards targets out of one account.

    Args:
        panel: bars; its assets are the members, in their order.
        table: int64 `(n_times, n_assets)`, from `simulation.book.instants_of`.
        targets: what to hold after each rebalance.
        costs, initial_cash, funding: as a `SimulationConfig` has them.
        rule: when a held asset counts as delisted, what is lost then, and the tolerance.
    """
    decided = np.full(len(table), _NONE)
    decided[targets.step] = np.arange(len(targets.step))
    wanted = targets.weight != 0
    before = np.vstack((np.zeros_like(wanted[:1]), wanted[:-1]))
    # Each order ends lots that were bought before, splits one at most, and buys one at most.
    n_orders = int(np.count_nonzero(wanted | before)) + table.shape[1]
    trades = np.zeros(2 * n_orders, TRADE)
    of_bars, in_holes = funding_of_bars(panel, costs.funding_bps_day, funding)
    prices = (np.ascontiguousarray(panel[name]) for name in ("open", "high", "low", "close"))
    open_, high, low, close = prices
    equity, weight, turnover, is_ruined, n_delisted, n_dropped, n_trades = _trade(
        np.ascontiguousarray(table), open_, high, low, close, of_bars, in_holes, decided,
        targets.weight,
        float(initial_cash), costs.fee_bps / 1e4, costs.slippage_bps / 1e4, rule.delisted_after,
        float(rule.delisting_loss), float(rule.tolerance), np.zeros(n_orders, LOT), trades,
    )  # fmt: skip
    found = trades[:n_trades]
    return Rebalanced(equity, weight, turnover, found, is_ruined, n_delisted, n_dropped)
