"""What vectorbt cannot simulate is refused by name, with what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.book import simulate_book
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.funding import FundingRates
from backtest_pipeline.simulation.rules import RulesOfRuns
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.engine_names import EngineName
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.markets import random_events, random_panel

RNG = np.random.default_rng(1)
PANEL = random_panel(RNG, [40, 40])
EVENTS = random_events(RNG, 1, PANEL)
BOTH = StopRules(stop_loss=0.1, take_profit=0.1)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"costs": CostModel(funding_bps_day=1.0)}, "funding"),
        ({"max_leverage": 2.0}, "max_leverage"),
        ({"lot_size": 0.1}, "lot_size"),
        ({"min_notional": {"A0": 5.0, "A1": 5.0}}, "min_notional"),
        ({"cooldown_bars": 2}, "cooldown_bars"),
        ({"stops": StopRules(max_bars=3)}, "max_bars"),
        ({"stops": StopRules(trailing_atr=3.0)}, "trailing_atr"),
        ({"stops": StopRules(stop_loss=0.1, trailing=0.1)}, "stop_loss and trailing together"),
        ({"stops": BOTH, "intrabar": "target_first"}, "intrabar=target_first"),
    ],
)
def test_each_assumption_that_vectorbt_cannot_hold_is_named(
    given: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidInput, match=rf"engine vectorbt: .*{named}.*engine=account"):
        simulate_batch(PANEL, EVENTS, SimulationConfig(**given, engine=EngineName.VECTORBT))


def test_funding_finer_bars_and_changing_trails_are_refused() -> None:
    config = SimulationConfig(engine=EngineName.VECTORBT)
    stamps = pd.date_range("2023-12-01", "2024-06-01", freq="8h", tz="UTC")
    rates = pd.Series(1e-4, stamps)
    with pytest.raises(InvalidInput, match="funding"):
        simulate_batch(PANEL, EVENTS, config, funding=FundingRates.of({"A0": rates, "A1": rates}))
    finer = random_panel(RNG, [40], timeframe_name="1H")
    with pytest.raises(InvalidInput, match="finer bars"):
        simulate_batch(PANEL, EVENTS, replace(config, stops=BOTH), finer=finer)
    trails = tuple(SimulationConfig(stops=StopRules(trailing=t)).rules for t in (0.1, 0.2))
    rules = RulesOfRuns(trails, np.array([[0, 1, 0]]), np.array([0, 20, 40, 80]))
    with pytest.raises(InvalidInput, match="trailing chosen by a walk-forward"):
        simulate_batch(PANEL, EVENTS, config, rules=rules)


def test_a_book_of_several_assets_is_refused() -> None:
    with pytest.raises(InvalidInput, match="depends on the order of assets"):
        simulate_book(PANEL, EVENTS, SimulationConfig(engine=EngineName.VECTORBT))


def test_an_unknown_engine_is_named_with_those_that_there_are() -> None:
    with pytest.raises(UnknownName, match="vectorbt"):
        SimulationConfig(engine="vectorbot")  # pyright: ignore[reportArgumentType]
