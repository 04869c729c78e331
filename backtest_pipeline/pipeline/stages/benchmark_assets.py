"""Benchmarks of runs, built from stored features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.panel import OHLCV, Panel, utc_index
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.runs.daily_bars import DailyBars
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.runs.read_rows import Read
from backtest_pipeline.pipeline.stages.features import load_batch, load_daily
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.portfolio.portfolio import form_portfolio
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.inputs import buy_and_hold
from backtest_pipeline.simulation.marks import Marks
from backtest_pipeline.simulation.metrics.benchmarks import (
    BENCHMARKS,
    benchmark_equity,
    carried_forward,
)
from backtest_pipeline.storage.tables.datasets import read_versions
from backtest_pipeline.storage.tables.dimensions import known_symbols
from backtest_pipeline.storage.tables.synthetic import synthetic_among

UNIVERSE = "universe"
NOT_ASSETS = (*BENCHMARKS, UNIVERSE)
"""The names of benchmarks that are not symbols."""


@dataclass(frozen=True)
class Comparison:
    """A benchmark's equity at a run's marks, and what else it was made from, by partition."""

    equity: np.ndarray
    inputs: Mapping[str, Read] = field(default_factory=dict)


def require_benchmark(name: str, symbols: Iterable[str]) -> None:
    """Raise UnknownName unless `name` is a benchmark or one of the stored `symbols`."""
    known = (*NOT_ASSETS, *symbols)
    if name not in known:
        raise UnknownName("benchmark", name, known)


def compare_with(workspace: Workspace, panel: Panel, marks: Marks, terms: RunTerms) -> Comparison:
    """The requested benchmark at the marks of one asset's run.

    `asset` is buy and hold of the traded asset, `cash` the starting cash, `universe` an
    equal-weight portfolio of all assets with features at this timeframe (real ones for a real
    asset, synthetic ones for a synthetic one), rebalanced monthly, and any other symbol buy and
    hold of that asset; all at the run's fee and slippage.

    Raises:
        InvalidInput: for an asset or a universe without stored bars in the window.
    """
    name = terms.benchmark
    if name in BENCHMARKS:
        return Comparison(benchmark_equity(panel, marks, name, terms.config))
    with workspace.database.begin() as connection:
        symbols = [name]
        if name == UNIVERSE:
            known = known_symbols(connection)
            synthetic = set(synthetic_among(connection, known))
            alike = panel.assets[0] in synthetic
            # Sorted: databases sort text differently, and a sum of floats depends on its order.
            symbols = sorted(symbol for symbol in known if (symbol in synthetic) == alike)
        partitions = [Partition(symbol, panel.timeframe.name) for symbol in symbols]
        stored = read_versions(connection, "features", partitions)
    assets = [partition.asset for partition in partitions if partition in stored]
    if not assets:
        raise InvalidInput(
            f"benchmark {name}: it has no stored {panel.timeframe.name} features; refresh it first"
        )
    batch = load_batch(workspace, "features", panel.timeframe.name, assets, OHLCV)
    held = held_in(batch.panel, terms)
    daily = load_daily(workspace, held) if marks.is_daily.any() else DailyBars()
    inputs = {
        f"{asset}|{panel.timeframe.name}": Read.whole(batch.inputs[asset]) for asset in assets
    }
    for asset in assets:
        inputs |= daily.read_by(asset)
    return Comparison(others_held(marks, held, daily, terms), inputs)


def held_in(others: Panel, terms: RunTerms) -> Panel:
    """The bars of a run's window on which a benchmark holds other assets.

    Raises:
        InvalidInput: where none of the assets has a bar in the window.
    """
    held = others.take(rows_in(others, terms.window))
    if not len(held):
        raise InvalidInput(f"benchmark {terms.benchmark}: it has no stored bar in the window")
    return held


def others_held(marks: Marks, held: Panel, daily: DailyBars, terms: RunTerms) -> np.ndarray:
    """Equity of an equal-weight portfolio at the marks of one run, float64 `(n_marks,)`.

    Args:
        marks: those of the run.
        held: the bars of the assets, as `held_in` returns them.
        daily: the daily bars that mark them.
        terms: terms of the run.
    """
    equity = _held_equally(held, daily.marks(held), terms.config)
    return carried_forward(marks.ts, equity, terms.config.initial_cash)


def _held_equally(panel: Panel, marks: Marks, config: SimulationConfig) -> pd.Series:
    held = buy_and_hold(panel, marks, config)
    ts, at = np.unique(marks.ts, return_inverse=True)
    curves = np.full((len(panel.assets), len(ts)), np.nan)
    curves[marks.segment, at] = held
    cost_rate = (config.costs.fee_bps + config.costs.slippage_bps) / 1e4
    equity = form_portfolio(curves, ts, config.initial_cash, cost_rate).equity
    return pd.Series(equity, utc_index(ts))


def rows_in(panel: Panel, window: Window) -> np.ndarray:
    """Mask of the panel's rows inside the window, bool `(n_rows,)`."""
    day = panel.ts // DAY_US
    keep = np.ones(len(panel), bool)
    if window.start:
        keep &= day >= np.datetime64(window.start).astype(np.int64)
    if window.end:
        keep &= day < np.datetime64(window.end).astype(np.int64)
    return keep
