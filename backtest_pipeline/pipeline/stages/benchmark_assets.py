"""What a run is compared with, made from what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.panel import OHLCV, Panel, utc_index
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.stages.features import load_batch
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.portfolio.portfolio import form_portfolio
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.simulation.inputs import buy_and_hold
from backtest_pipeline.simulation.metrics.benchmarks import BENCHMARKS, benchmark_equity, seen_last
from backtest_pipeline.storage.tables.datasets import DatasetVersion, read_versions
from backtest_pipeline.storage.tables.dimensions import known_symbols
from backtest_pipeline.storage.tables.synthetic import synthetic_among

UNIVERSE = "universe"
NOT_ASSETS = (*BENCHMARKS, UNIVERSE)
"""What a benchmark may be besides the symbol of an asset."""


@dataclass(frozen=True)
class Comparison:
    """A benchmark's equity on a run's bars, and the datasets that it was made from besides."""

    equity: np.ndarray
    inputs: Mapping[str, DatasetVersion] = field(default_factory=dict)


def require_benchmark(name: str, symbols: Iterable[str]) -> None:
    """Raises UnknownName where this is no benchmark; `symbols` are the assets that there are."""
    known = (*NOT_ASSETS, *symbols)
    if name not in known:
        raise UnknownName("benchmark", name, known)


def compare_with(workspace: Workspace, panel: Panel, terms: RunTerms) -> Comparison:
    """The benchmark that was asked for, on the bars of one asset's run.

    `asset` is the asset bought and held, `cash` the starting cash, `universe` all assets that
    have features at this timeframe (real ones beside a real asset, invented ones beside an
    invented one), held in equal parts and rebalanced each month, and the
    symbol of another asset that asset bought and held; all at the run's fee and slippage.

    Raises:
        InvalidInput: for an asset, or a universe, without stored bars in the window.
    """
    name = terms.benchmark
    if name in BENCHMARKS:
        return Comparison(benchmark_equity(panel, name, terms.config))
    with workspace.database.begin() as connection:
        # Databases differ in how they sort, and a sum depends on its order.
        wanted = [name]
        if name == UNIVERSE:
            known = known_symbols(connection)
            invented = set(synthetic_among(connection, known))
            of_kind = panel.assets[0] in invented
            wanted = sorted(symbol for symbol in known if (symbol in invented) == of_kind)
        partitions = [Partition(symbol, panel.timeframe.name) for symbol in wanted]
        stored = read_versions(connection, "features", partitions)
    assets = [partition.asset for partition in partitions if partition in stored]
    if not assets:
        raise InvalidInput(
            f"benchmark {name}: no {panel.timeframe.name} features are stored; refresh them first"
        )
    batch = load_batch(workspace, "features", panel.timeframe.name, assets, OHLCV)
    return Comparison(
        others_held(panel, batch.panel, terms),
        {f"{asset}|{panel.timeframe.name}": batch.inputs[asset] for asset in assets},
    )


def others_held(panel: Panel, others: Panel, terms: RunTerms) -> np.ndarray:
    """Equity of assets held in equal parts, on the bars of one asset's run, float64 `(n_rows,)`.

    Raises:
        InvalidInput: where the assets have no bar in the window.
    """
    held = others.take(rows_in(others, terms.window))
    if not len(held):
        raise InvalidInput(f"benchmark {terms.benchmark}: no stored bar lies in the window")
    return seen_last(panel.ts, _held_equally(held, terms.config), terms.config.initial_cash)


def _held_equally(panel: Panel, config: SimulationConfig) -> pd.Series:
    held = buy_and_hold(panel, config)
    ts, at = np.unique(panel.ts, return_inverse=True)
    curves = np.full((len(panel.assets), len(ts)), np.nan)
    curves[panel.segment_of_row, at] = held
    cost_rate = (config.costs.fee_bps + config.costs.slippage_bps) / 1e4
    equity = form_portfolio(curves, ts, config.initial_cash, cost_rate).equity
    return pd.Series(equity, utc_index(ts))


def rows_in(panel: Panel, window: Window) -> np.ndarray:
    """Which rows of the panel lie in the window, bool `(n_rows,)`."""
    day = panel.ts // DAY_US
    keep = np.ones(len(panel), bool)
    if window.start:
        keep &= day >= np.datetime64(window.start).astype(np.int64)
    if window.end:
        keep &= day < np.datetime64(window.end).astype(np.int64)
    return keep
