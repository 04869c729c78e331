"""Both engines give the same trades and equity wherever vectorbt can hold the assumptions."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.engine import EXIT_REASONS
from backtest_pipeline.simulation.orders import HOLD, LONG_ENTRY, SHORT_ENTRY
from backtest_pipeline.simulation.pandas_objects.frames import bars_panel
from backtest_pipeline.simulation.rules import RulesOfRuns
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.markets import bars_of, random_events, random_panel
from backtest_pipeline_tests.simulation.vectorbt_engine.cases import (
    COSTS,
    SIZINGS,
    STOPS,
    assert_agree,
    both,
)

LENGTHS = (120, 2, 90)


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("sizing", SIZINGS)
def test_sizings_costs_and_directions_agree(sizing: str, costs: str, direction: Direction) -> None:
    rng = np.random.default_rng(1)
    panel = random_panel(rng, LENGTHS, volatility=0.02, holes=0.05)
    config = SimulationConfig(COSTS[costs], SIZINGS[sizing], direction)
    ours, theirs = both(panel, random_events(rng, 4, panel), config)
    assert len(ours.trades) > 40
    assert_agree(ours, theirs)


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("stops", STOPS)
@pytest.mark.parametrize("sizing", ["all", "volatility"])
def test_stops_and_targets_agree_with_fills_at_the_next_open(
    sizing: str, stops: str, direction: Direction
) -> None:
    rng = np.random.default_rng(2)
    panel = random_panel(rng, LENGTHS, volatility=0.03, holes=0.05)
    config = SimulationConfig(COSTS["both"], SIZINGS[sizing], direction, stops=STOPS[stops])
    ours, theirs = both(panel, random_events(rng, 4, panel), config)
    assert_agree(ours, theirs)


def test_the_matrix_has_every_kind_of_exit_that_vectorbt_can_make() -> None:
    rng = np.random.default_rng(3)
    panel = random_panel(rng, LENGTHS, volatility=0.03)
    events = random_events(rng, 4, panel)
    seen: set[str] = set()
    for stops in STOPS.values():
        ours, theirs = both(panel, events, SimulationConfig(stops=stops))
        assert_agree(ours, theirs)
        seen |= {EXIT_REASONS[reason] for reason in theirs.trades.exit_reason.tolist()}
    assert seen == set(EXIT_REASONS) - {"time_stop", "liquidation", "delisting"}


def test_entries_that_cannot_be_sized_are_blocked_by_both() -> None:
    rng = np.random.default_rng(4)
    panel = random_panel(rng, LENGTHS, volatility=0.02)
    ours, theirs = both(
        panel, random_events(rng, 4, panel), SimulationConfig(sizing=SIZINGS["volatility"])
    )
    assert theirs.refused.sum() > 5
    assert_agree(ours, theirs)


@pytest.mark.parametrize("delay_bars", [1, 3])
def test_delayed_fills_and_less_leverage_agree(delay_bars: int) -> None:
    rng = np.random.default_rng(5)
    panel = random_panel(rng, LENGTHS, volatility=0.02)
    config = SimulationConfig(
        sizing=SIZINGS["part"], delay_bars=delay_bars, max_leverage=0.5, initial_cash=123.0
    )
    assert_agree(*both(panel, random_events(rng, 4, panel), config))


def test_many_columns_are_simulated_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    panel = random_panel(rng, [60] * 12, volatility=0.02)
    events = random_events(rng, 9, panel)
    whole, theirs = both(panel, events, SimulationConfig())
    monkeypatch.setattr("backtest_pipeline.simulation.vectorbt_engine.simulated._CELLS", 6_000)
    _, in_parts = both(panel, events, SimulationConfig())
    assert_agree(whole, theirs)
    assert np.array_equal(in_parts.equity, theirs.equity)
    assert np.array_equal(in_parts.trades.column, theirs.trades.column)


def test_positions_that_windows_of_a_walk_forward_hold_agree() -> None:
    rng = np.random.default_rng(7)
    panel = random_panel(rng, [80, 60], volatility=0.02)
    events = random_events(rng, 3, panel)
    for row, bits in ((0, LONG_ENTRY), (20, SHORT_ENTRY), (40, 0), (80, SHORT_ENTRY), (110, 0)):
        events[:, row] = bits | HOLD
    rules = tuple(SimulationConfig(stops=StopRules(stop_loss=loss)).rules for loss in (0.02, 0.05))
    of = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 1, 1]])
    of_runs = RulesOfRuns(rules, of, np.array([0, 40, 80, 110, 140]))
    assert_agree(*both(panel, events, SimulationConfig(), of_runs))


@pytest.mark.parametrize("side", [LONG_ENTRY, SHORT_ENTRY])
@pytest.mark.parametrize(
    ("opens", "lows", "highs"),
    [
        ([100, 100, 80, 80], [99, 99, 79, 79], [101, 101, 81, 81]),  # a gap through the stop
        ([100, 100, 125, 80], [99, 99, 70, 79], [101, 101, 126, 81]),  # past the target, then down
        ([100, 100, 100, 100], [99, 70, 99, 99], [101, 130, 101, 101]),  # both, on the entry's bar
        ([100, 100, 100, 100], [99, 99, 88, 99], [101, 101, 111, 101]),
    ],
)
def test_gaps_and_bars_that_touch_everything_agree(
    opens: list[float], lows: list[float], highs: list[float], side: int
) -> None:
    panel = bars_panel(bars_of(opens, None, highs, lows), None, "asset")
    events = np.array([[side, 0, 0, 0]], np.uint8)
    for stops in (STOPS["stop and target"], STOPS["trailing and target"], STOPS["stop"]):
        ours, theirs = both(panel, events, SimulationConfig(CostModel(10.0, 5.0), stops=stops))
        assert len(theirs.trades) == 1
        assert_agree(ours, theirs)


@pytest.mark.parametrize("lengths", [[0], [1], [0, 5], [2, 0, 3]])
def test_assets_with_few_bars_or_none_agree(lengths: list[int]) -> None:
    rng = np.random.default_rng(8)
    panel = random_panel(rng, lengths, volatility=0.02)
    assert_agree(*both(panel, random_events(rng, 2, panel), SimulationConfig()))


def test_a_short_that_loses_everything_is_refused_and_not_shown_to_recover() -> None:
    closes = [100, 100, 150, 260, 90, 90]
    panel = bars_panel(bars_of(closes, closes), None, "asset")
    events = np.array([[SHORT_ENTRY, 0, 0, 0, 0, 0]], np.uint8)
    with pytest.raises(InvalidInput, match=r"short of 2024-01-02 loses all of the equity"):
        both(panel, events, SimulationConfig())
    assert_agree(*both(panel, events, SimulationConfig(stops=StopRules(stop_loss=0.3))))
