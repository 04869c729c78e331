"""The rule on its bars in random order: what is kept, what is drawn, and what passes by luck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.features import build_features
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.research.robustness.bootstrap import p_value
from backtest_pipeline.research.robustness.permuted_bars import (
    bars_of,
    block_bars,
    permuted,
    permuted_returns,
    rule_of,
)
from backtest_pipeline.research.robustness.repeat import Rule, RunInputs
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.orders import condition_bits
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.trading.conditions import Conditions
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import VolatilityScaled
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.markets import random_panel

PRICES = ("open", "high", "low", "close")


def market(seed: int, n: int, volatility: float = 0.02) -> Panel:
    panel = random_panel(np.random.default_rng(seed), [n], volatility)
    return panel.with_columns({"volume": np.arange(n, dtype=np.float64)})


def after(panel: Panel, n: int) -> tuple[Panel, Panel]:
    """The first `n` bars, and the others."""
    early = np.arange(len(panel)) < n
    return panel.take(early), panel.take(~early)


def run_of_rule(
    name: str, panel: Panel, config: SimulationConfig | None = None, n_history: int = 0
) -> RunInputs:
    strategy = strategy_of(name)
    conditions = rule_of(strategy, strategy.parse({}))
    events = condition_bits(conditions(panel))[None, n_history:]
    history, own = after(panel, n_history)
    return RunInputs(
        own,
        np.ascontiguousarray(events),
        config or SimulationConfig(),
        rule=Rule(conditions, history),
    )


def returns_of(run: RunInputs, draws: int, seed: int = 0) -> np.ndarray:
    assert run.rule is not None
    return permuted_returns(run, run.rule, draws, seed).total_return


def moves(history: Panel, bars: Panel) -> np.ndarray:
    """Log moves of each bar beside its volume, sorted by it; the first without one before it."""
    logs = {name: np.log(bars[name]) for name in PRICES}
    start = np.log(history["close"][-1:]) if len(history) else logs["close"][:1]
    before = np.concatenate((start, logs["close"][:-1]))
    of_bar = [before, *(logs[name] for name in PRICES)]
    rows = np.vstack((bars["volume"], *(np.diff(of_bar, axis=0))))
    return rows[:, 0 if len(history) else 1 :][:, np.argsort(rows[0, 0 if len(history) else 1 :])]


@given(st.integers(0, 1000), st.integers(0, 5), st.integers(2, 40), st.integers(1, 50))
def test_each_bar_keeps_its_moves_and_columns(
    seed: int, n_history: int, n: int, length: int
) -> None:
    history, bars = after(market(seed, n_history + n), n_history)
    drawn = permuted(bars, history, length, seed, 3)
    np.testing.assert_allclose(moves(history, drawn), moves(history, bars), atol=1e-12)
    np.testing.assert_array_equal(drawn.ts, bars.ts)
    assert drawn["close"][-1] == pytest.approx(bars["close"][-1], rel=1e-12)
    assert np.all(drawn["high"] >= np.maximum(drawn["open"], drawn["close"]))
    assert np.all(drawn["low"] <= np.minimum(drawn["open"], drawn["close"]))


def test_blocks_keep_their_order() -> None:
    history, bars = after(market(1, 1001), 1)
    order = permuted(bars, history, 10, 0, 0)["volume"] - 1
    follows = np.diff(order) == 1
    assert follows.mean() == pytest.approx(0.9, abs=0.01)
    singly = permuted(bars, history, 1, 0, 0)["volume"]
    assert np.mean(np.diff(singly) == 1) < 0.01


def test_bars_stay_together_where_calm_and_wild_weeks_follow_each_other() -> None:
    rng = np.random.default_rng(2)
    calm_and_wild = np.repeat(np.tile([0.005, 0.05], 20), 25)
    closes = 100 * np.exp(np.cumsum(calm_and_wild * rng.standard_normal(1000)))
    clustered = market(2, 1000).with_columns({"close": closes})
    assert block_bars(clustered) > 10
    assert block_bars(market(2, 1000)) < 6
    assert block_bars(market(2, 15)) == 1


@pytest.mark.parametrize("name", ["rsi_mean_revert", "bollinger_revert"])
def test_features_are_computed_anew(name: str) -> None:
    """With the bars before the run; RSI alone, Bollinger from all features."""
    panel = market(3, 300)
    config = SimulationConfig(
        sizing=VolatilityScaled(0.3, 20), stops=StopRules(trailing_atr=3.0), cooldown_bars=2
    )
    run = run_of_rule(name, panel, config, n_history=100)
    found = returns_of(run, 12, seed=5)
    assert run.rule is not None
    length = block_bars(run.panel)
    for draw in (0, 11):
        drawn = permuted(run.panel, run.rule.history, length, 5, draw)
        columns = {n: np.concatenate((run.rule.history[n], drawn[n])) for n in panel.columns}
        whole = panel.with_columns(columns)
        expected = run_of_rule(name, whole, config)
        # The whole history is simulated with events only where the run is.
        expected.events[:, :100] = 0
        assert found[draw] == pytest.approx(expected.total_return, rel=1e-9)
    assert len(set(found)) > 6


def test_a_rule_is_asked_about_bars_alone() -> None:
    stale = build_features(market(4, 120)).with_columns({"rsi_14": np.full(120, 50.0)})
    assert set(bars_of(stale).columns) == {*PRICES, "volume", "gap_bars"}
    assert len(bars_of(stale, before=int(stale.ts[7]))) == 7
    run = run_of_rule("rsi_mean_revert", market(4, 120))
    assert run.rule is not None
    rule = replace(run.rule, history=bars_of(stale, before=int(stale.ts[0])))
    again = returns_of(replace(run, panel=stale, rule=rule), 5)
    np.testing.assert_array_equal(again, returns_of(run, 5))


def in_turns(panel: Panel) -> Conditions:
    """Long after a fall, out after a rise; short never."""
    fell = np.diff(panel["close"], prepend=panel["close"][0]) < 0
    never = np.zeros(len(panel), bool)
    return Conditions(fell, ~fell, never, never)


def test_a_planted_edge_is_no_luck() -> None:
    rng = np.random.default_rng(6)
    steps = np.tile([0.01, -0.01], 150) + rng.normal(0, 0.005, 300)
    close = 100 * np.exp(np.cumsum(steps))
    open_ = np.concatenate(([100.0], close[:-1]))
    bars = market(6, 300).with_columns(
        {
            "open": open_,
            "high": np.maximum(open_, close),
            "low": np.minimum(open_, close),
            "close": close,
        }
    )
    nothing = bars.take(np.zeros(300, bool))
    events = condition_bits(in_turns(bars))[None]
    run = RunInputs(bars, events, SimulationConfig(), rule=Rule(in_turns, nothing))
    assert p_value(run.total_return, returns_of(run, 99)) == 1 / 100


def test_merely_being_long_earns_no_credit() -> None:
    panel = market(7, 200)
    panel = panel.with_columns({n: panel[n] * 1.01 ** np.arange(200) for n in PRICES})

    def always(bars: Panel) -> Conditions:
        never = np.zeros(len(bars), bool)
        return Conditions(~never, never, never, never)

    config = SimulationConfig(CostModel(0.0, 0.0), direction=Direction.LONG)
    events = condition_bits(always(panel))[None]
    history = panel.take(np.zeros(200, bool))
    run = RunInputs(panel, events, config, rule=Rule(always, history))
    assert run.total_return > 3
    assert p_value(run.total_return, returns_of(run, 50)) > 0.2


def test_ruin_is_counted() -> None:
    panel = market(8, 100, volatility=0.2)

    def short(bars: Panel) -> Conditions:
        never = np.zeros(len(bars), bool)
        return Conditions(never, never, ~never, never)

    events = condition_bits(short(panel))[None]
    rule = Rule(short, panel.take(np.zeros(100, bool)))
    found = permuted_returns(RunInputs(panel, events, SimulationConfig()), rule, 20, 0)
    assert 0 < found.ruined.mean() <= 1
    np.testing.assert_array_equal(found.total_return[found.ruined], -1.0)


def test_seeds_decide_the_order_and_batches_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_of_rule("rsi_mean_revert", market(9, 150))
    first = returns_of(run, 12, seed=3)
    np.testing.assert_array_equal(returns_of(run, 5, seed=3), first[:5])
    assert not np.array_equal(returns_of(run, 12, seed=4), first)
    monkeypatch.setattr("backtest_pipeline.research.robustness.draws._CELLS_AT_ONCE", 300)
    np.testing.assert_array_equal(returns_of(run, 12, seed=3), first)
    with pytest.raises(InvalidInput, match="draws must be"):
        returns_of(run, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rsi_mean_revert", "macd_crossover"])
def test_few_driftless_walks_pass(name: str) -> None:
    """Of 200 about 10 should; 21 or more have a chance of one in a thousand."""
    p_values = []
    for seed in range(200):
        run = run_of_rule(name, market(seed, 730))
        p_values.append(p_value(run.total_return, returns_of(run, 99, seed=seed)))
    assert 2 <= np.count_nonzero(np.array(p_values) <= 0.05) <= 20
