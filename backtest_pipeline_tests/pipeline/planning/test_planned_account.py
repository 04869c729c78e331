"""What the judge hears of a book: each order belongs to the plan that decided it."""

from __future__ import annotations

import numpy as np

from backtest_pipeline.pipeline.planning.planned_account import book_path
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.strategist.known import stamp_of
from backtest_pipeline_tests.strategist.markets import of_closes

MARKET = of_closes({"A": np.linspace(100.0, 109.0, 10)})
TS = MARKET.ts.tolist()


def plan(at: int, stance: str) -> Plan:
    """A plan from a bar on whose only trigger always asks for an entry."""
    trigger = {
        "symbol": "A",
        "timeframe": "1D",
        "category": "other",
        "direction": "long",
        "entry": "close > 0",
        "exit": "close < 0",
        "stop_loss_pct": 50.0,
    }
    return plan_from(
        {
            "generated_at": stamp_of(TS[at]).isoformat(),
            "effective_ts": stamp_of(TS[at]).isoformat(),
            "valid_until": stamp_of(TS[-1] + 10**12).isoformat(),
            "regime": "bull",
            "stance": stance,
            "triggers": [trigger],
        }
    )


def test_an_entry_belongs_to_the_plan_in_force_at_the_close_that_asks_for_it() -> None:
    path = book_path(MARKET, [plan(0, "wait"), plan(4, "active")], SimulationConfig())

    def counts(effective: int, instant: int) -> tuple[int, int, int]:
        found = path.standing(TS[effective], TS[instant])
        return found.triggered, found.blocked, found.idle_triggers

    # The closes of bars 0 to 3 are decided by the first plan, which waits.
    assert [counts(0, instant) for instant in range(5)] == [(n, n, n) for n in range(5)]
    # That of bar 4 by the second: the entry is made at the open of bar 5.
    assert [counts(4, instant) for instant in (4, 5, 6)] == [(0, 0, 0), (1, 0, 0), (1, 0, 0)]
    assert path.standing(TS[4], TS[5]).idle_hours == 24.0
