"""Plans follow each other by when they take effect."""

from __future__ import annotations

import pytest

from backtest_pipeline.market.errors import PlanRefused
from backtest_pipeline.plans.plan import plan_from
from backtest_pipeline.plans.plan_sequence import in_order
from backtest_pipeline_tests.plans.examples import PLAN


def test_a_later_plan_follows_and_two_of_one_instant_are_refused() -> None:
    first = plan_from(PLAN)
    later = plan_from(PLAN | {"effective_ts": "2024-02-10T23:59:59.999Z"})
    assert in_order([later, first]) == (first, later)
    other = plan_from(PLAN | {"stance": "wait"})
    with pytest.raises(PlanRefused, match=f"plans {first.plan_id} and {other.plan_id} both take"):
        in_order([first, later, other])
