"""Case `grid`: all combinations of a grid at once, what their metrics cost, and how much memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from backtest_pipeline.market.features import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.pipeline.stages.conditions import signal_matrix
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.simulation.inputs import account_inputs
from backtest_pipeline.simulation.metrics.metrics import compute_metrics_batch
from backtest_pipeline.simulation.sweep import sweep
from backtest_pipeline.simulation.trades import trade_log
from backtest_pipeline.storage.tables.dimensions import SignalRow
from backtest_pipeline.strategies.grid import ParameterGrid, parameter_grid
from backtest_pipeline.strategies.registry import strategy_of
from backtest_pipeline.trading.costs import CostModel
from bench.engines import (
    CASH,
    FEE,
    columns_of,
    ema_cross_by_backtesting_py,
    plain_vectorbt,
)
from bench.harness import Report, Table, interleaved, median
from bench.peers import random_panel

_CONFIG = SimulationConfig(
    costs=CostModel(fee_bps=FEE * 1e4, slippage_bps=0), direction=Direction.LONG, initial_cash=CASH
)
_OURS = "sweep: signals, fills, all metrics"
_SAMPLED = 4  # combinations that the engines run which go one by one
_SEED = 7


def run(*, quick: bool) -> Report:
    """Measure it; raises AssertionError where the engines disagree on a total return."""
    repeats = 1 if quick else 5
    return Report(
        "Grid",
        "EMA crossovers on random daily bars, long only, fee 0.1 % a side. All compute their "
        f"averages and signals; the other engines run {_SAMPLED} of the combinations, and their "
        f"time is scaled to the whole grid. Medians of {repeats} rounds that take turns, after one "
        "of warming up. Memory is the peak of a fresh process, and what it had before the sweep.",
        [
            _against_peers(200 if quick else 5_000, 20 if quick else 500, repeats),
            _metrics_and_simulation(100 if quick else 10_000, 200 if quick else 3_650, repeats),
            _memory(20 if quick else 10_000, 200 if quick else 5_000),
        ],
    )


def _grid(n_combinations: int) -> ParameterGrid:
    slow = range(30, 30 + 2 * max(1, n_combinations // 25), 2)
    axes = {"fast": list(range(3, 28)), "slow": list(slow)}
    return parameter_grid(strategy_of("ema_crossover"), axes, 20_000)


def _against_peers(n_bars: int, n_combinations: int, repeats: int) -> Table:
    panel, grid = random_panel(1, n_bars), _grid(n_combinations)
    chosen = np.linspace(0, len(grid) - 1, _SAMPLED).astype(int).tolist()
    periods = [grid.combinations[i] for i in chosen]
    expected = sweep(panel, grid, _CONFIG)["total_return"].to_numpy()[chosen]

    def plainly_by_vectorbt() -> list[float]:
        return [plain_vectorbt(column) for column in columns_of(panel, _events(panel, periods))]

    def by_backtesting_py() -> list[float]:
        return [ema_cross_by_backtesting_py(panel, fast, slow) for fast, slow in periods]

    peers = {
        "plain vectorbt, a column at a time with `stats()`": plainly_by_vectorbt,
        "backtesting.py": by_backtesting_py,
    }
    for name, work in peers.items():
        np.testing.assert_allclose(work(), expected, rtol=0, atol=1e-5, err_msg=name)
    candidates = {_OURS: lambda: sweep(panel, grid, _CONFIG), **peers}
    taken = {name: median(t).wall for name, t in interleaved(candidates, repeats).items()}
    seconds = {
        name: wall if name == _OURS else wall / len(chosen) * len(grid)
        for name, wall in taken.items()
    }
    rows = [[name, wall, wall / seconds[_OURS]] for name, wall in seconds.items()]
    return Table(
        f"{len(grid)} combinations x {n_bars:,} bars", ["engine", "seconds", "times ours"], rows
    )


def _events(panel: Panel, periods: list[tuple[int, int]]) -> np.ndarray:
    signals = tuple(
        SignalRow(i, f"{pair}", "ema_crossover", dict(zip(("fast", "slow"), pair, strict=True)))
        for i, pair in enumerate(periods)
    )
    averages = sorted({f"ema_{n}" for pair in periods for n in pair})
    return np.ascontiguousarray(signal_matrix(with_indicators(panel, averages), signals))


def _metrics_and_simulation(n_columns: int, n_bars: int, repeats: int) -> Table:
    panel = random_panel(1, n_bars)
    events = np.random.default_rng(_SEED).choice(
        np.array([0] * 12 + [1, 2, 4, 8], np.uint8), (n_columns, n_bars)
    )
    config = SimulationConfig()
    result = simulate_batch(panel, events, config)

    def simulated() -> object:
        walk_forwards = account_inputs(panel, events, config, 1, None, None).simulate_each(panel)
        return trade_log(panel, walk_forwards.trades)

    def measured() -> object:
        return compute_metrics_batch(
            panel, result.marks, result.equity, result.benchmark, result.trades
        )

    taken = interleaved({"simulation": simulated, "all metrics": measured}, repeats)
    seconds = {name: median(t).wall for name, t in taken.items()}
    rows = [[name, wall, wall / seconds["simulation"]] for name, wall in seconds.items()]
    title = f"{n_columns:,} columns x {n_bars:,} days, {len(result.trades):,} trades"
    return Table(title, ["work", "seconds", "times the simulation"], rows)


def _memory(n_combinations: int, n_bars: int) -> Table:
    """In a process of its own, since a peak is never forgotten."""
    code = f"from bench.grid import _peak; _peak({n_combinations}, {n_bars})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, peak = map(float, found.stdout.split())
    return Table(
        f"Memory of {n_combinations:,} columns x {n_bars:,} bars",
        ["GiB before", "GiB at the peak", "equity of all columns, GiB"],
        [[before, peak, n_combinations * n_bars * 8 / 2**30]],
    )


def _peak(n_combinations: int, n_bars: int) -> None:
    panel = random_panel(1, n_bars)
    sweep(panel, _grid(25), _CONFIG)
    before = _highest_memory()
    sweep(panel, _grid(n_combinations), _CONFIG)
    print(before, _highest_memory())


def _highest_memory() -> float:
    """GiB. The kernel's own count: that of getrusage begins with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20
