"""Blocked entries of a batch: entries that the account could not make, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.engine import (
    BELOW_LOT,
    BELOW_NOTIONAL,
    NO_ROOM,
    UNSIZED,
    WITHOUT_STOP,
)


class Cause(NamedTuple):
    """Why an entry is blocked; `reason` and `class_` are values that `block_events` allows."""

    reason: str
    class_: str
    detail: str


CAUSES = {
    UNSIZED: Cause(
        "missing_indicator",
        "quality_gate",
        "the sizing has no value above 0 at the signal's bar",
    ),
    WITHOUT_STOP: Cause(
        "missing_indicator",
        "quality_gate",
        "the distance of a stop or target is undefined or out of bounds at the signal's bar",
    ),
    NO_ROOM: Cause("insufficient_cash", "risk_valid", "gross exposure is at max_leverage"),
    BELOW_LOT: Cause("insufficient_cash", "risk_valid", "order below one lot_size"),
    BELOW_NOTIONAL: Cause("insufficient_cash", "risk_valid", "order below min_notional"),
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
    causes = np.array([CAUSES[code] for code in sorted(CAUSES)], object)[refusals.cause]
    return {
        "event_no": refusals.number,
        "ts": refusals.ts,
        "side": np.where(refusals.side > 0, "long", "short").astype(object),
        "qty": refusals.size,
        "reason": causes[:, 0],
        "class": causes[:, 1],
        "detail": causes[:, 2],
    }
