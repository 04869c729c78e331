"""The walk of an account over its bars, compiled; docs/simulation.md is its description.

An account holds cash and one position for each of its members. Its table of rows has one line for
each instant and one column for each member: the panel row of the member's bar, or -1 where it has
none. A run on one asset is an account of one member; a book is an account of many.

All that is compiled together stands in this one file: the compiler's cache sees when the file of a
function has changed, and not when that of a function which it calls has.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from numba import njit

ENGINE = "backtest_pipeline.account"
ENGINE_VERSION = 2
"""Raise it when the same events on the same bars give other trades, equity or benchmark."""
LONG_ENTRY, LONG_EXIT, SHORT_ENTRY, SHORT_EXIT = 1, 2, 4, 8  # the bits of an event
# With this bit an event is no condition but a position: long, short, or without an entry flat.
HOLD = 16
NOTHING_PENDING = 2
EXIT_REASONS = (
    "signal",
    "reversal",
    "stop_loss",
    "trailing_stop",
    "take_profit",
    "time_stop",
    "liquidation",
    "end_of_data",
)
(
    SIGNAL,
    REVERSAL,
    STOP_LOSS,
    TRAILING_STOP,
    TAKE_PROFIT,
    TIME_STOP,
    LIQUIDATION,
    END_OF_DATA,
) = range(len(EXIT_REASONS))
_STAYS = -1
STOP_KINDS = ("stop_loss", "trailing_stop")
NO_STOP = -1
NO_REST = -1  # no cooldown
# Why an entry is refused.
UNSIZED, NO_ROOM, BELOW_LOT, BELOW_NOTIONAL, WITHOUT_STOP = range(5)
BY_NUMBER = -1  # a distance of a rule is its number, not one of the distances by row

ACCOUNT = np.dtype(
    [
        ("cash", np.float64),
        ("n_trades", np.int64),
        ("n_refusals", np.int64),
        ("row", np.int64),  # of a bar of the instant at hand
        ("ruined", np.bool_),
    ],
    align=True,
)
POSITION = np.dtype(
    [
        ("column", np.int64),
        ("row", np.int64),  # of the bar seen last
        ("lot_size", np.float64),
        ("min_notional", np.float64),
        ("units", np.float64),  # signed; 0 is flat
        ("bar_open", np.float64),
        ("mark", np.float64),  # price seen last
        ("worst_mark", np.float64),  # worst price of the bar at hand
        ("entry_price", np.float64),
        ("entry_base", np.float64),  # before slippage
        ("entry_fee", np.float64),
        ("entry_row", np.int64),
        ("bars_held", np.int64),
        ("funding", np.float64),
        ("peak", np.float64),  # best price since the entry, as of the close before
        ("stop", np.float64),
        ("trail", np.float64),
        ("target", np.float64),
        ("trailing", np.float64),  # distances of the trailing stop, as of the entry
        ("trailing_atr", np.float64),
        ("entry_stop", np.float64),  # the tighter of stop and trail, and which of them it is
        ("entry_stop_kind", np.int8),
        ("rests_until", np.int64),  # row of the first bar whose entries count again
        ("lowest", np.float64),
        ("highest", np.float64),
        ("due", np.int8),  # side to hold from the next open on, or NOTHING_PENDING
        ("exit_reason", np.int8),  # what ends it within the bar at hand, or _STAYS
        ("exit_base", np.float64),
    ],
    align=True,
)
TRADE = np.dtype(
    [
        ("column", np.int64),
        ("entry_row", np.int64),
        ("exit_row", np.int64),
        ("entry_price", np.float64),
        ("exit_price", np.float64),
        ("units", np.float64),
        ("fees", np.float64),
        ("slippage_cost", np.float64),
        ("funding", np.float64),
        ("lowest", np.float64),
        ("highest", np.float64),
        ("bars_held", np.int64),
        ("entry_stop", np.float64),
        ("exit_stop", np.float64),
        ("entry_stop_kind", np.int8),
        ("exit_stop_kind", np.int8),
        ("reason", np.int8),
        ("at_open", np.bool_),
    ],
    align=True,
)
REFUSAL = np.dtype(
    [
        ("column", np.int64),
        ("row", np.int64),  # of the bar at whose open the entry was due
        ("units", np.float64),  # wanted, signed; NaN where unknown
        ("side", np.int8),
        ("cause", np.int8),
    ],
    align=True,
)
BAR = np.dtype(
    [
        ("open", np.float64),
        ("high", np.float64),
        ("low", np.float64),
        ("close", np.float64),
        ("funding", np.float64),  # fraction of its notional that a long pays
        ("hole_funding", np.float64),  # the same, for the time between the bar before and it
        ("fine_first", np.int64),  # its finer bars
        ("fine_end", np.int64),
    ],
    align=True,
)
FINE_BAR = np.dtype([("low", np.float64), ("high", np.float64)])
MEMBER = np.dtype(
    [("asset", np.int64), ("lot_size", np.float64), ("min_notional", np.float64)], align=True
)
RULES = np.dtype(  # NaN is no such rule
    [
        ("initial_cash", np.float64),
        ("fee", np.float64),
        ("slippage", np.float64),
        ("max_leverage", np.float64),
        ("stop_loss", np.float64),
        ("take_profit", np.float64),
        ("trailing", np.float64),
        ("trailing_atr", np.float64),
        # Which of the distances by row stands in place of each of the four, or BY_NUMBER.
        ("stop_loss_by", np.int64),
        ("take_profit_by", np.int64),
        ("trailing_by", np.int64),
        ("trailing_atr_by", np.int64),
        ("by_row", np.bool_),  # whether any of the four is by row
        ("max_bars", np.int64),
        ("cooldown", np.int64),  # bars from the one that a position closes in, without an entry
        ("atr", np.int64),  # which of the average true ranges trailing_atr is a multiple of
        ("sizing", np.int64),  # which of the fractions of equity an entry uses
        ("target_first", np.bool_),
    ],
    align=True,
)


@cache
def engine_identity() -> tuple[str, str]:
    """Name of the engine and version of its compiler, recorded with each run."""
    return ENGINE, f"numba.{version('numba')}"


@njit(cache=True, nogil=True)
def decide(side: float, event: int) -> int:
    """The side to hold after seeing `event` while holding `side`."""
    long_in, short_in = event & LONG_ENTRY, event & SHORT_ENTRY
    if event & HOLD:
        return 1 if long_in else -1 if short_in else 0
    if long_in and short_in:  # a conflict says nothing
        long_in = short_in = 0
    if event & LONG_EXIT:
        long_in = 0
    if event & SHORT_EXIT:
        short_in = 0
    if side == 0:
        return 1 if long_in else -1 if short_in else 0
    if side > 0:
        return -1 if short_in else 0 if event & LONG_EXIT else 1
    return 1 if long_in else 0 if event & SHORT_EXIT else -1


@njit(cache=True, nogil=True)
def decide_all(
    side: np.ndarray, event: np.ndarray, rests: np.ndarray, row: np.ndarray
) -> np.ndarray:
    """The sides to hold next, int8, or NOTHING_PENDING where they stay as they are.

    `rests` is as accounts leave it, `row` that of the event.
    """
    wanted = np.empty(len(side), np.int8)
    for i in range(len(side)):
        wanted[i] = decide(side[i], event[i])
        if (rests[i] > row[i] and side[i] == 0) or (
            rests[i] != NO_REST and side[i] * wanted[i] < 0
        ):
            wanted[i] = 0
        if wanted[i] == side[i]:
            wanted[i] = NOTHING_PENDING
    return wanted


@njit(cache=True, nogil=True)
def _worth(account, positions):
    worth = account.cash
    for i in range(len(positions)):
        worth += positions[i].units * positions[i].mark
    return worth


@njit(cache=True, nogil=True)
def _stop_of(p, side):
    """The stop that the price meets first, and which one it is."""
    if np.isnan(p.stop) or side * p.trail > side * p.stop:
        return p.trail, NO_STOP if np.isnan(p.trail) else 1
    return p.stop, 0


@njit(cache=True, nogil=True)
def _record(account, p, price, base, fee, row, at_open, reason, cooldown, trades):
    """Write down the position as a trade that ends, or is marked, at this price, and close it."""
    trade = trades[account.n_trades]
    account.n_trades += 1
    trade.column = p.column
    trade.entry_row, trade.exit_row = p.entry_row, row
    trade.entry_price, trade.exit_price = p.entry_price, price
    trade.units = p.units
    trade.fees = p.entry_fee + fee
    trade.slippage_cost = abs(p.units) * (abs(p.entry_price - p.entry_base) + abs(price - base))
    trade.funding = p.funding
    trade.lowest, trade.highest = min(p.lowest, price), max(p.highest, price)
    trade.bars_held = p.bars_held
    trade.entry_stop, trade.entry_stop_kind = p.entry_stop, p.entry_stop_kind
    trade.exit_stop, trade.exit_stop_kind = _stop_of(p, np.sign(p.units))
    trade.reason, trade.at_open = reason, at_open
    p.rests_until = p.row + cooldown
    account.cash += p.units * price - fee
    p.units = 0.0


@njit(cache=True, nogil=True)
def _liquidate(account, positions, at_open, trades):
    """End the account whose worth at the worst marks is gone.

    Every position closes the same share of the way from its mark to its worst mark, the share at
    which the worth is zero.
    """
    account.ruined = True
    worth = worst = account.cash
    n_held = 0
    for i in range(len(positions)):
        p = positions[i]
        if p.units != 0.0:
            n_held += 1
            worth += p.units * p.mark
            worst += p.units * p.worst_mark
    share = worth / (worth - worst) if worth != worst else 0.0
    for i in range(len(positions)):
        p = positions[i]
        if p.units != 0.0:
            price = p.mark + share * (p.worst_mark - p.mark)
            if n_held == 1:
                price = -account.cash / p.units
            _record(account, p, price, price, 0.0, account.row, at_open, LIQUIDATION, 0, trades)


@njit(cache=True, nogil=True)
def _leave(account, positions, at_open, rules, trades):
    """Close the positions that have an exit reason, at their exit base after slippage.

    They are judged together, the others at their worst marks: fills that leave less than nothing
    are a liquidation; fees that would, take what is left, and the others close there as well.
    """
    left, fees = account.cash, 0.0
    for i in range(len(positions)):
        p = positions[i]
        if p.units != 0.0:
            if p.exit_reason != _STAYS:
                p.worst_mark = p.exit_base * (1.0 - np.sign(p.units) * rules.slippage)
                fees += abs(p.units) * p.worst_mark * rules.fee
            left += p.units * p.worst_mark
    if left <= 0.0:
        _liquidate(account, positions, at_open, trades)
        return
    account.ruined = left <= fees
    share = left / fees if account.ruined else 1.0
    for i in range(len(positions)):
        p = positions[i]
        if p.units == 0.0 or (p.exit_reason == _STAYS and not account.ruined):
            continue
        price, base, fee, reason = p.worst_mark, p.exit_base, 0.0, p.exit_reason
        if reason != _STAYS:
            fee = share * abs(p.units) * price * rules.fee
        if account.ruined:
            base, reason = price, LIQUIDATION
        gapped = p.exit_reason != _STAYS and p.exit_base == p.bar_open
        _record(account, p, price, base, fee, account.row, at_open or gapped, reason,
                rules.cooldown, trades)  # fmt: skip


@njit(cache=True, nogil=True)
def _trail(p, side, atr, rules):
    """Move the trailing stop towards the price, never away from it.

    A number is that of the rules in force, which windows of a walk-forward change under a position.
    """
    trailing, multiple = rules.trailing, rules.trailing_atr
    if rules.by_row:
        trailing = trailing if rules.trailing_by == BY_NUMBER else p.trailing
        multiple = multiple if rules.trailing_atr_by == BY_NUMBER else p.trailing_atr
    for level in (p.peak * (1.0 - side * trailing), p.peak - side * multiple * atr):
        if not np.isnan(level) and not side * level <= side * p.trail:
            p.trail = level


@njit(cache=True, nogil=True)
def _distance(number, by, distances, row):
    """The distance of an entry at the open of a row: a number of the rules, or the row's own."""
    return number if by == BY_NUMBER else distances[by, row]


@njit(cache=True, nogil=True)
def _lacks_distance(distances, row, rules):
    """Whether a distance that the row should give is NaN, so that a stop could not be set."""
    if not rules.by_row:
        return False
    for by in (rules.stop_loss_by, rules.take_profit_by, rules.trailing_by, rules.trailing_atr_by):
        if by != BY_NUMBER and np.isnan(distances[by, row]):
            return True
    return False


@njit(cache=True, nogil=True)
def _enter(account, p, units, base, atr, distances, rules):
    """Open the position, and set its levels."""
    side = np.sign(units)
    price = base * (1.0 + side * rules.slippage)
    p.units, p.entry_row, p.bars_held, p.funding = units, p.row, 0, 0.0
    p.entry_price, p.entry_base = price, base
    p.entry_fee = abs(units) * price * rules.fee
    p.peak = p.lowest = p.highest = price
    loss, gain = rules.stop_loss, rules.take_profit
    p.trailing, p.trailing_atr = rules.trailing, rules.trailing_atr
    if rules.by_row:
        loss = _distance(loss, rules.stop_loss_by, distances, p.row)
        gain = _distance(gain, rules.take_profit_by, distances, p.row)
        p.trailing = _distance(p.trailing, rules.trailing_by, distances, p.row)
        p.trailing_atr = _distance(p.trailing_atr, rules.trailing_atr_by, distances, p.row)
    p.stop = price * (1.0 - side * loss)
    p.target = price * (1.0 + side * gain)
    p.trail = np.nan
    _trail(p, side, atr, rules)
    p.entry_stop, p.entry_stop_kind = _stop_of(p, side)
    account.cash -= units * price + p.entry_fee


@njit(cache=True, nogil=True)
def _is_entry_due(p, row):
    return row >= 0 and p.units == 0.0 and (p.due == 1 or p.due == -1)


@njit(cache=True, nogil=True)
def _is_undefined(fractions, distances, row, rules):
    """Whether an entry at the open of a row has no size, or no place for its stop."""
    return np.isnan(fractions[row]) or _lacks_distance(distances, row, rules)


@njit(cache=True, nogil=True)
def _refuse(account, p, wanted, offered, size, refusals):
    """Write down an entry that is not made: units wanted, left by the room, and left by lots.

    Where a stop has no place, what is offered is NaN.
    """
    refusal = refusals[account.n_refusals]
    account.n_refusals += 1
    refusal.column, refusal.row = p.column, p.row
    refusal.units, refusal.side = p.due * wanted, p.due
    if np.isnan(wanted):
        refusal.cause = UNSIZED
    elif np.isnan(offered):
        refusal.cause = WITHOUT_STOP
    elif not offered > 0.0:
        refusal.cause = NO_ROOM
    elif not size > 0.0:
        refusal.cause = BELOW_LOT
    else:
        refusal.cause = BELOW_NOTIONAL


@njit(cache=True, nogil=True)
def _enter_due(
    account, positions, table_row, bars, atr_before, fractions, distances, rules, refusals
):
    """Open what is due at this open, all out of the same room."""
    equity = _worth(account, positions)
    room, need = rules.max_leverage * equity, 0.0
    for i in range(len(positions)):
        p = positions[i]
        room -= abs(p.units) * p.mark
        if _is_entry_due(p, table_row[i]) and not _is_undefined(fractions, distances, p.row, rules):
            costs = (1.0 + rules.slippage) * (1.0 + rules.fee) if p.due > 0 else 1.0
            need += fractions[p.row] * equity * costs
    if room < 1e-9 * equity:
        room = 0.0  # what rounding leaves of a room that is used up
    share = 1.0 if need <= room or need == 0.0 else room / need
    for i in range(len(positions)):
        p = positions[i]
        if not _is_entry_due(p, table_row[i]):
            continue
        bar, fraction = bars[p.row], fractions[p.row]
        size = offered = share * fraction * equity / bar.open
        if _lacks_distance(distances, p.row, rules):
            size = offered = np.nan
        if p.lot_size > 0.0:
            size = np.floor(size / p.lot_size + 1e-9) * p.lot_size  # 0.3 / 0.1 is three lots
        if size > 0.0 and size * bar.open >= p.min_notional:
            _enter(account, p, p.due * size, bar.open, atr_before[p.row], distances, rules)
        else:
            _refuse(account, p, fraction * equity / bar.open, offered, size, refusals)


@njit(cache=True, nogil=True)
def _trade_due(
    account, positions, table_row, bars, atr_before, fractions, distances, rules, trades, refusals
):
    """Close, then open, what is due at this open."""
    leaving = False
    for i in range(len(positions)):
        p = positions[i]
        p.exit_reason, p.exit_base = _STAYS, p.mark
        if p.units == 0.0 or table_row[i] < 0:
            continue
        if p.due != NOTHING_PENDING:
            p.exit_reason = SIGNAL if p.due == 0 else REVERSAL
        elif p.bars_held >= rules.max_bars:
            p.exit_reason = TIME_STOP
        leaving = leaving or p.exit_reason != _STAYS
    if leaving:
        _leave(account, positions, True, rules, trades)
    if not account.ruined:
        _enter_due(account, positions, table_row, bars, atr_before, fractions, distances, rules,
                   refusals)  # fmt: skip


@njit(cache=True, nogil=True)
def _see_open(account, p, row, bar, rules):
    """See the bar's open; returns whether anything is due at it.

    What is held pays for the time since the bar before: it was held through a hole as well.
    """
    p.row = account.row = row
    p.worst_mark = p.bar_open = bar.open
    funding = p.units * bar.open * bar.hole_funding
    p.funding += funding
    account.cash -= funding
    return p.due != NOTHING_PENDING or (p.units != 0.0 and p.bars_held >= rules.max_bars)


@njit(cache=True, nogil=True)
def _target_first(p, bar, fine_bars, rules):
    """Whether the target comes before the stop in a bar that touches both from between them."""
    side, stop = np.sign(p.units), p.exit_base
    for k in range(bar.fine_first, bar.fine_end):
        against, towards = fine_bars[k].low, fine_bars[k].high
        if side < 0:
            against, towards = towards, against
        stopped, reached = side * against <= side * stop, side * towards >= side * p.target
        if stopped != reached:
            return reached
        if stopped:
            break
    return rules.target_first


@njit(cache=True, nogil=True)
def _see_range(account, p, bar, rules):
    """See what lies within the bar of a position: what ends it, its worst price, its funding.

    Returns whether the bar touches both its stop and its target from between them.
    """
    side, open_ = np.sign(p.units), bar.open
    against, towards = bar.low, bar.high
    if side < 0:
        against, towards = towards, against
    stop, kind = _stop_of(p, side)
    reason = STOP_LOSS if kind == 0 else TRAILING_STOP
    stopped, reached = side * against <= side * stop, side * towards >= side * p.target
    funding = p.units * bar.close * bar.funding
    if stopped or reached:
        funding = max(funding, 0.0)
    p.funding += funding
    account.cash -= funding
    p.exit_reason, p.worst_mark = _STAYS, against
    if stopped and not (reached and side * open_ >= side * p.target):
        p.exit_reason, p.exit_base = reason, open_ if side * open_ <= side * stop else stop
        p.worst_mark = p.exit_base * (1.0 - side * rules.slippage)
    elif reached:
        _reach_target(p, side, open_, against)
    return stopped and reached and side * stop < side * open_ < side * p.target


@njit(cache=True, nogil=True)
def _reach_target(p, side, open_, against):
    p.exit_reason, p.worst_mark = TAKE_PROFIT, against
    p.exit_base = open_ if side * open_ >= side * p.target else p.target


@njit(cache=True, nogil=True)
def _see_close(p, row, bar, event, atr, rules):
    """Mark the position to the close, move its levels, and read the bar's conditions."""
    side = np.sign(p.units)
    if side != 0:
        p.mark = bar.close
        p.bars_held += 1
        p.lowest, p.highest = min(p.lowest, bar.low), max(p.highest, bar.high)
        p.peak = p.highest if side > 0 else p.lowest
        _trail(p, side, atr, rules)
    elif row < p.rests_until and not event & HOLD:
        event &= ~(LONG_ENTRY | SHORT_ENTRY)
    wanted = decide(side, event)
    if rules.cooldown > 0 and side * wanted < 0 and not event & HOLD:
        wanted = 0  # a reversal would be an entry at the close of a position
    p.due = NOTHING_PENDING if wanted == side else wanted


@njit(cache=True, nogil=True)
def _trade(  # noqa: C901 - see below why its loops are not functions
    account, positions, table, events, bars, fine_bars, atr, atr_before, fractions, distances,
    rules, equity, trades, refusals,
):  # fmt: skip
    """Trade in one account over lines of its table; `equity` is written for each of them.

    The functions that every step calls take single records: passing arrays counts their
    references, which would make this eight times as slow.
    """
    members = range(len(positions))
    busy = False  # whether anything is held or due
    for i in members:
        busy = busy or positions[i].units != 0.0 or positions[i].due != NOTHING_PENDING
    for step in range(len(table)):
        if busy:
            held = due = False
            worst = 0.0
            for i in members:
                p, row = positions[i], table[step, i]
                p.worst_mark = p.mark
                if row >= 0:
                    due = _see_open(account, p, row, bars[row], rules) or due
                worst += p.units * p.worst_mark
                held = held or p.units != 0.0
            if held and account.cash + worst <= 0.0:
                _liquidate(account, positions, True, trades)
            for i in members:
                positions[i].mark = positions[i].worst_mark
            if due and not account.ruined:
                _trade_due(account, positions, table[step], bars, atr_before, fractions, distances,
                           rules, trades, refusals)  # fmt: skip

            ending = False
            worst, held = 0.0, False
            for i in members:
                p, row = positions[i], table[step, i]
                p.exit_reason, p.worst_mark = _STAYS, p.mark
                if p.units != 0.0:
                    if row >= 0:
                        unclear = _see_range(account, p, bars[row], rules)
                        if unclear and _target_first(p, bars[row], fine_bars, rules):
                            against = bars[row].low if p.units > 0.0 else bars[row].high
                            _reach_target(p, np.sign(p.units), bars[row].open, against)
                        ending = ending or p.exit_reason != _STAYS
                    worst += p.units * p.worst_mark
                    held = True
            if held and account.cash + worst <= 0.0:
                _liquidate(account, positions, False, trades)
            elif ending:
                _leave(account, positions, False, rules, trades)
            if account.ruined:
                equity[step:] = 0.0
                return
        worth, busier = account.cash, False
        for i in members:
            p, row = positions[i], table[step, i]
            if row >= 0 and (busy or events[row] != 0):
                _see_close(p, row, bars[row], events[row], atr[row], rules)
            worth += p.units * p.mark
            busier = busier or p.units != 0.0 or p.due != NOTHING_PENDING
        equity[step] = worth
        busy = busier


@njit(cache=True, nogil=True)
def _mark_open(account, positions, trades):
    """Write down what is held after the last bar, marked to its last close."""
    for i in range(len(positions)):
        p = positions[i]
        if p.units != 0.0:
            units = p.units
            _record(account, p, p.mark, p.mark, 0.0, p.row, False, END_OF_DATA, 0, trades)
            p.units = units  # marked, not closed


@njit(cache=True, nogil=True)
def _next_side(account, p, rules):
    if p.due != NOTHING_PENDING and not account.ruined:
        return p.due
    return 0 if p.bars_held >= rules.max_bars else np.int8(np.sign(p.units))


@njit(cache=True, nogil=True)
def _trade_all(
    table, stretches, accounts, members, events, bars, fine_bars, atr, atr_before, fractions,
    distances, rules, rule_of, equity, trades, refusals, side, next_side, rests, ruined,
):  # fmt: skip
    """Trade every run's accounts; returns how many trades and refusals there are."""
    n_accounts, width = len(accounts) - 1, table.shape[1]
    account = np.zeros(1, ACCOUNT)[0]
    positions = np.zeros(width, POSITION)
    for run in range(len(events)):
        for a in range(n_accounts):
            account.cash, account.ruined = rules[0].initial_cash, False
            for i in range(width):
                p, member = positions[i], members[a * width + i]
                p.column = run * len(members) + member.asset
                p.lot_size, p.min_notional = member.lot_size, member.min_notional
                p.units, p.mark, p.due, p.rests_until = 0.0, 0.0, NOTHING_PENDING, 0
            for s in range(accounts[a], accounts[a + 1]):
                lines = slice(stretches[s], stretches[s + 1])
                if account.ruined:
                    equity[run, lines] = 0.0
                    continue
                own = rules[rule_of[run, s]]
                _trade(account, positions, table[lines], events[run], bars, fine_bars,
                       atr[own.atr], atr_before[own.atr], fractions[own.sizing], distances, own,
                       equity[run, lines], trades, refusals)  # fmt: skip
            if not account.ruined:
                _mark_open(account, positions, trades)
            ruined[run * n_accounts + a] = account.ruined
            last = rules[rule_of[run, accounts[a + 1] - 1]]
            for i in range(width):
                p = positions[i]
                side[p.column] = np.sign(p.units)
                next_side[p.column] = _next_side(account, p, last)
                rests[p.column] = p.rests_until if last.cooldown > 0 else NO_REST
    return account.n_trades, account.n_refusals


class Simulated(NamedTuple):
    """The result of the accounts.

    Attributes:
        equity: float64 `(n_runs, n_lines)`, at each line's closes.
        trades: TRADE records by account, in the order of their ends.
        refusals: REFUSAL records by account, in the order of time.
        side: int8 `(n_columns,)`, side held at the end.
        next_side: int8 `(n_columns,)`, side that would be held from the next open on.
        rests: int64 `(n_columns,)`, row of the first bar after the last position whose entries
            count again, or NO_REST.
        ruined: bool `(n_runs * n_accounts,)`.
    """

    equity: np.ndarray
    trades: np.ndarray
    refusals: np.ndarray
    side: np.ndarray
    next_side: np.ndarray
    rests: np.ndarray
    ruined: np.ndarray


def simulate(
    table: np.ndarray,
    stretches: np.ndarray,
    accounts: np.ndarray,
    members: np.ndarray,
    events: np.ndarray,
    bars: np.ndarray,
    fine_bars: np.ndarray,
    atr: np.ndarray,
    atr_before: np.ndarray,
    fractions: np.ndarray,
    distances: np.ndarray,
    rules: np.ndarray,
    rule_of: np.ndarray,
) -> Simulated:
    """Trade every run's conditions in its accounts.

    Args:
        table: int64 `(n_lines, n_members)`, panel rows of the members' bars at each instant, -1
            where there is none; the lines of all accounts, one after the other.
        stretches: int64 `(n_stretches + 1,)`, bounds of the lines that are traded by one set of
            rules.
        accounts: int64 `(n_accounts + 1,)`, bounds of the stretches of each account.
        members: MEMBER `(n_accounts * n_members,)`, assets of the accounts.
        events: uint8 `(n_runs, n_rows)`, see `simulation.orders`.
        bars: BAR `(n_rows,)`.
        fine_bars: FINE_BAR, those that `bars` name.
        atr, atr_before: float64 `(n_periods, n_rows)`, average true ranges at the close of each
            bar, and at that of the bar before it.
        fractions: float64 `(n_sizings, n_rows)`, of the equity, for an entry at each bar's open;
            NaN is unknown.
        distances: float64 `(n_distances, n_rows)`, of stops and targets, for an entry at each
            bar's open: fractions of the price or multiples of the average true range. Where a
            rule reads one that is NaN, the entry is refused.
        rules: RULES `(n_rules,)`; starting cash, costs and leverage are the same in all.
        rule_of: int64 `(n_runs, n_stretches)`, which rules each run trades a stretch by.
    """
    n_runs, n_accounts = len(events), len(accounts) - 1
    # Each bar with an entry gives one trade at most.
    n_entries = np.count_nonzero(events & np.uint8(LONG_ENTRY | SHORT_ENTRY))
    simulated = Simulated(
        equity=np.empty((n_runs, len(table))),
        trades=np.zeros(n_entries, TRADE),
        refusals=np.zeros(n_entries, REFUSAL),
        side=np.empty(n_runs * len(members), np.int8),
        next_side=np.empty(n_runs * len(members), np.int8),
        rests=np.empty(n_runs * len(members), np.int64),
        ruined=np.empty(n_runs * n_accounts, np.bool_),
    )
    n, m = _trade_all(
        table, stretches, accounts, members, events, bars, fine_bars, atr, atr_before, fractions,
        distances, rules, rule_of, *simulated,
    )  # fmt: skip
    return simulated._replace(trades=simulated.trades[:n], refusals=simulated.refusals[:m])
