"""Finished runs as portfolios of vectorbt have the same equity at every bar."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.vectorbt_engine.portfolio_of_trades import portfolio_of_trades
from backtest_pipeline.trading.sizing import FixedFractional
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.simulation.markets import random_events, random_panel

NAMES = ("entry_ts", "exit_ts", "side", "size", "entry_price", "exit_price", "fees", "funding")


def portfolio(result: BatchResult, config: SimulationConfig, run: int):
    own = result.trades.take(result.trades.column == run)
    trades = {name: getattr(own, name) for name in (*NAMES, "is_open")}
    fee = config.costs.fee_bps / 1e4
    return portfolio_of_trades(result.panel, trades, fee=fee, initial_cash=config.initial_cash)


@pytest.mark.parametrize("timeframe", ["1D", "1H"])
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize(
    "stops",
    [StopRules(), StopRules(stop_loss=0.01, take_profit=0.02), StopRules(trailing_atr=1.0)],
    ids=["none", "tight", "trailing"],
)
def test_the_equity_is_that_of_the_run_at_every_close(
    stops: StopRules, direction: Direction, timeframe: str
) -> None:
    rng = np.random.default_rng(3)
    panel = random_panel(rng, [250], 0.02, timeframe, holes=0.05)
    config = SimulationConfig(sizing=FixedFractional(0.9), direction=direction, stops=stops)
    ours = simulate_batch(panel, random_events(rng, 3, panel), config)
    assert len(ours.trades) > 20
    for run in range(3):
        theirs = portfolio(ours, config, run)
        value = theirs.value()
        closes = np.isin(value.index.asi8, panel.ts)
        np.testing.assert_allclose(value.to_numpy()[closes], ours.equity[run], rtol=1e-9)
        assert closes.sum() == len(panel)
        own = ours.trades.take(ours.trades.column == run)
        assert len(theirs.exit_trades.records) == len(own)
        np.testing.assert_allclose(
            np.sort(theirs.exit_trades.records["pnl"].to_numpy()), np.sort(own.pnl), atol=1e-6
        )


def test_a_run_without_trades_keeps_its_cash() -> None:
    panel = random_panel(np.random.default_rng(4), [20])
    config = SimulationConfig(initial_cash=50.0)
    ours = simulate_batch(panel, np.zeros((1, 20), np.uint8), config)
    assert set(portfolio(ours, config, 0).value()) == {50.0}
