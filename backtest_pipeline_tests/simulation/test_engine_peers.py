"""Published results, and the same signals through independent engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.simulation.batch import BatchResult, simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.pandas_objects.single import simulate
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import (
    FixedFractional,
)
from backtest_pipeline_tests.simulation.markets import (
    average_crosses,
    google,
    random_events,
    random_panel,
    real_bars,
)

SYMBOLS = ("BTC", "ETH", "BNB", "ADA", "XRP", "LTC", "LINK", "DOGE", "TRX", "XLM")


@pytest.mark.parametrize(
    ("fee_bps", "percent"), [(0.0, 482.788466), (10.0, 446.112371)], ids=["free", "10 bps"]
)
def test_google_average_crosses_return_what_is_published(
    test_data: Path, fee_bps: float, percent: float
) -> None:
    bars = google(test_data)
    result = simulate(bars, *average_crosses(bars, 10, 30), costs=CostModel(fee_bps, 0.0))
    total_return = result.metrics["total_return"]
    assert total_return is not None
    assert round(100 * total_return, 6) == percent
    assert len(result.trades) == 33


def test_google_average_crosses_fall_as_deep_as_is_published(test_data: Path) -> None:
    bars = google(test_data)
    result = simulate(bars, *average_crosses(bars, 10, 30), costs=CostModel(0.0, 0.0))
    deepest = result.metrics["max_drawdown"]
    assert deepest is not None
    assert round(100 * deepest, 6) == -29.716029
    assert set(result.trades["slippage_cost"]) == set(result.trades["fees"]) == {0.0}


def test_filling_at_the_signals_own_close_is_another_number(test_data: Path) -> None:
    bars = google(test_data)
    signals = average_crosses(bars, 10, 30)
    # Each open replaced by the close before it: what a fill at the signal's close would pay.
    canary = bars.assign(open=bars["close"].shift().fillna(bars["open"]))
    canary["high"] = canary[["open", "high"]].max(axis=1)
    canary["low"] = canary[["open", "low"]].min(axis=1)
    looked_ahead = simulate(canary, *signals, costs=CostModel(0.0, 0.0)).metrics["total_return"]
    honest = simulate(bars, *signals, costs=CostModel(0.0, 0.0)).metrics["total_return"]
    assert looked_ahead is not None
    assert honest is not None
    assert round(100 * looked_ahead, 6) == 541.953912
    assert abs(looked_ahead - honest) > 0.5


def backtesting_py(
    bars: pd.DataFrame, enter: pd.Series, leave: pd.Series, side: int, commission: float
) -> Any:
    """Statistics of backtesting.py for one-sided signals, open positions closed at the end."""
    from backtesting import Strategy
    from backtesting.lib import FractionalBacktest

    enters, leaves = enter.tolist(), leave.tolist()

    class Signals(Strategy):
        def init(self) -> None:
            pass

        def next(self) -> None:
            t = len(self.data) - 1
            if self.position:
                if leaves[t]:
                    self.position.close()
            elif enters[t]:
                (self.buy if side > 0 else self.sell)()

    test = FractionalBacktest(
        bars.rename(columns=str.capitalize).tz_localize(None),
        Signals,
        cash=1e7,
        commission=commission,
        finalize_trades=False,
        fractional_unit=1e-13,
    )
    return test.run()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [1, -1], ids=["long", "short"])
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_backtesting_py_agrees_on_ten_coins(test_data: Path, symbol: str, side: int) -> None:
    bars = real_bars(test_data, "binance_daily.parquet", f"{symbol}USDT")
    up, down = average_crosses(bars, 10, 30)
    enter, leave = (up, down) if side > 0 else (down, up)
    # backtesting.py sizes shorts net of the commission, so shorts are compared without one.
    commission = 0.001 if side > 0 else 0.0
    theirs = backtesting_py(bars, enter, leave, side, commission)
    never = pd.Series(False, bars.index)
    signals = (enter, leave) if side > 0 else (never, never, enter, leave)
    ours = simulate(bars, *signals, costs=CostModel(1e4 * commission, 0.0), initial_cash=1e7)
    # Both end a ruined short, but ours at the bar's high and theirs at its close.
    alive = ours.equity[ours.equity > 0]
    np.testing.assert_allclose(alive, theirs["_equity_curve"]["Equity"][: len(alive)], rtol=1e-9)
    closed = ours.trades[ours.trades["exit_reason"] == "signal"]
    their_trades = theirs["_trades"][: len(closed)]
    assert len(closed) >= 2
    np.testing.assert_allclose(closed["pnl"], their_trades["PnL"], rtol=1e-9, atol=1e-3)
    np.testing.assert_allclose(closed["entry_price"], their_trades["EntryPrice"], rtol=1e-12)


def vectorbt_on_all_bars(panel: Panel, result: BatchResult, config: SimulationConfig) -> Any:
    """One vectorbt portfolio with a row per bar, of a panel with one asset, without reversals."""
    import vectorbt as vbt
    from vectorbt.portfolio.enums import Direction, SizeType

    assert isinstance(config.sizing, FixedFractional)
    trades = result.trades
    size = np.full(result.equity.shape[::-1], np.nan)
    size[trades.entry_bar, trades.column] = trades.side * config.sizing.fraction
    closed = ~trades.is_open
    size[(trades.entry_bar + trades.bars_held)[closed], trades.column[closed]] = 0.0
    wide = np.ones(len(result.equity))
    return vbt.Portfolio.from_orders(
        panel["close"][:, None] * wide,
        size=size,
        size_type=SizeType.TargetPercent,
        direction=Direction.Both,
        price=panel["open"][:, None] * wide,
        val_price=np.inf,
        fees=config.costs.fee_bps / 1e4,
        slippage=config.costs.slippage_bps / 1e4,
        init_cash=config.initial_cash,
        cash_sharing=False,
        freq="1D",
    )


@pytest.mark.parametrize("direction", [Direction.LONG, Direction.SHORT])
@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_vectorbt_on_all_bars_has_the_same_equity_and_trades(
    fraction: float, direction: Direction
) -> None:
    rng = np.random.default_rng(7)
    panel = random_panel(rng, [400], volatility=0.02)
    events = random_events(rng, 30, panel)
    config = SimulationConfig(sizing=FixedFractional(fraction), direction=direction)
    ours = simulate_batch(panel, events, config)
    assert not ours.liquidated.any()
    theirs = vectorbt_on_all_bars(panel, ours, config)
    np.testing.assert_allclose(ours.equity, theirs.value().to_numpy().T, rtol=1e-12)
    records = theirs.exit_trades.records
    assert len(records) == len(ours.trades) > 1000
    np.testing.assert_allclose(ours.trades.pnl, records["pnl"], rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(
        ours.trades.fees,
        records["entry_fees"] + records["exit_fees"] * ~ours.trades.is_open,
        rtol=1e-12,
    )
