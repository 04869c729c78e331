"""What holds for books that follow plans, whatever the plans and the market."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput, PlanRefused
from backtest_pipeline.plans.plan import Plan, plan_from
from backtest_pipeline.plans.plan_sequence import in_order
from backtest_pipeline.simulation.book import simulate_book
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.planned.planned_book import (
    NO_TRIGGER,
    PlannedResult,
    simulate_planned,
)
from backtest_pipeline.simulation.strategy_conditions import conditions_of_rules
from backtest_pipeline.simulation.trades import Trades
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.trading.sizing import FixedFractional
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.markets import random_panel
from backtest_pipeline_tests.simulation.planned.hand_market import (
    FREE,
    hand_made,
    hand_plan,
    rows_of,
    stamp,
)
from backtest_pipeline_tests.simulation.planned.random_plans import market, random_plans

ALWAYS: dict[str, Any] = {
    "generated_at": "2020-01-01T00:00:00Z",
    "effective_ts": "2020-01-01T00:00:00Z",
    "valid_until": "2030-01-01T00:00:00Z",
    "regime": "mixed",
    "stance": "active",
}
SEEDS = range(8)


def assert_same_trades(ours: Trades, theirs: Trades) -> None:
    for field in fields(Trades):
        left, right = getattr(ours, field.name), getattr(theirs, field.name)
        assert np.array_equal(left, right, equal_nan=left.dtype.kind == "f"), field.name


def assert_same_blocks(ours: PlannedResult, theirs: PlannedResult) -> None:
    left, right = ours.blocks.columns(), theirs.blocks.columns()
    assert [left[name].tolist() for name in left if name != "qty"] == [
        right[name].tolist() for name in right if name != "qty"
    ]
    assert np.array_equal(left["qty"], right["qty"], equal_nan=True)


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize(
    ("strategy", "params"),
    [
        ("ema_crossover", {"fast": 3, "slow": 8}),
        ("ema_crossover", {"fast": 3, "slow": 8, "cooldown_bars": 4}),
        ("rsi_mean_revert", {"period": 5}),
        ("atr_breakout", {"lookback": 5}),
    ],
)
def test_one_trigger_without_limits_is_the_run_of_its_strategy(
    strategy: str, params: dict[str, Any], direction: Direction, delay: int
) -> None:
    panel = random_panel(np.random.default_rng(5), [250], 0.04, "4H", holes=0.05)
    plan = plan_from(
        ALWAYS
        | {
            "triggers": [
                {
                    "symbol": "A0",
                    "timeframe": "4H",
                    "category": "trend_continuation",
                    "direction": direction.value,
                    "strategy": strategy,
                    "params": params,
                    "stop_loss_pct": 3.0,
                }
            ],
            "sizing": {"mode": "fixed", "fraction": 0.7},
        }
    )
    found = strategy_of(strategy)
    typed = found.parse(params)
    events = conditions_of_rules(panel, [(found, typed)])
    config = SimulationConfig(lot_size=0.01, delay_bars=delay)
    ordinary = replace(
        config,
        direction=direction,
        stops=StopRules(stop_loss=0.03),
        cooldown_bars=found.cooldown(typed),
        sizing=FixedFractional(0.7),
    )
    ours, theirs = simulate_planned(panel, [plan], config), simulate_book(panel, events, ordinary)
    assert len(theirs.trades) > 5
    assert_same_trades(ours.book.trades, theirs.trades)
    for name in ("equity", "gross", "net", "benchmark", "pending"):
        assert np.array_equal(getattr(ours.book, name), getattr(theirs, name)), name
    for name, values in theirs.metrics.items():
        assert np.array_equal(ours.book.metrics[name], values, equal_nan=True), name


def case(seed: int) -> tuple[Any, list[Plan]]:
    rng = np.random.default_rng(seed)
    panel = market(rng, [40, 25, 33], 0.05, "4H")
    return panel, random_plans(rng, panel, 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_symbols_and_of_plans_plays_no_part(seed: int) -> None:
    panel, plans = case(seed)
    other = panel.select(["A2", "A0", "A1"])
    ours, theirs = simulate_planned(panel, plans, FREE), simulate_planned(other, plans[::-1], FREE)
    assert np.array_equal(ours.book.equity, theirs.book.equity)
    assert_same_blocks(ours, theirs)
    assert ours.book.metrics["trade_count"] == theirs.book.metrics["trade_count"]


@pytest.mark.parametrize("seed", SEEDS)
def test_later_bars_change_nothing_before(seed: int) -> None:
    panel, plans = case(seed)
    cut = int(np.unique(panel.ts)[30])
    known = panel.take(panel.ts <= cut)
    ours, theirs = simulate_planned(panel, plans, FREE), simulate_planned(known, plans, FREE)
    assert np.array_equal(ours.book.equity[:, ours.book.ts <= cut], theirs.book.equity)
    columns, before = ours.blocks.columns(), ours.blocks.columns()["ts"] <= cut
    assert len(theirs.blocks) == np.count_nonzero(before)
    for name, values in theirs.blocks.columns().items():
        assert values.tolist() == pytest.approx(columns[name][before].tolist(), nan_ok=True), name
    closed, ended = ours.book.trades.exit_ts <= cut, ~theirs.book.trades.is_open
    closed &= ~ours.book.trades.is_open
    for name in ("entry_ts", "exit_ts", "size", "pnl"):
        left = getattr(ours.book.trades, name)[closed]
        assert np.array_equal(left, getattr(theirs.book.trades, name)[ended]), name


@pytest.mark.parametrize("seed", SEEDS)
def test_a_replan_that_changes_nothing_changes_nothing(seed: int) -> None:
    """Limits of a day count on, and triggers keep their ids.

    Only a rule that cannot be evaluated is blocked once more, in the added plan.
    """
    panel, plans = case(seed)
    first, second = in_order(plans)[:2]
    between = first.effective_ts + (second.effective_ts - first.effective_ts) / 2
    again = Plan(**first.document() | {"plan_id": "", "effective_ts": between})
    ours, theirs = (simulate_planned(panel, those, FREE) for those in (plans, [*plans, again]))
    assert np.array_equal(ours.book.equity, theirs.book.equity)
    left, right = (
        [row for row in zip(*one.blocks.columns().values(), strict=True) if "cannot" not in row[-1]]
        for one in (ours, theirs)
    )
    assert [row[1:-5] for row in left] == [row[1:-5] for row in right]
    assert [row[-3:] for row in left] == [row[-3:] for row in right]


def test_a_trigger_that_a_later_plan_drops_still_leaves_what_it_entered() -> None:
    """Bar 1 enters, the plan of bar 2 has no triggers, and the exit of bar 3 acts."""
    later = hand_plan({"triggers": [], "effective_ts": stamp(2), "generated_at": stamp(2)})
    result = simulate_planned(hand_made(), [hand_plan({}), later], FREE)
    assert result.book.trades.entry_bar.tolist() == [2, 2]
    assert result.book.trades.bars_held.tolist() == [2, 4]
    assert (result.exit_trigger == result.trade_trigger).all()
    assert rows_of(result) == []


def test_a_part_that_is_closed_is_a_trade_of_its_own() -> None:
    """A's 50 units of bar 13 are reduced to 25 at the open of bar 16, and left at that of 17."""
    result = simulate_planned(hand_made(), [hand_plan({})], replace(FREE, lot_size=20.0))
    trades, of_13 = result.book.trades, result.book.trades.entry_bar == 13
    of_13 &= trades.column == 0
    assert trades.size[of_13].tolist() == [20.0, 20.0]  # of 40, as a lot is 20
    assert result.is_part[of_13].tolist() == [True, False]
    assert trades.pnl[of_13].tolist() == pytest.approx([-120.0, -120.0])
    names = [result.triggers[i].category.value for i in result.exit_trigger[of_13]]
    assert names == ["risk_reduce", "trend_continuation"]
    assert result.book.equity[0, -1] == 10_000 + trades.pnl.sum()


def test_a_part_that_is_due_after_the_last_bar_is_still_held() -> None:
    """Bar 15 asks to close half of A's 50 units."""
    panel = hand_made()
    result = simulate_planned(panel.take(panel.ts <= panel.ts[15]), [hand_plan({})], FREE)
    held = result.book.trades.is_open & (result.book.trades.column == 0)
    assert result.book.trades.size[held].tolist() == [50.0]
    assert result.is_part[held].tolist() == [False]


def test_what_is_due_at_the_next_open_is_pending_and_not_counted() -> None:
    panel = hand_made()
    known = panel.take(panel.ts <= panel.ts[1])  # bar 1 asks for both symbols
    result = simulate_planned(known, [hand_plan({})], FREE)
    assert result.book.pending.tolist() == [1, 1]
    assert [result.triggers[i].symbol for i in result.pending_trigger] == ["A", "B"]
    assert result.triggered.sum() == result.entered.sum() == 0
    blocked = simulate_planned(known, [hand_plan({"stance": "wait"})], FREE)
    assert blocked.pending_trigger.tolist() == [NO_TRIGGER] * 2
    assert (len(blocked.blocks), blocked.triggered.sum()) == (0, 0)


def test_without_plans_nothing_is_traded() -> None:
    result = simulate_planned(hand_made(), [], FREE)
    assert (len(result.book.trades), len(result.blocks), result.triggers) == (0, 0, ())
    assert set(result.book.equity[0]) == {10_000.0}


def test_what_plans_say_is_refused_in_the_configuration() -> None:
    config = SimulationConfig(sizing=FixedFractional(), stops=StopRules(stop_loss=0.1))
    with pytest.raises(InvalidInput, match="sizing, stops: the plans say it"):
        simulate_planned(hand_made(), [hand_plan({})], config)
    with pytest.raises(PlanRefused, match="both take effect"):
        simulate_planned(hand_made(), [hand_plan({}), hand_plan({"stance": "wait"})], FREE)
