"""Bars of a few assets, and how Dagster shows the chain that is computed from them."""

from pathlib import Path

import dagster as dg
import pandas as pd
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.partitions import by_asset_and_timeframe
from backtest_pipeline_tests.cli.files import PRICES, daily_bars, write
from backtest_pipeline_tests.defs.running import rectangle

CHAIN = {
    "bars": "bars",
    "cmc_features": "features",
    "signals": "signals",
    "backtests": "backtests",
}
ASSETS = ("AAA", "BBB", "CCC")
ALL = rectangle("AAA|1D", "CCC|1D")
KEYS = {f"{asset}|1D" for asset in ASSETS}


def folder_of_bars(folder: Path) -> Path:
    folder.mkdir()
    for asset in ASSETS:
        keep(folder, asset, bars_of(asset))
    return folder


def keep(folder: Path, asset: str, bars: pd.DataFrame) -> None:
    write(bars, folder / f"{asset}.csv")


def bars_of(asset: str, factor: float = 1.0) -> pd.DataFrame:
    bars = daily_bars(symbol=asset)
    bars[PRICES] *= factor * (1 + ASSETS.index(asset) / 7)
    return bars


def stale(
    instance: dg.DagsterInstance, declared: dg.Definitions | None = None, tf: str = "1D"
) -> set[str]:
    """What Dagster calls stale or missing of the chain, as `asset BTC|1D`."""
    graph = (declared or build_definitions()).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return {
        f"{asset} {key}|{tf}"
        for asset in CHAIN
        for key in ASSETS
        if resolver.get_status(dg.AssetKey(asset), f"{key}|{tf}").value != "FRESH"
    }


def states(instance: dg.DagsterInstance, asset: str) -> dict[str, str]:
    """What the grid shows of each partition that it shows anything of."""
    found = instance.get_status_by_partition(
        dg.AssetKey(asset), sorted(KEYS), by_asset_and_timeframe
    )
    return {key: state.value for key, state in (found or {}).items() if state is not None}
