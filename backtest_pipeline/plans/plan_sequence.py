"""Plans one after the other: which of them is followed at each instant."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from backtest_pipeline.market.errors import PlanRefused
from backtest_pipeline.plans.plan import Plan


def in_order(plans: Sequence[Plan]) -> tuple[Plan, ...]:
    """The plans by when they take effect, each replacing the one before from then on.

    A plan may take effect while an earlier one is valid: it replaces it. Two from one instant on
    contradict each other.

    Raises:
        PlanRefused: for two plans that take effect at the same instant.
    """
    ordered = tuple(sorted(plans, key=lambda plan: plan.effective_ts))
    for before, after in pairwise(ordered):
        if before.effective_ts == after.effective_ts:
            raise PlanRefused(
                f"plans {before.plan_id} and {after.plan_id} both take effect at "
                f"{after.effective_ts.isoformat()}; keep one of them"
            )
    return ordered
