"""The entries of a batch that were not made, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.engine import BELOW_LOT, BELOW_NOTIONAL, NO_ROOM, UNSIZED


class Cause(NamedTuple):
    """Why an entry is refused; `reason` and `class_` are of the closed lists of `block_events`."""

    reason: str
    class_: str
    detail: str


CAUSES = {
    UNSIZED: Cause(
        "missing_indicator", "quality_gate", "the sizing has no value yet at the bar before"
    ),
    NO_ROOM: Cause("insufficient_cash", "risk_valid", "max_leverage leaves no room"),
    BELOW_LOT: Cause("insufficient_cash", "risk_valid", "less than one lot_size"),
    BELOW_NOTIONAL: Cause("insufficient_cash", "risk_valid", "less than min_notional"),
}


@dataclass(frozen=True)
class Refusals:
    """Refused entries sorted by column, then time; all arrays are `(n_refusals,)`.

    Attributes:
        column: int64, `run * n_assets + asset`.
        number: int64, 1, 2, 3 ... within the column.
        ts: int64 microseconds UTC, close stamp of the bar at whose open the entry was due.
        side: int8, 1 long, -1 short.
        size: units that the sizing wanted, positive, before room and lots; NaN where it had no
            value.
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
    """The log of what the accounts wrote down, as REFUSAL records in any order."""
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
    """The log as it is stored: names instead of codes, stamps still as numbers."""
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
