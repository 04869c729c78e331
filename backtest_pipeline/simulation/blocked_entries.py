"""Blocked entries of a batch: entries that the account could not make, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation import engine
from backtest_pipeline.trading.block_reasons import BlockReason


class Cause(NamedTuple):
    """Why an entry, or an exit of a plan's, is blocked.

    Attributes:
        reason: a value that `block_events` allows; the class follows from it.
        detail: what happened; `{value}` and `{bound}` are what met the limit, and the limit, and
            `{clock}` is the value as a time of day.
        percent: whether these two are fractions, and shown as percent.
    """

    reason: BlockReason
    detail: str
    percent: bool = False

    def told(self, value: float, bound: float) -> str:
        """The detail with its numbers.

        Examples:
            >>> CAUSES[engine.DAY_LOSS].told(-0.023, -0.02)
            'day loss -2.3 % <= limit -2 %'
        """
        scale = 100.0 if self.percent else 1.0
        clock = "" if np.isnan(value) else f"{int(value) // 60:02}:{int(value) % 60:02}"
        shown = f"{scale * value:.6g}", f"{scale * bound:.6g}"
        return self.detail.format(value=shown[0], bound=shown[1], clock=clock)


_EXPOSED = "{value} % of equity > limit {bound} %"
CAUSES: dict[int, Cause] = {
    engine.UNSIZED: Cause(
        BlockReason.MISSING_INDICATOR, "the sizing has no value above 0 at the signal's bar"
    ),
    engine.NO_ROOM: Cause(BlockReason.INSUFFICIENT_CASH, "gross exposure is at max_leverage"),
    engine.BELOW_LOT: Cause(BlockReason.INSUFFICIENT_CASH, "order below one lot_size"),
    engine.BELOW_NOTIONAL: Cause(BlockReason.INSUFFICIENT_CASH, "order below min_notional"),
    engine.WITHOUT_STOP: Cause(
        BlockReason.MISSING_INDICATOR,
        "the distance of a stop or target is undefined or out of bounds at the signal's bar",
    ),
    engine.SYMBOL_NOT_ALLOWED: Cause(BlockReason.SYMBOL_VETO, "the plan does not allow the symbol"),
    engine.SIDE_NOT_ALLOWED: Cause(BlockReason.DIRECTION, "the plan does not allow the side"),
    engine.CATEGORY_NOT_ALLOWED: Cause(
        BlockReason.CATEGORY, "the plan does not allow the trigger's category"
    ),
    engine.PLAN_EXPIRED: Cause(BlockReason.PLAN_LIMIT, "plan expired"),
    engine.STANCE_WAITS: Cause(BlockReason.PLAN_LIMIT, "stance is wait"),
    engine.RULE_FAILED: Cause(BlockReason.EXPRESSION_ERROR, "the rule cannot be evaluated"),
    engine.RULE_UNDEFINED: Cause(
        BlockReason.EXPRESSION_ERROR, "the rule is undefined at the signal's bar"
    ),
    engine.FEATURE_MISSING: Cause(
        BlockReason.MISSING_INDICATOR, "a feature of the rule has no value at the signal's bar"
    ),
    engine.BOTH_SIDES: Cause(
        BlockReason.PENDING_ENTRY_CONFLICT, "triggers ask for both sides at one bar"
    ),
    engine.OUTRANKED: Cause(
        BlockReason.PRIORITY_SKIP, "a trigger of higher priority acts at the same bar"
    ),
    engine.HELD_TOO_SHORT: Cause(BlockReason.MIN_HOLD, "held for {value} of {bound} bars"),
    engine.DAY_LOSS: Cause(
        BlockReason.DAILY_CAP, "day loss {value} % <= limit {bound} %", percent=True
    ),
    engine.TRADES_OF_DAY: Cause(
        BlockReason.PLAN_LIMIT, "{value} entries today >= limit {bound} a day"
    ),
    engine.TRADES_OF_TIMEFRAME: Cause(
        BlockReason.TIMEFRAME_CAP, "{value} entries of the timeframe today >= limit {bound}"
    ),
    engine.OUT_OF_SESSION: Cause(BlockReason.SESSION_CAP, "{clock} UTC is in no session"),
    engine.TRADES_OF_SESSION: Cause(
        BlockReason.SESSION_CAP, "{value} entries of the session today >= limit {bound}"
    ),
    engine.TRADES_OF_SYMBOL: Cause(
        BlockReason.TRIGGER_LOAD, "{value} entries of the symbol today >= limit {bound}"
    ),
    engine.FLAT_TOO_SHORT: Cause(
        BlockReason.MIN_FLAT, "bar {value} of {bound} without an entry of the symbol"
    ),
    engine.COOLING_DOWN: Cause(
        BlockReason.MIN_FLAT, "cooldown: bar {value} of {bound} without an entry of the trigger"
    ),
    engine.POSITION_RISK: Cause(BlockReason.RISK, "loss at the stop " + _EXPOSED, percent=True),
    engine.SYMBOL_EXPOSURE: Cause(BlockReason.RISK, "symbol exposure " + _EXPOSED, percent=True),
    engine.PORTFOLIO_EXPOSURE: Cause(
        BlockReason.RISK, "portfolio exposure " + _EXPOSED, percent=True
    ),
    engine.RISK_OF_DAY: Cause(BlockReason.RISK_BUDGET, "risk of the day " + _EXPOSED, percent=True),
    engine.LIQUIDATED: Cause(
        BlockReason.INSUFFICIENT_CASH, "the account was liquidated before the open"
    ),
    engine.EMERGENCY_NOT_ALLOWED: Cause(
        BlockReason.EMERGENCY_EXIT_VETO, "the plan does not allow the category emergency_exit"
    ),
    engine.EMERGENCY_UNDEFINED: Cause(
        BlockReason.EMERGENCY_EXIT_VETO, "the rule is undefined at the signal's bar"
    ),
    engine.EMERGENCY_WITHOUT_BAR: Cause(
        BlockReason.EMERGENCY_EXIT_VETO, "no price at the next open; it waits for the next bar"
    ),
}


@dataclass(frozen=True)
class Refusals:
    """Blocked entries sorted by column, then time; all arrays are `(n_blocked,)`.

    Attributes:
        column: int64, `run * n_assets + asset`.
        number: int64, 1, 2, 3 ... within the column.
        ts: int64, microseconds since 1970 UTC: close stamp of the bar at whose open it was due.
        side: int8, 1 long, -1 short.
        size: float64, units that the sizing asked for, positive, before the limits of leverage and
            lot size; NaN if the sizing had no value.
        cause: int8, key of CAUSES.
    """

    column: np.ndarray
    number: np.ndarray
    ts: np.ndarray
    side: np.ndarray
    size: np.ndarray
    cause: np.ndarray

    def __len__(self) -> int:
        return len(self.column)


def refusal_log(panel: Panel, records: np.ndarray) -> Refusals:
    """Blocked entries from the engine's REFUSAL records, which may be in any order."""
    records = records[np.lexsort((records["row"], records["column"]))]
    column = records["column"]
    return Refusals(
        column=column,
        number=np.arange(len(column)) - np.searchsorted(column, column) + 1,
        ts=panel.ts[records["row"]],
        side=records["side"],
        size=np.abs(records["units"]),
        cause=records["cause"],
    )


def refusal_columns(refusals: Refusals) -> dict[str, np.ndarray]:
    """Columns of the table `block_events`: names instead of codes, stamps still as integers."""
    causes = [CAUSES[code] for code in refusals.cause.tolist()]
    return {
        "event_no": refusals.number,
        "ts": refusals.ts,
        "side": np.where(refusals.side > 0, "long", "short").astype(object),
        "qty": refusals.size,
        "reason": np.array([cause.reason.value for cause in causes], object),
        "class": np.array([cause.reason.block_class.value for cause in causes], object),
        "detail": np.array([cause.detail for cause in causes], object),
    }
