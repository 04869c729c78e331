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

from backtest_pipeline.market.compiled import compiled
from backtest_pipeline.market.timeframes import DAY_US

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
    "delisting",
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
    DELISTING,  # in books that rank their assets alone
) = range(len(EXIT_REASONS))
_STAYS = -1
STOP_KINDS = ("stop_loss", "trailing_stop")
NO_STOP = -1
NO_REST = -1  # no cooldown
# Why an entry is refused; what follows ALLOWED, by plans alone: from DAY_LOSS to COOLING_DOWN, by a
# limit of the account at the close, and then at the open.
(
    UNSIZED,
    NO_ROOM,
    BELOW_LOT,
    BELOW_NOTIONAL,
    WITHOUT_STOP,
    ALLOWED,
    SYMBOL_NOT_ALLOWED,
    SIDE_NOT_ALLOWED,
    CATEGORY_NOT_ALLOWED,
    PLAN_EXPIRED,
    STANCE_WAITS,
    RULE_FAILED,
    RULE_UNDEFINED,
    FEATURE_MISSING,
    BOTH_SIDES,
    OUTRANKED,
    HELD_TOO_SHORT,
    DAY_LOSS,
    TRADES_OF_DAY,
    TRADES_OF_TIMEFRAME,
    OUT_OF_SESSION,
    TRADES_OF_SESSION,
    TRADES_OF_SYMBOL,
    FLAT_TOO_SHORT,
    COOLING_DOWN,
    POSITION_RISK,
    SYMBOL_EXPOSURE,
    PORTFOLIO_EXPOSURE,
    RISK_OF_DAY,
    LIQUIDATED,
    EMERGENCY_NOT_ALLOWED,
    EMERGENCY_UNDEFINED,
    EMERGENCY_WITHOUT_BAR,
) = range(33)
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
        ("exit_share", np.float64),  # part of the units that an exit closes
        ("trigger", np.int64),  # of a plan, which opened it, or which an entry is due by
        ("exit_trigger", np.int64),  # which the exit is due by
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
        ("is_part", np.bool_),  # of a position that goes on
        ("trigger", np.int64),
        ("exit_trigger", np.int64),
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
        ("is_exit", np.bool_),
        ("trigger", np.int64),
        ("value", np.float64),  # what met the limit, and the limit; NaN where there is none
        ("bound", np.float64),
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


ENTERS, REDUCES, LEAVES, LEAVES_AT_ONCE = range(4)  # what a trigger does
NEVER = -(2**62)
TRIGGER = np.dtype(
    [
        ("member", np.int64),  # position of its symbol among the account's
        ("bits_from", np.int64),  # its event at a row is at this place plus the row
        ("kind", np.int8),
        ("stop_loss", np.float64),
        ("share", np.float64),  # part of a position that it closes
        ("cooldown", np.int64),
        ("rests_from", np.int64),  # row that its last position closed in
        ("n_triggered", np.int64),
        ("n_entered", np.int64),
    ],
    align=True,
)
WISH = np.dtype(  # what a trigger of a plan asks for at the close of a bar
    [
        ("trigger", np.int64),
        ("plan", np.int64),
        ("row", np.int64),
        ("side", np.int8),  # to enter, or of the position to leave; 0 is any
        ("cause", np.int8),  # ALLOWED, or why the plan does not allow it
        ("void", np.bool_),  # an entry beside the exit of its own side
    ],
    align=True,
)
LIMITS = np.dtype(  # of a plan; fractions of the equity, numbers of bars and of entries
    [
        ("position_risk", np.float64),
        ("symbol_exposure", np.float64),
        ("portfolio_exposure", np.float64),
        ("daily_loss", np.float64),
        ("risk_budget", np.float64),
        ("trades_per_day", np.int64),
        ("trades_per_symbol", np.int64),
        ("trades_per_timeframe", np.int64),
        ("min_hold", np.int64),
        ("min_flat", np.int64),
        ("cooldown", np.int64),
        ("sizing", np.int64),
        ("first_session", np.int64),
        ("end_session", np.int64),
    ],
    align=True,
)
SESSION = np.dtype([("start", np.int64), ("end", np.int64), ("max_trades", np.int64)])
ORDER = np.dtype(  # of a member: what is decided for it, and what its day was
    [
        ("end", np.int64),  # row after its last
        ("trigger", np.int64),
        ("plan", np.int64),
        ("row", np.int64),  # of the bar that it was decided at
        ("day", np.int64),
        ("minute", np.int64),
        ("priority", np.int64),
        ("risk", np.float64),
        ("n_today", np.int64),
        ("wanted", np.int8),  # sides that wishes of the bar at hand ask for, as bits
        ("entering", np.bool_),  # decided at the bar at hand
        ("leaving", np.bool_),
        ("waiting", np.bool_),  # an entry that is due and was not tried yet
        ("urgent", np.bool_),  # an emergency exit is due, and has met no missing bar yet
    ],
    align=True,
)
DAY_BOOK = np.dtype(
    [
        ("day", np.int64),
        ("day_start", np.float64),  # equity at the last close before the day
        ("equity", np.float64),  # at the last close
        ("risk_today", np.float64),
        ("n_today", np.int64),
        ("n_seen", np.int64),  # trades that were looked at
        ("n_decided", np.int64),
        ("n_triggered", np.int64),
        ("n_entered", np.int64),
        ("n_exits_triggered", np.int64),
        ("n_exits", np.int64),
    ],
    align=True,
)


class Followed(NamedTuple):
    """Plans that an account follows, as arrays.

    Attributes:
        ts: int64 `(n_lines,)`, close stamps of the lines, microseconds since 1970 UTC.
        entries: WISH, by line, then by falling priority.
        entry_bounds: int64 `(n_lines + 1,)`, those of each line.
        exits: WISH of triggers that only close, by line, then by falling priority.
        exit_bounds: int64 `(n_lines + 1,)`.
        plan_of: int64 `(n_lines,)`, the plan in force at each line, or the last that was.
        triggers: TRIGGER `(n_triggers,)`.
        bits: uint8, events of the triggers.
        limits: LIMITS `(n_plans,)`.
        sessions: SESSION, those of all plans.
        fractions: float64 `(n_sizings, n_rows)`, as `simulate` takes them.
        orders: ORDER `(n_members,)`.
        book: DAY_BOOK `(1,)`.
        minutes: int64, of the UTC day, at which the entries of the day were decided.
        queue: int64 `(n_members,)`, for the members whose entries are due.
    """

    ts: np.ndarray
    entries: np.ndarray
    entry_bounds: np.ndarray
    exits: np.ndarray
    exit_bounds: np.ndarray
    plan_of: np.ndarray
    triggers: np.ndarray
    bits: np.ndarray
    limits: np.ndarray
    sessions: np.ndarray
    fractions: np.ndarray
    orders: np.ndarray
    book: np.ndarray
    minutes: np.ndarray
    queue: np.ndarray


@cache
def account_identity() -> tuple[str, str]:
    """Name of the engine and version of its compiler, recorded with each run of the account."""
    return ENGINE, f"numba.{version('numba')}"


@compiled
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


@compiled
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


@compiled
def _worth(account, positions):
    worth = account.cash
    for i in range(len(positions)):
        worth += positions[i].units * positions[i].mark
    return worth


@compiled
def _stop_of(p, side):
    """The stop that the price meets first, and which one it is."""
    if np.isnan(p.stop) or side * p.trail > side * p.stop:
        return p.trail, NO_STOP if np.isnan(p.trail) else 1
    return p.stop, 0


@compiled
def _record(account, p, price, base, fee, row, at_open, reason, cooldown, trades):
    """Write down what is left of the position as a trade that ends, or is marked, at this price.

    Only an exit of a plan's leaves a part of it open: its `exit_share` is below 1.
    """
    share, units = p.exit_share, p.units * p.exit_share
    trade = trades[account.n_trades]
    account.n_trades += 1
    trade.column = p.column
    trade.entry_row, trade.exit_row = p.entry_row, row
    trade.entry_price, trade.exit_price = p.entry_price, price
    trade.units = units
    trade.fees = p.entry_fee * share + fee
    trade.slippage_cost = abs(units) * (abs(p.entry_price - p.entry_base) + abs(price - base))
    trade.funding = p.funding * share
    trade.lowest, trade.highest = min(p.lowest, price), max(p.highest, price)
    trade.bars_held = p.bars_held
    trade.entry_stop, trade.entry_stop_kind = p.entry_stop, p.entry_stop_kind
    trade.exit_stop, trade.exit_stop_kind = _stop_of(p, np.sign(p.units))
    trade.reason, trade.at_open, trade.is_part = reason, at_open, share < 1.0
    trade.trigger, trade.exit_trigger = p.trigger, p.exit_trigger
    account.cash += units * price - fee
    if share < 1.0:
        p.units -= units
        p.entry_fee -= p.entry_fee * share
        p.funding -= p.funding * share
        p.exit_share = 1.0
    else:
        p.units = 0.0
        p.rests_until = p.row + cooldown


@compiled
def _liquidate(account, positions, at_open, trades):
    """End the account whose worth at the worst marks is gone.

    Every position closes the same share of the way from its mark to its worst mark, the share at
    which the worth is zero.
    """
    account.ruined = True
    for i in range(len(positions)):
        positions[i].exit_share = 1.0
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


@compiled
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
                fees += abs(p.units) * p.exit_share * p.worst_mark * rules.fee
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
            fee = share * abs(p.units) * p.exit_share * price * rules.fee
        if account.ruined:
            base, reason, p.exit_share = price, LIQUIDATION, 1.0
        gapped = p.exit_reason != _STAYS and p.exit_base == p.bar_open
        _record(account, p, price, base, fee, account.row, at_open or gapped, reason,
                rules.cooldown, trades)  # fmt: skip


@compiled
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


@compiled
def _distance(number, by, distances, row):
    """The distance of an entry at the open of a row: a number of the rules, or the row's own."""
    return number if by == BY_NUMBER else distances[by, row]


@compiled
def _lacks_distance(distances, row, rules):
    """Whether a distance that the row should give is NaN, so that a stop could not be set."""
    if not rules.by_row:
        return False
    for by in (rules.stop_loss_by, rules.take_profit_by, rules.trailing_by, rules.trailing_atr_by):
        if by != BY_NUMBER and np.isnan(distances[by, row]):
            return True
    return False


@compiled
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


@compiled
def _is_entry_due(p, row):
    return row >= 0 and p.units == 0.0 and (p.due == 1 or p.due == -1)


@compiled
def _is_undefined(fractions, distances, row, rules):
    """Whether an entry at the open of a row has no size, or no place for its stop."""
    return np.isnan(fractions[row]) or _lacks_distance(distances, row, rules)


@compiled
def _refuse(account, p, wanted, offered, size, refusals):
    """Write down an entry that is not made: units wanted, left by the room, and left by lots.

    Where a stop has no place, what is offered is NaN.
    """
    refusal = refusals[account.n_refusals]
    account.n_refusals += 1
    refusal.column, refusal.row = p.column, p.row
    refusal.units, refusal.side = p.due * wanted, p.due
    refusal.trigger, refusal.value, refusal.bound = p.trigger, np.nan, np.nan
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


@compiled
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


# What follows is of accounts that follow plans; docs/plans.md is its description.

_ROUNDING = 1e-9
_MINUTE_US = 60_000_000


@compiled
def _block(account, p, trigger, row, side, units, cause, value, bound, is_exit, refusals):
    """Write down what a trigger asks for and does not get; `row` is of the bar it would fill at."""
    refusal = refusals[account.n_refusals]
    account.n_refusals += 1
    refusal.column, refusal.row = p.column, row
    refusal.units, refusal.side, refusal.cause = units, side, cause
    refusal.trigger, refusal.is_exit = trigger, is_exit
    refusal.value, refusal.bound = value, bound


@compiled
def _take_back(order, followed):
    """Forget an entry of the day that was decided and not made."""
    book = followed.book[0]
    if order.day != book.day:
        return
    for n in range(book.n_today):
        if followed.minutes[n] == order.minute:
            followed.minutes[n] = followed.minutes[book.n_today - 1]
            break
    book.n_today -= 1
    order.n_today -= 1


@compiled
def _due_by_priority(positions, table_row, followed):
    """How many entries are due; the queue has their members, those decided first at its head."""
    n, queue, orders = 0, followed.queue, followed.orders
    for i in range(len(positions)):
        if _is_entry_due(positions[i], table_row[i]):
            at = n
            while at > 0 and orders[queue[at - 1]].priority > orders[i].priority:
                queue[at] = queue[at - 1]
                at -= 1
            queue[at] = i
            n += 1
    return n


@compiled
def _approve(account, positions, table_row, bars, fractions, distances, refusals, followed):
    """Block the due entries that exceed a limit of risk; returns how many entries were due.

    Those that are left find their fraction of the equity and their stop at the row of their bar.
    """
    book, equity, gross = followed.book[0], _worth(account, positions), 0.0
    for i in range(len(positions)):
        gross += abs(positions[i].units) * positions[i].mark
    n_due = _due_by_priority(positions, table_row, followed)
    for n in range(n_due):
        i = followed.queue[n]
        p, order = positions[i], followed.orders[i]
        limits, stop_loss = followed.limits[order.plan], followed.triggers[order.trigger].stop_loss
        fraction = followed.fractions[limits.sizing, p.row]
        fractions[p.row], distances[0, p.row] = fraction, stop_loss
        p.trigger, order.waiting, order.risk = order.trigger, False, 0.0
        if np.isnan(fraction):
            continue
        risk, room = fraction * stop_loss, 1.0 + _ROUNDING
        exposure = gross / equity + fraction
        cause, value, bound = ALLOWED, np.nan, np.nan
        if risk > limits.position_risk * room:
            cause, value, bound = POSITION_RISK, risk, limits.position_risk
        elif fraction > limits.symbol_exposure * room:
            cause, value, bound = SYMBOL_EXPOSURE, fraction, limits.symbol_exposure
        elif exposure > limits.portfolio_exposure * room:
            cause, value, bound = PORTFOLIO_EXPOSURE, exposure, limits.portfolio_exposure
        elif book.risk_today + risk > limits.risk_budget * room:
            cause, value, bound = RISK_OF_DAY, book.risk_today + risk, limits.risk_budget
        if cause == ALLOWED:
            gross += fraction * equity
            order.risk = risk
            book.risk_today += risk
        else:
            units = p.due * fraction * equity / bars[p.row].open
            _block(account, p, order.trigger, p.row, p.due, units, cause, value, bound, False,
                   refusals)  # fmt: skip
            p.due = NOTHING_PENDING
            _take_back(order, followed)
    return n_due


@compiled
def _settle(positions, n_due, equity, followed):
    """Count the entries that were made, at the risk that they have, and forget the others."""
    book = followed.book[0]
    for n in range(n_due):
        i = followed.queue[n]
        p, order = positions[i], followed.orders[i]
        if p.due == NOTHING_PENDING:
            continue
        trigger = followed.triggers[order.trigger]
        book.risk_today -= order.risk
        if p.units == 0.0:
            _take_back(order, followed)
            continue
        book.risk_today += abs(p.units) * p.bar_open * trigger.stop_loss / equity
        book.n_entered += 1
        trigger.n_entered += 1


@compiled
def _drop_due(account, positions, refusals, followed):
    """Write down the entries that were still due when the account was liquidated."""
    for i in range(len(positions)):
        p, order = positions[i], followed.orders[i]
        if order.waiting and order.row + 1 < order.end:
            _block(account, p, order.trigger, order.row + 1, p.due, np.nan, LIQUIDATED, np.nan,
                   np.nan, False, refusals)  # fmt: skip


@compiled
def _decide(account, positions, table_row, step, worth, bars, trades, refusals, followed):
    """Decide at the closes of a line what is due at the next opens.

    Returns whether anything is held or due.
    """
    book = followed.book[0]
    _begin_line(account, positions, step, trades, followed)
    _decide_exits(account, positions, table_row, step, refusals, followed)
    entries = followed.entries[followed.entry_bounds[step] : followed.entry_bounds[step + 1]]
    for e in range(len(entries)):
        wish = entries[e]
        if wish.cause == ALLOWED:
            order = followed.orders[followed.triggers[wish.trigger].member]
            order.wanted |= LONG_ENTRY if wish.side > 0 else SHORT_ENTRY
    for e in range(len(entries)):
        _wish_entry(account, positions, entries[e], step, worth, bars, refusals, followed)
    book.equity = worth
    for i in range(len(positions)):
        if positions[i].units != 0.0 or positions[i].due != NOTHING_PENDING:
            return True
    return False


@compiled
def _begin_line(account, positions, step, trades, followed):
    """See which day it is, and which positions have closed since the line before."""
    book, day = followed.book[0], followed.ts[step] // DAY_US
    if day != book.day:
        book.day, book.day_start = day, book.equity
        book.n_today, book.risk_today = 0, 0.0
        for i in range(len(positions)):
            followed.orders[i].n_today = 0
    for n in range(book.n_seen, account.n_trades):
        if not trades[n].is_part:
            trigger = followed.triggers[trades[n].trigger]
            trigger.rests_from = positions[trigger.member].rests_until
    book.n_seen = account.n_trades
    for i in range(len(positions)):
        order = followed.orders[i]
        order.wanted, order.entering, order.leaving = 0, False, False


@compiled
def _decide_exits(account, positions, table_row, step, refusals, followed):
    """Decide what is left: emergencies first, then by the triggers that entered, then others."""
    exits = followed.exits[followed.exit_bounds[step] : followed.exit_bounds[step + 1]]
    for e in range(len(exits)):
        if followed.triggers[exits[e].trigger].kind == LEAVES_AT_ONCE:
            wish = exits[e]
            _wish_exit(account, positions, wish.trigger, wish.plan, wish.row, wish.side, wish.cause,
                       refusals, followed)  # fmt: skip
    for i in range(len(positions)):
        p, row, order = positions[i], table_row[i], followed.orders[i]
        if p.units == 0.0:
            continue
        if row >= 0:
            order.urgent = order.urgent and order.leaving
            event = followed.bits[followed.triggers[p.trigger].bits_from + row]
            if event & (LONG_EXIT if p.units > 0.0 else SHORT_EXIT):
                _wish_exit(account, positions, p.trigger, followed.plan_of[step], row, 0, ALLOWED,
                           refusals, followed)  # fmt: skip
        elif order.urgent and order.row + 1 < order.end:
            order.urgent = False
            followed.book[0].n_exits_triggered += 1
            _block(account, p, p.exit_trigger, order.row + 1, np.sign(p.units), abs(p.units),
                   EMERGENCY_WITHOUT_BAR, np.nan, np.nan, True, refusals)  # fmt: skip
    for e in range(len(exits)):
        if followed.triggers[exits[e].trigger].kind != LEAVES_AT_ONCE:
            wish = exits[e]
            _wish_exit(account, positions, wish.trigger, wish.plan, wish.row, wish.side, wish.cause,
                       refusals, followed)  # fmt: skip


@compiled
def _wish_exit(account, positions, number, plan, row, side, cause, refusals, followed):
    """Order the exit that a trigger asks for, or say why not; nothing if there is none to leave."""
    trigger = followed.triggers[number]
    p, order, book = positions[trigger.member], followed.orders[trigger.member], followed.book[0]
    held = np.sign(p.units)
    if held == 0 or side * held < 0:
        return
    min_hold, value, bound = followed.limits[plan].min_hold, np.nan, np.nan
    if cause == ALLOWED and order.leaving:
        cause = OUTRANKED
    elif cause == ALLOWED and trigger.kind != LEAVES_AT_ONCE and p.bars_held < min_hold:
        cause, value, bound = HELD_TOO_SHORT, p.bars_held, min_hold
    share = _whole_lots(p, trigger.share if trigger.kind == REDUCES else 1.0)
    if row + 1 < order.end:  # else nothing is due in these bars
        book.n_exits_triggered += 1
        if cause == ALLOWED:
            book.n_exits += 1
        else:
            _block(account, p, number, row + 1, held, abs(p.units) * share, cause, value, bound,
                   True, refusals)  # fmt: skip
    if cause == ALLOWED:
        p.due, p.exit_share, p.exit_trigger = 0, share, number
        order.leaving, order.row, order.urgent = True, row, trigger.kind == LEAVES_AT_ONCE


@compiled
def _whole_lots(p, share):
    """The share of a position to close, so that whole lots are closed, at least one."""
    if share < 1.0 and p.lot_size > 0.0:
        lots = np.ceil(abs(p.units) * share / p.lot_size - 1e-9)
        share = lots * p.lot_size / abs(p.units)
    return 1.0 if share > 1.0 - _ROUNDING else share


@compiled
def _wish_entry(account, positions, wish, step, worth, bars, refusals, followed):
    """Order the entry that a trigger asks for, or say why not.

    An entry of the side that is held is none. One of the other side closes what is held, also where
    a limit of the account blocks it.
    """
    trigger = followed.triggers[wish.trigger]
    p, order, book = positions[trigger.member], followed.orders[trigger.member], followed.book[0]
    held = np.sign(p.units)
    if wish.void or held == wish.side:
        return
    cause, value, bound = _why_not(p, order, wish, trigger, step, worth, followed)
    if held != 0 and (cause == ALLOWED or cause >= DAY_LOSS):  # or a limit of the account
        if not order.leaving:
            p.exit_trigger = wish.trigger
        p.due, p.exit_share, order.leaving, order.row = 0, 1.0, True, wish.row
    is_known = wish.row + 1 < order.end  # else nothing is due in these bars
    if is_known:
        book.n_triggered += 1
        trigger.n_triggered += 1
    if cause == ALLOWED:
        _order_entry(p, order, wish, step, followed)
    elif is_known:
        sizing = followed.limits[wish.plan].sizing
        fraction = followed.fractions[sizing, wish.row + 1]
        units = fraction * worth / bars[wish.row].close
        _block(account, p, wish.trigger, wish.row + 1, wish.side, units, cause, value, bound, False,
               refusals)  # fmt: skip


@compiled
def _order_entry(p, order, wish, step, followed):
    """Let an entry be due at the symbol's next open, and count it as one of the day."""
    book = followed.book[0]
    p.due = wish.side
    order.entering = order.waiting = True
    order.trigger, order.plan, order.row = wish.trigger, wish.plan, wish.row
    order.day, order.minute = book.day, followed.ts[step] % DAY_US // _MINUTE_US
    order.priority = book.n_decided
    book.n_decided += 1
    followed.minutes[book.n_today] = order.minute
    book.n_today += 1
    order.n_today += 1


@compiled
def _why_not(p, order, wish, trigger, step, worth, followed):
    """Why an entry is not ordered, or ALLOWED; what met a limit, and the limit."""
    limits = followed.limits[wish.plan]
    if wish.cause != ALLOWED:
        return wish.cause, np.nan, np.nan
    if order.wanted == LONG_ENTRY | SHORT_ENTRY:
        return BOTH_SIDES, np.nan, np.nan
    if order.entering:
        return OUTRANKED, np.nan, np.nan
    if p.units != 0.0 and p.bars_held < limits.min_hold:
        return HELD_TOO_SHORT, float(p.bars_held), float(limits.min_hold)
    found = _limit_of_day(limits, worth, followed)
    if found[0] == ALLOWED:
        found = _limit_of_session(limits, step, followed)
    if found[0] == ALLOWED and order.n_today >= limits.trades_per_symbol:
        return TRADES_OF_SYMBOL, float(order.n_today), float(limits.trades_per_symbol)
    return _limit_of_rest(p, wish, trigger, limits) if found[0] == ALLOWED else found


@compiled
def _limit_of_day(limits, worth, followed):
    book = followed.book[0]
    change, n_today = worth / book.day_start - 1.0, book.n_today
    if change <= (_ROUNDING - 1.0) * limits.daily_loss:
        return DAY_LOSS, change, -limits.daily_loss
    if n_today >= limits.trades_per_day:
        return TRADES_OF_DAY, float(n_today), float(limits.trades_per_day)
    if n_today >= limits.trades_per_timeframe:
        return TRADES_OF_TIMEFRAME, float(n_today), float(limits.trades_per_timeframe)
    return ALLOWED, np.nan, np.nan


@compiled
def _limit_of_session(limits, step, followed):
    """Of the session that a line lies in; a plan without sessions has none."""
    minute, inside = followed.ts[step] % DAY_US // _MINUTE_US, -1
    for s in range(limits.first_session, limits.end_session):
        if followed.sessions[s].start <= minute < followed.sessions[s].end:
            inside = s
    if inside < 0:
        cause = OUT_OF_SESSION if limits.end_session > limits.first_session else ALLOWED
        return cause, float(minute), np.nan
    session, n_inside = followed.sessions[inside], 0
    for n in range(followed.book[0].n_today):
        if session.start <= followed.minutes[n] < session.end:
            n_inside += 1
    cause = TRADES_OF_SESSION if n_inside >= session.max_trades else ALLOWED
    return cause, float(n_inside), float(session.max_trades)


@compiled
def _limit_of_rest(p, wish, trigger, limits):
    """Of the bars since a position of the symbol, or of the trigger, closed."""
    held = p.units != 0.0
    closed = wish.row if held else p.rests_until
    if wish.row < closed + limits.min_flat:
        return FLAT_TOO_SHORT, float(wish.row - closed + 1), float(limits.min_flat)
    cooldown = max(limits.cooldown, trigger.cooldown)
    closed = wish.row if held and p.trigger == wish.trigger else trigger.rests_from
    if wish.row < closed + cooldown:
        return COOLING_DOWN, float(wish.row - closed + 1), float(cooldown)
    return ALLOWED, np.nan, np.nan


@compiled
def _trade_due(
    account, positions, table_row, bars, atr_before, fractions, distances, rules, trades, refusals,
    followed,
):  # fmt: skip
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
    if account.ruined:
        return
    n_due, equity = 0, 0.0
    if followed is not None:
        n_due = _approve(account, positions, table_row, bars, fractions, distances, refusals,
                         followed)  # fmt: skip
        equity = _worth(account, positions)
    _enter_due(account, positions, table_row, bars, atr_before, fractions, distances, rules,
               refusals)  # fmt: skip
    if followed is not None:
        _settle(positions, n_due, equity, followed)


@compiled
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


@compiled
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


@compiled
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


@compiled
def _reach_target(p, side, open_, against):
    p.exit_reason, p.worst_mark = TAKE_PROFIT, against
    p.exit_base = open_ if side * open_ >= side * p.target else p.target


@compiled
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


@compiled
def _trade(  # noqa: C901 - see below why its loops are not functions
    account, positions, table, events, bars, fine_bars, atr, atr_before, fractions, distances,
    rules, equity, trades, refusals, followed,
):  # fmt: skip
    """Trade in one account over lines of its table; `equity` is written for each of them.

    Where it follows plans, they decide in place of `events`; where it does not, `followed` is None
    and the compiler leaves out what is about them.

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
                           rules, trades, refusals, followed)  # fmt: skip

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
                if followed is not None:
                    _drop_due(account, positions, refusals, followed)
                return
        worth, busier = account.cash, False
        for i in members:
            p, row = positions[i], table[step, i]
            if row >= 0 and (busy or events[row] != 0):
                _see_close(p, row, bars[row], events[row], atr[row], rules)
            worth += p.units * p.mark
            busier = busier or p.units != 0.0 or p.due != NOTHING_PENDING
        equity[step] = worth
        if followed is not None:
            busier = _decide(account, positions, table[step], step, worth, bars, trades, refusals,
                             followed)  # fmt: skip
        busy = busier


@compiled
def _mark_open(account, positions, trades):
    """Write down what is held after the last bar, marked to its last close."""
    for i in range(len(positions)):
        p = positions[i]
        if p.units != 0.0:
            units, p.exit_share = p.units, 1.0  # also of what is due to be closed in part
            _record(account, p, p.mark, p.mark, 0.0, p.row, False, END_OF_DATA, 0, trades)
            p.units = units  # marked, not closed


@compiled
def _next_side(account, p, rules):
    if p.due != NOTHING_PENDING and not account.ruined:
        return p.due
    return 0 if p.bars_held >= rules.max_bars else np.int8(np.sign(p.units))


@compiled
def _trade_all(
    table, stretches, accounts, members, events, bars, fine_bars, atr, atr_before, fractions,
    distances, rules, rule_of, followed, equity, trades, refusals, side, next_side, rests, ruined,
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
                p.exit_share, p.trigger, p.exit_trigger = 1.0, -1, -1
                if followed is not None:
                    p.rests_until = NEVER
            for s in range(accounts[a], accounts[a + 1]):
                lines = slice(stretches[s], stretches[s + 1])
                if account.ruined:
                    equity[run, lines] = 0.0
                    continue
                own = rules[rule_of[run, s]]
                _trade(account, positions, table[lines], events[run], bars, fine_bars,
                       atr[own.atr], atr_before[own.atr], fractions[own.sizing], distances, own,
                       equity[run, lines], trades, refusals, followed)  # fmt: skip
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
    followed: Followed | None = None,
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
        followed: plans that the one account of the one run follows, in place of its events. The
            first of `fractions` and of `distances` are written to: by an entry's plan and trigger.
    """
    # Each memory layout would be compiled by itself, which takes many seconds.
    table, events = np.ascontiguousarray(table), np.ascontiguousarray(events)
    n_runs, n_accounts = len(events), len(accounts) - 1
    # Each bar with an entry gives one trade at most, and so does each exit of a part.
    n_entries = np.count_nonzero(events & np.uint8(LONG_ENTRY | SHORT_ENTRY))
    n_refusals = n_entries
    if followed is not None:
        n_entries = len(followed.entries) + len(followed.exits)
        n_refusals = n_entries + len(followed.exits) + len(bars)
    simulated = Simulated(
        equity=np.empty((n_runs, len(table))),
        trades=np.zeros(n_entries, TRADE),
        refusals=np.zeros(n_refusals, REFUSAL),
        side=np.empty(n_runs * len(members), np.int8),
        next_side=np.empty(n_runs * len(members), np.int8),
        rests=np.empty(n_runs * len(members), np.int64),
        ruined=np.empty(n_runs * n_accounts, np.bool_),
    )
    n, m = _trade_all(
        table, stretches, accounts, members, events, bars, fine_bars, atr, atr_before, fractions,
        distances, rules, rule_of, followed, *simulated,
    )  # fmt: skip
    return simulated._replace(trades=simulated.trades[:n], refusals=simulated.refusals[:m])
