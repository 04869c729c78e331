"""What triggers asked for and did not get: rows of `block_events`, with their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.plans.trigger import Trigger
from backtest_pipeline.simulation.blocked_entries import CAUSES
from backtest_pipeline.simulation.engine import RULE_FAILED
from backtest_pipeline.trading.block_reasons import BlockReason


@dataclass(frozen=True)
class PlannedBlocks:
    """Blocked entries and exits, by time, then in the order that they were judged in.

    All arrays are `(n_blocked,)`.

    Attributes:
        panel: the bars.
        triggers: the triggers that `trigger` counts among.
        failures: why each of them cannot be evaluated; empty where it can.
        trigger: int64, who asked.
        asset: int64, position among the panel's assets.
        row: int64, of the bar at whose open it would have filled.
        side: int8, to enter, or of the position to leave.
        size: float64, units, positive; NaN where the sizing has no value, or nothing was left.
        is_exit: bool.
        cause: int8, key of `blocked_entries.CAUSES`.
        value, bound: float64, what met a limit, and the limit; NaN where there is none.
    """

    panel: Panel
    triggers: tuple[Trigger, ...]
    failures: tuple[str, ...]
    trigger: np.ndarray
    asset: np.ndarray
    row: np.ndarray
    side: np.ndarray
    size: np.ndarray
    is_exit: np.ndarray
    cause: np.ndarray
    value: np.ndarray
    bound: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @staticmethod
    def of(
        panel: Panel, triggers: Sequence[Trigger], failures: Sequence[str], records: np.ndarray
    ) -> PlannedBlocks:
        """Those of the engine's REFUSAL records, which are in the order that they were made in."""
        records = records[np.argsort(panel.ts[records["row"]], kind="stable")]
        return PlannedBlocks(
            panel=panel,
            triggers=tuple(triggers),
            failures=tuple(failures),
            asset=records["column"],
            size=np.abs(records["units"]),
            **{
                name: records[name]
                for name in ("trigger", "row", "side", "is_exit", "cause", "value", "bound")
            },
        )

    @property
    def reasons(self) -> list[BlockReason]:
        """The reason of each."""
        return [CAUSES[cause].reason for cause in self.cause.tolist()]

    def counts(self) -> dict[BlockReason, int]:
        """How many there are of each reason that occurs, in the order of the reasons."""
        found = dict.fromkeys(BlockReason, 0)
        for cause, count in zip(*np.unique(self.cause, return_counts=True), strict=True):
            found[CAUSES[int(cause)].reason] += int(count)
        return {reason: count for reason, count in found.items() if count}

    def details(self) -> list[str]:
        """What each was blocked by, with its numbers."""
        told = [
            f"{'exit: ' if is_exit else ''}{CAUSES[cause].told(value, bound)}"
            for cause, is_exit, value, bound in zip(
                self.cause.tolist(),
                self.is_exit.tolist(),
                self.value.tolist(),
                self.bound.tolist(),
                strict=True,
            )
        ]
        for position in np.flatnonzero(self.cause == RULE_FAILED).tolist():
            told[position] += f": {self.failures[self.trigger[position]]}"
        return told

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of the table `block_events` but for the run, stamps still as integers."""
        reasons = self.reasons
        return {
            "event_no": np.arange(len(self)) + 1,
            "ts": self.panel.ts[self.row],
            "symbol": np.array(self.panel.assets, object)[self.asset],
            "timeframe": np.full(len(self), self.panel.timeframe.name, object),
            "trigger_id": np.array([t.id for t in self.triggers], object)[self.trigger],
            "side": np.where(self.side > 0, "long", "short").astype(object),
            "qty": self.size,
            "reason": np.array([reason.value for reason in reasons], object),
            "class": np.array([reason.block_class.value for reason in reasons], object),
            "detail": np.array(self.details(), object),
        }
