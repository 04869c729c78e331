"""The engine against a bar-by-bar simulator written in plain Python."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.trades import EXIT_REASONS
from backtest_pipeline.trading.sizing import FixedFractional
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.assumptions import configs, seeds, volatilities
from backtest_pipeline_tests.simulation.by_hand import check_batch, check_book
from backtest_pipeline_tests.simulation.markets import (
    random_events,
    random_market,
    random_rates,
)

LENGTHS = (30, 1, 0, 45, 2)
BOOK_LENGTHS = (45, 30, 0, 40)
EXAMPLES = int(os.environ.get("BACKTEST_EXAMPLES", "120"))
tables = st.sampled_from([None, 1e-4, 0.02])


def drawn_case(
    seed: int, volatility: float, deviation: float | None, lengths: tuple[int, ...], n_runs: int
) -> tuple[Panel, Panel, np.ndarray, dict[str, pd.Series] | None]:
    """A market with holes, its finer bars, signals, and rates where they are asked for."""
    rng = np.random.default_rng(seed)
    panel, finer = random_market(rng, lengths, volatility, holes=0.1)
    rates = None if deviation is None else random_rates(rng, panel, deviation)
    return panel, finer, random_events(rng, n_runs, panel), rates


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=seeds,
    volatility=volatilities,
    config=configs(),
    deviation=tables,
    with_finer=st.booleans(),
)
def test_random_signals_in_random_markets_agree_with_the_simulation_by_hand(
    seed: int,
    volatility: float,
    config: SimulationConfig,
    deviation: float | None,
    with_finer: bool,
) -> None:
    panel, finer, events, rates = drawn_case(seed, volatility, deviation, LENGTHS, 4)
    check_batch(panel, events, config, rates, finer if with_finer else None)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    seed=seeds,
    volatility=volatilities,
    config=configs(),
    deviation=tables,
    with_finer=st.booleans(),
    late=st.integers(0, 20),
)
def test_random_books_agree_with_the_simulation_by_hand(
    seed: int,
    volatility: float,
    config: SimulationConfig,
    deviation: float | None,
    with_finer: bool,
    late: int,
) -> None:
    panel, finer, events, rates = drawn_case(seed, volatility, deviation, BOOK_LENGTHS, 2)
    listed = (panel.segment_of_row != 1) | (np.arange(len(panel)) >= panel.offsets[1] + late)
    by_asset = replace(
        config, min_notional={name: 400.0 * i for i, name in enumerate(panel.assets)}
    )
    check_book(
        panel.take(listed), events[:, listed], by_asset, rates, finer if with_finer else None
    )


def test_every_end_of_a_trade_occurs_in_a_wild_book() -> None:
    panel, finer, events, rates = drawn_case(3, 0.1, 1e-3, BOOK_LENGTHS, 30)
    config = SimulationConfig(
        sizing=FixedFractional(3.0),
        stops=StopRules(stop_loss=0.4, take_profit=0.4, trailing=0.45, max_bars=5),
        max_leverage=3.0,
        min_notional=1_000.0,
    )
    accounts = check_book(panel, events, config, rates, finer)
    ends = {trade.reason for hand in accounts for trades in hand.trades for trade in trades}
    assert ends == set(EXIT_REASONS) - {"delisting"}  # of books that rank their assets
    assert sum(hand.refused for hand in accounts) > 0
