"""What is stored of each asset as a pandas frame, for assets and notebooks that build on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import pandas as pd

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.features import FEATURE_COLUMNS
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.audits.negative_controls import newest_controls
from backtest_pipeline.pipeline.stages.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.stages.features import (
    SNAPSHOT_COLUMNS,
    stored_bars,
    stored_features,
)
from backtest_pipeline.pipeline.stages.panels import panel_table
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.storage.run_tables.cross_sections import current_cross_sections
from backtest_pipeline.storage.run_tables.leaderboard import board_rows, newest_board
from backtest_pipeline.storage.run_tables.portfolios import current_portfolios
from backtest_pipeline.storage.run_tables.runs import current_runs
from backtest_pipeline.storage.run_tables.walk_forward import current_walk_forwards
from backtest_pipeline.storage.tables.datasets import stored_partitions
from backtest_pipeline.storage.tables.features import read_features
from backtest_pipeline.storage.tables.restatements import stored_restatements
from backtest_pipeline.storage.tables.signals import read_signals
from backtest_pipeline.strategies.cross_section.definition import KIND

_NO_FEATURES = ("id", "ts", "tf", "tf_days", "asset_class", "updated_at")
_FEATURES = [name for name, _ in FEATURE_COLUMNS if name not in _NO_FEATURES]
_INNER = ("results", "dataset_version_ids", "snapshot_id", "artifact_uri", "config")

Keys = Sequence[str] | None
"""Partition keys of an asset; all that are stored where None."""


@retried
def read_frame(workspace: Workspace, asset: str, keys: Keys = None) -> pd.DataFrame:
    """The stored rows of an asset, in a stable order, partition by partition.

    Args:
        workspace: the store.
        asset: name of the Dagster asset.
        keys: partition keys, `BTC|1D`, or `1D` for `portfolio_rollups` and `cross_sections`; all
            where None. A key of which nothing is stored has no rows.

    Returns:
        One row a bar for `bars`, `cmc_features` and `feature_snapshots`, one a signal for
        `signals`, one a run for `backtests`, `walk_forward`, `cross_sections` and `leaderboard`,
        one a portfolio for `portfolio_rollups`; NaN where a figure is undefined. Partitioned assets
        have the columns `asset` (not those by timeframe alone) and `tf`.

    Raises:
        UnknownName: for an asset that stores no rows.
    """
    if asset not in _FRAMES:
        raise UnknownName("asset with stored rows", asset, _FRAMES)
    return _FRAMES[asset](workspace, keys)


def _by_timeframe(workspace: Workspace, dataset: str, keys: Keys) -> dict[str, list[str]]:
    """The assets with stored rows by timeframe, both in their order."""
    with workspace.database.begin() as connection:
        stored = stored_partitions(connection, dataset)
    wanted = set(map(Partition.parse, keys)) if keys is not None else set(stored)
    found: dict[str, list[str]] = defaultdict(list)
    for partition in sorted(stored):
        if partition in wanted:
            found[partition.timeframe].append(partition.asset)
    return {tf: found[tf] for tf in sorted(found, key=lambda name: timeframe(name).sort_key)}


def _together(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    parts = list(frames)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _of_panels(
    dataset: str,
    columns: Sequence[str],
    read: Callable[[Workspace, str, Sequence[str]], Panel],
) -> Callable[[Workspace, Keys], pd.DataFrame]:
    def frame(workspace: Workspace, keys: Keys) -> pd.DataFrame:
        found = _by_timeframe(workspace, dataset, keys)
        panels = ((tf, read(workspace, tf, assets)) for tf, assets in found.items())
        frames = ((tf, panel_table(panel, columns).to_pandas()) for tf, panel in panels)
        return _together(
            table.assign(asset=table["asset"].astype(str)).assign(tf=tf) for tf, table in frames
        )

    return frame


def _bars(workspace: Workspace, tf: str, assets: Sequence[str]) -> Panel:
    return stored_bars(workspace, ()).load(tf, assets).panel


def _features(workspace: Workspace, tf: str, assets: Sequence[str]) -> Panel:
    return read_features(workspace.database, timeframe(tf), assets, _FEATURES)


def _snapshots(workspace: Workspace, tf: str, assets: Sequence[str]) -> Panel:
    return stored_features(workspace, ()).load(tf, assets).panel


def _signals(workspace: Workspace, keys: Keys) -> pd.DataFrame:
    found = _by_timeframe(workspace, "signals", keys)
    frames = (
        read_signals(workspace.database, timeframe(tf), assets).to_pandas().assign(tf=tf)
        for tf, assets in found.items()
    )
    return _together(frames).rename(columns={"symbol": "asset", "name": "signal_name"})


def _of_runs(
    dataset: str, read: Callable[..., Sequence[Mapping[str, Any]]]
) -> Callable[[Workspace, Keys], pd.DataFrame]:
    def frame(workspace: Workspace, keys: Keys) -> pd.DataFrame:
        found = _by_timeframe(workspace, dataset, keys)
        rows: list[Mapping[str, Any]] = []
        for tf, assets in found.items():
            with workspace.database.begin() as connection:
                rows += read(connection, timeframes=[tf], symbols=assets)
        return _frame(rows).rename(columns={"symbol": "asset"})

    return frame


def _portfolios(workspace: Workspace, keys: Keys) -> pd.DataFrame:
    with workspace.database.begin() as connection:
        rows = current_portfolios(connection, keys)
    return _frame([{**row, **row["metrics"]} for row in rows])


def _cross_sections(workspace: Workspace, keys: Keys) -> pd.DataFrame:
    with workspace.database.begin() as connection:
        rows = current_cross_sections(connection, keys)
    return _frame([{**row, **row["results"][KIND]["figures"]} for row in rows])


def _leaderboard(workspace: Workspace, _keys: Keys) -> pd.DataFrame:
    with workspace.database.begin() as connection:
        board = newest_board(connection)
        return _frame(board_rows(connection, board["board_id"]) if board else ())


def _negative_controls(workspace: Workspace, _keys: Keys) -> pd.DataFrame:
    return _frame(newest_controls(workspace))


def _restatements(workspace: Workspace, _keys: Keys) -> pd.DataFrame:
    with workspace.database.begin() as connection:
        return _frame(stored_restatements(connection))


def _frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a frame, ids as text, without what only this project's own code reads."""
    return pd.DataFrame(
        {
            name: str(value) if isinstance(value, UUID) else value
            for name, value in row.items()
            if name not in _INNER
        }
        for row in rows
    )


_FRAMES: dict[str, Callable[[Workspace, Keys], pd.DataFrame]] = {
    "bars": _of_panels("bars", BAR_COLUMNS, _bars),
    "cmc_features": _of_panels("features", _FEATURES, _features),
    "feature_snapshots": _of_panels("features", SNAPSHOT_COLUMNS, _snapshots),
    "signals": _signals,
    "backtests": _of_runs("backtests", current_runs),
    "walk_forward": _of_runs("walk_forward", current_walk_forwards),
    "portfolio_rollups": _portfolios,
    "cross_sections": _cross_sections,
    "leaderboard": _leaderboard,
    "negative_controls": _negative_controls,
    "restatements": _restatements,
}
