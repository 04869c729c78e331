"""Case `peers`: the same signals, simulated by this project and by others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backtest_pipeline.market.features.derive import with_indicators
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.pipeline.stages.conditions import signal_matrix
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.trading.costs import CostModel
from bench.bars import random_bars
from bench.engines import (
    CASH,
    FEE,
    Column,
    backtesting_py,
    bare_loop,
    columns_of,
    plain_vectorbt,
)
from bench.harness import Report, Table, interleaved, median

_SIGNALS = (
    SignalRow(1, "ema_9_21", "ema_crossover", {"fast": 9, "slow": 21}),
    SignalRow(2, "rsi_14_30_70", "rsi_mean_revert", {"period": 14, "lower": 30, "upper": 70}),
)
_CONFIG = SimulationConfig(
    costs=CostModel(fee_bps=FEE * 1e4, slippage_bps=0), direction=Direction.LONG, initial_cash=CASH
)
_OURS = "backtest_pipeline, all metrics"
_MOST_COLUMNS = 4  # of the engines that go one by one
_AGREE_WITHIN = 1e-5


def run(*, quick: bool) -> Report:
    """Measure it; raises AssertionError where the engines disagree on a total return."""
    n_days, repeats = (200, 1) if quick else (3_000, 5)
    tables = [_compare(n_assets, n_days, repeats) for n_assets in ((1, 2) if quick else (1, 100))]
    return Report(
        "Peers",
        f"EMA 9/21 and RSI 14 on random daily bars, long only, fee {FEE:.1%} a side, filled at "
        "the next open; signals computed beforehand; all engines agree on every total return "
        f"within {_AGREE_WITHIN:g}. Medians of {repeats} rounds in which the engines take turns, "
        "after one round of warming up. The compiled loop computes fills and equity and nothing "
        "else.",
        tables,
    )


def _compare(n_assets: int, n_days: int, repeats: int) -> Table:
    panel = random_panel(n_assets, n_days)
    events = np.ascontiguousarray(signal_matrix(panel, _SIGNALS))
    columns = columns_of(panel, events)
    # Some of each signal, spread over the assets.
    chosen = np.unique(np.linspace(0, len(columns) - 1, _MOST_COLUMNS).astype(int)).tolist()
    expected = simulate_batch(panel, events, _CONFIG).metrics["total_return"]
    np.testing.assert_allclose(bare_loop(panel, events), expected, rtol=0, atol=_AGREE_WITHIN)

    def one_by_one(engine: Callable[[Column], float]) -> Callable[[], list[float]]:
        return lambda: [engine(columns[i]) for i in chosen]

    peers = {
        "plain vectorbt, `from_signals(...).stats()`": one_by_one(plain_vectorbt),
        "backtesting.py": one_by_one(backtesting_py),
    }
    for name, work in peers.items():
        np.testing.assert_allclose(
            work(), expected[chosen], rtol=0, atol=_AGREE_WITHIN, err_msg=name
        )
    width = dict.fromkeys(peers, len(chosen))
    candidates = {
        _OURS: lambda: simulate_batch(panel, events, _CONFIG),
        **peers,
        "compiled loop (the limit)": lambda: bare_loop(panel, events),
    }
    per_column = {
        name: 1e3 * median(taken).wall / width.get(name, len(columns))
        for name, taken in interleaved(candidates, repeats).items()
    }
    rows = [
        [name, width.get(name, len(columns)), ms, ms / per_column[_OURS]]
        for name, ms in per_column.items()
    ]
    title = f"{n_assets} asset{'s' * (n_assets > 1)} x {n_days:,} bars, {len(columns)} columns"
    return Table(title, ["engine", "columns run", "ms per column", "times ours"], rows)


def random_panel(n_assets: int, n_days: int) -> Panel:
    """Random daily bars with the indicators of the signals."""
    table = random_bars(n_assets, n_days)
    ts = table["ts"].to_numpy().astype("M8[us]").astype(np.int64) + DAY_US
    offsets = np.arange(n_assets + 1, dtype=np.int64) * n_days
    bars = {name: table[name].to_numpy() for name in OHLCV}
    assets = tuple(f"R{i:03d}" for i in range(n_assets))
    return with_indicators(
        Panel(timeframe("1D"), assets, offsets, ts, bars), ("ema_9", "ema_21", "rsi_14")
    )
