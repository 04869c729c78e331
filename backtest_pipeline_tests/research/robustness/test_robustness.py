"""All doubts about one run together."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.robustness.permuted_bars import MOST_PERMUTATIONS, bars_of
from backtest_pipeline.research.robustness.repeat import Rule, RunInputs
from backtest_pipeline.research.robustness.robustness import NO_RULE, NUMBERS, Robustness, assess
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.orders import LONG_ENTRY, LONG_EXIT
from backtest_pipeline.trading.conditions import Conditions
from backtest_pipeline_tests.research.runs import random_run, run_of, swings
from backtest_pipeline_tests.simulation.markets import random_events, random_panel


def assert_complete(found: Robustness) -> None:
    assert list(found.numbers) == list(NUMBERS)
    missing = {name for name, value in found.numbers.items() if value is None}
    if found.fragile is None:
        missing.add("fragile")
    assert missing == set(found.undefined)
    assert all(found.undefined.values())
    assert all(math.isfinite(value) for value in found.numbers.values() if value is not None)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 8))
def test_whatever_is_undefined_has_a_reason(seed: int, n_bars: int, draws: int) -> None:
    run = random_run(np.random.default_rng(seed), n_bars)
    assert_complete(assess(run, draws=draws, seed=seed))


def with_momentum(run: RunInputs) -> RunInputs:
    """A rule for the run: long after a rise, out after a fall."""

    def conditions(bars: Panel) -> Conditions:
        rose = bars["close"] > bars["open"]
        never = np.zeros(len(bars), bool)
        return Conditions(rose, ~rose, never, never)

    nothing = bars_of(run.panel, before=int(run.panel.ts[0]))
    return replace(run, rule=Rule(conditions, nothing))


def test_without_a_rule_no_entries_are_drawn() -> None:
    found = assess(random_run(np.random.default_rng(3), 60), draws=10)
    assert_complete(found)
    assert found.undefined["p_random_entries"] == NO_RULE
    assert "random_entry_return" not in found.samples


def test_a_planted_edge_stands_every_doubt() -> None:
    found = assess(with_momentum(swings(25, 0.05, SimulationConfig())), draws=300)
    assert_complete(found)
    numbers = {name: value for name, value in found.numbers.items() if value is not None}
    assert len(numbers) == len(NUMBERS)
    assert numbers["p_random_entries"] == 1 / 201
    assert numbers["p_sharpe"] < 0.05
    assert numbers["p_total_return"] < 0.05
    assert 0 < numbers["total_return_low"] < numbers["total_return"] < numbers["total_return_high"]
    assert numbers["sharpe_low"] < numbers["sharpe"] < numbers["sharpe_high"]
    assert numbers["drawdown_95"] <= numbers["drawdown_median"] <= 0
    assert numbers["break_even_bps"] > 100
    assert list(found.bands) == ["equity", "p05", "p25", "p50", "p75", "p95"]
    assert len(found.bands) == 201
    assert set(found.samples) == {
        *("resampled_total_return", "resampled_sharpe", "resampled_max_drawdown"),
        *("reordered_drawdown", "random_fill_return", "random_entry_return"),
    }
    assert len(found.samples) == 300
    assert np.count_nonzero(found.samples["random_entry_return"].notna()) == MOST_PERMUTATIONS


def test_a_run_without_a_trade_has_no_robustness() -> None:
    found = assess(run_of([100.0 + i % 3 for i in range(60)], {}), draws=10)
    assert_complete(found)
    assert found.fragile is None
    assert found.undefined["fragile"] == "no trade"
    assert found.undefined["p_random_entries"] == "no trade"
    assert found.undefined["sharpe_low"] == "constant daily returns"
    assert found.bands.empty


def test_a_single_trade_has_no_other_order() -> None:
    opens = [100.0 * 1.01**i for i in range(60)]
    found = assess(with_momentum(run_of(opens, {3: LONG_ENTRY, 30: LONG_EXIT})), draws=50)
    assert_complete(found)
    assert found.undefined == dict.fromkeys(
        ("reordered_drawdown_median", "reordered_drawdown_95"),
        "a single trade cannot be reordered",
    )


def test_too_few_days_are_not_resampled() -> None:
    found = assess(with_momentum(random_run(np.random.default_rng(2), 15)), draws=10)
    assert_complete(found)
    assert found.undefined["sharpe_low"] == "fewer than 20 daily returns"
    assert found.numbers["p_random_entries"] is not None
    assert found.bands.empty


def test_what_has_lost_everything_has_no_growth_to_test() -> None:
    run = random_run(np.random.default_rng(0), 60)
    crash = np.ones(60)
    crash[40:] = 40.0
    panel = run.panel.with_columns(
        {n: run.panel[n] * crash for n in ("open", "high", "low", "close")}
    )
    events = np.zeros((1, 60), np.uint8)
    events[0, 10] = 4  # a short, held into the jump
    found = assess(RunInputs(panel, events, SimulationConfig()), draws=20)
    assert_complete(found)
    assert found.numbers["total_return"] == -1.0
    assert found.undefined["p_total_return"] == "the run lost all of its equity"
    assert found.fragile is False


def test_seed_and_draws_decide_everything() -> None:
    run = with_momentum(random_run(np.random.default_rng(5), 100))
    first, again = assess(run, draws=30, seed=9), assess(run, draws=30, seed=9)
    assert first.numbers == again.numbers
    fewer, other = assess(run, draws=12, seed=9), assess(run, draws=30, seed=10)
    pd.testing.assert_frame_equal(again.samples, first.samples, check_exact=True)
    pd.testing.assert_frame_equal(again.bands, first.bands, check_exact=True)
    pd.testing.assert_frame_equal(fewer.samples, first.samples.iloc[:12], check_exact=True)
    for name, values in first.samples.items():
        assert not np.array_equal(other.samples[name], values)


def test_no_draws_and_no_single_run_are_refused() -> None:
    rng = np.random.default_rng(5)
    run = random_run(rng, 50)
    with pytest.raises(InvalidInput, match="draws must be a whole number from 1 to 10,000, not 0"):
        assess(run, draws=0)
    with pytest.raises(InvalidInput, match="seed must be"):
        assess(run, seed=-1)
    panel = random_panel(rng, [30, 30])
    with pytest.raises(InvalidInput, match="not 2 runs on 2 assets"):
        RunInputs(panel, random_events(rng, 2, panel), SimulationConfig())
