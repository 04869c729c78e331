"""The same run under other assumptions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.research.robustness.envelope import MULTIPLIERS, break_even_bps, envelope
from backtest_pipeline.research.robustness.repeat import RunInputs
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import IntrabarOrder, StopRules
from backtest_pipeline_tests.research.runs import FREE, random_run, run_of, swings


def drifting(growth: float, config: SimulationConfig) -> RunInputs:
    """Bought once and held for a hundred bars that grow as fast."""
    return run_of([*(100 * growth ** np.arange(101.0))], {2: LONG_ENTRY, 95: LONG_EXIT}, config)


def test_a_run_that_hardly_trades_and_gains_much_is_robust() -> None:
    found = envelope(drifting(1.01, SimulationConfig()))
    assert not found.fragile
    assert found.reasons == ()


def test_an_edge_without_costs_alone_is_fragile() -> None:
    # A fifth of a percent a trade: the usual costs of both sides are three tenths.
    free = envelope(swings(30, 0.002, SimulationConfig(FREE)))
    assert free.fragile
    assert (
        "at a fee of 0 bps and slippage of 5 bps, the gain falls by more than half: "
        "3.0% instead of 6.2%" in free.reasons
    )
    paid = envelope(swings(30, 0.002, SimulationConfig()))
    assert paid.scenarios[0].total_return < 0
    assert len(paid.reasons) == 1
    assert "the loss turns into a gain" in paid.reasons[0]


def test_an_edge_of_a_single_bar_does_not_survive_a_delay() -> None:
    # Every eighth bar rises by 5 %, the one after it falls back; bought for that bar alone.
    opens = [100.0, *np.tile([100.0, 105, 100, 100, 100, 100, 100, 100], 10)]
    events = {}
    for rise in range(1, len(opens), 8):
        events |= {rise - 1: LONG_ENTRY, rise: LONG_EXIT}
    # (1.05 x 0.997)**10 as it is, (0.997 / 1.05)**10 a bar later.
    found = envelope(run_of(opens, events, SimulationConfig()))
    assert found.reasons == (
        "filled one bar later, the gain turns into a loss: -40.4% instead of 58.1%",
    )


def test_an_edge_that_hangs_on_the_order_within_the_bar_is_fragile() -> None:
    stops = StopRules(stop_loss=0.02, take_profit=0.02)
    config = SimulationConfig(FREE, stops=stops, intrabar=IntrabarOrder.TARGET_FIRST)
    n = 40
    events = dict.fromkeys(range(0, n, 4), LONG_ENTRY)
    run = run_of([100.0] * n, events, config, highs=[103.0] * n, lows=[97.0] * n)
    found = envelope(run)
    assert found.scenarios[2].intrabar == "stop_first"
    assert any("with stop_first inside a bar" in reason for reason in found.reasons)


def test_costs_beyond_double_are_shown_and_not_judged() -> None:
    # Half is lost between twice and three times the costs.
    run = swings(30, 0.011, SimulationConfig())
    found = envelope(run)
    own = found.scenarios[0].total_return
    by_costs = {(s.fee_multiplier, s.slippage_multiplier): s.total_return for s in found.scenarios}
    assert by_costs[3.0, 3.0] < own / 2 < by_costs[2.0, 2.0]
    assert not [reason for reason in found.reasons if "fee" in reason]


def test_each_assumption_is_repeated_once() -> None:
    config = SimulationConfig(CostModel(8.0, 4.0))
    found = envelope(random_run(np.random.default_rng(3), 200, config)).scenarios
    assert [s.assumption for s in found[:3]] == ["as run", "delay", "intrabar"]
    assert [s.delay_bars for s in found[:3]] == [0, 1, 0]
    assert [s.intrabar for s in found[:3]] == ["stop_first", "stop_first", "target_first"]
    costs = {(s.fee_bps, s.slippage_bps) for s in found[3:]}
    grid = {(8.0 * fee, 4.0 * slippage) for fee in MULTIPLIERS for slippage in MULTIPLIERS}
    assert costs == grid - {(8.0, 4.0)}
    assert len(found) == 3 + 24


def test_every_scenario_is_the_run_with_its_assumptions() -> None:
    stops = StopRules(stop_loss=0.03, take_profit=0.03)
    run = random_run(np.random.default_rng(3), 200, SimulationConfig(stops=stops))
    for scenario in envelope(run).scenarios:
        costs = CostModel(scenario.fee_bps, scenario.slippage_bps)
        config = replace(
            run.config,
            costs=costs,
            delay_bars=scenario.delay_bars,
            intrabar=IntrabarOrder(scenario.intrabar),
        )
        assert replace(run, config=config).total_return == scenario.total_return


def test_a_run_without_costs_is_shown_the_usual_ones() -> None:
    found = envelope(drifting(1.01, SimulationConfig(FREE))).scenarios
    assert {s.fee_bps for s in found} == {0.0, 5.0, 10.0, 20.0, 30.0}
    assert {s.slippage_bps for s in found} == {0.0, 2.5, 5.0, 10.0, 15.0}


def test_the_break_even_cost_of_one_trade_is_the_one_by_hand() -> None:
    # 100 to 110: (1 - c) / (1 + c) * 1.1 = 1 at c = 0.1 / 2.1.
    run = run_of([100.0, 100, 100, 110, 110], {0: LONG_ENTRY, 2: LONG_EXIT})
    bps, reason = break_even_bps(run)
    assert bps == pytest.approx(0.1 / 2.1 * 1e4, abs=1e-4)
    assert reason == ""


@given(st.integers(0, 500))
def test_at_the_break_even_cost_nothing_is_gained_and_below_it_something_is(seed: int) -> None:
    config = SimulationConfig(CostModel(6.0, 2.0))
    run = random_run(np.random.default_rng(seed), 60, config)

    def at(bps: float) -> float:
        costs = CostModel(0.75 * bps, 0.25 * bps)
        return replace(run, config=replace(config, costs=costs)).total_return

    bps, reason = break_even_bps(run)
    if bps is None:
        assert reason == "no gain even without costs"
        assert at(0.0) <= 0
        return
    assert at(bps) == pytest.approx(0.0, abs=1e-6)
    assert at(0.9 * bps) > 0 > at(1.1 * bps)


def test_what_never_breaks_even_says_why() -> None:
    falling = run_of([100.0, 90, 80, 70], {0: LONG_ENTRY, 2: LONG_EXIT})
    assert break_even_bps(falling) == (None, "no gain even without costs")
    rocket = run_of([1.0, 1, 100, 100], {0: LONG_ENTRY, 1: LONG_EXIT})
    assert break_even_bps(rocket) == (None, "still a gain at 5,000 bps per side")
    idle = run_of([100.0, 90, 80, 70], {})
    assert break_even_bps(idle) == (None, "no gain even without costs")


def test_an_idle_run_has_nothing_to_break() -> None:
    found = envelope(run_of([100.0, 90, 80, 70], {}))
    assert not found.fragile
    assert {s.total_return for s in found.scenarios} == {0.0}
