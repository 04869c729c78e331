"""Plans on the bars of a panel: which is in force when, and which triggers trade there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.plans.plan import Plan
from backtest_pipeline.plans.trigger import Trigger

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PlansOnPanel:
    """Plans in their order, and those of their triggers that trade on a panel.

    Attributes:
        panel: the bars.
        plans: the plans, each replacing the one before.
        triggers: triggers of the panel's symbols and timeframe, each once.
        held: for each of them the positions of the plans that hold it, ascending, and its rank in
            each, int64 `(n_plans, 2)`.
        plan_of: int64 `(n_rows,)`, the plan in force at each close, also past its `valid_until`; -1
            before the first.
    """

    panel: Panel
    plans: tuple[Plan, ...]
    triggers: tuple[Trigger, ...]
    held: tuple[np.ndarray, ...]
    plan_of: np.ndarray

    @staticmethod
    def of(panel: Panel, plans: Sequence[Plan]) -> PlansOnPanel:
        """Plans that are sorted already on a panel."""
        symbols, timeframe = set(panel.assets), panel.timeframe.name
        triggers: dict[str, Trigger] = {}
        held: dict[str, list[tuple[int, int]]] = {}
        for position, plan in enumerate(plans):
            for rank, trigger in enumerate(plan.triggers):
                if trigger.symbol in symbols and trigger.timeframe == timeframe:
                    triggers.setdefault(trigger.id, trigger)
                    held.setdefault(trigger.id, []).append((position, rank))
        return PlansOnPanel(
            panel,
            tuple(plans),
            tuple(triggers.values()),
            tuple(np.array(held[name], np.int64) for name in triggers),
            plan_in_force(panel.ts, plans),
        )


def plan_in_force(ts: np.ndarray, plans: Sequence[Plan]) -> np.ndarray:
    """Position of the plan in force at each stamp, int64, also past its end; -1 before the first.

    Args:
        ts: int64, microseconds since 1970 UTC.
        plans: plans by `effective_ts`.
    """
    starts = np.array([microseconds(plan.effective_ts) for plan in plans], np.int64)
    return np.searchsorted(starts, ts, side="right") - 1


def microseconds(stamp: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (stamp - _EPOCH) // timedelta(microseconds=1)
