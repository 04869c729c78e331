"""Trades one signal on the bars of a window, on one or more assets, and publishes the runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import NotEnoughBars
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.ranking.deflation import deflate_partitions
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.runs.own_columns import OwnColumns
from backtest_pipeline.pipeline.runs.publish import identify_runs
from backtest_pipeline.pipeline.stages.backtests import prepare_publication, publish
from backtest_pipeline.pipeline.stages.benchmark_assets import compare_with, rows_in
from backtest_pipeline.pipeline.stages.features import load_daily
from backtest_pipeline.pipeline.stages.panels import PanelBatch
from backtest_pipeline.pipeline.stages.tradable_signals import FEWEST_BARS
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.batch import simulate_batch
from backtest_pipeline.simulation.columns import columns_read, with_config_columns
from backtest_pipeline.storage.run_tables.runs import runs_by_id
from backtest_pipeline.storage.tables.datasets import DatasetVersion, mark_stale, require_versions
from backtest_pipeline.storage.tables.dimensions import SignalRow, asset_ids


@dataclass(frozen=True)
class Tradable:
    """Inputs of the runs of one signal: bars and events.

    Attributes:
        inputs: the version of the features, by asset.
        own: the columns of the user's own that the signal reads, on all stored bars.
        panel: bars of the window, with the columns that stops and sizing read.
        events: uint8 `(1, n_rows)`, the conditions on those bars.
    """

    inputs: Mapping[str, DatasetVersion]
    own: OwnColumns
    panel: Panel
    events: np.ndarray


def cut_to_window(features: PanelBatch, events: np.ndarray, terms: RunTerms) -> Tradable:
    """Cut bars and conditions to the window; conditions were computed with the bars before it.

    Raises:
        NotEnoughBars: for an asset with too few bars in the window.
    """
    whole = features.panel
    keep = rows_in(whole, terms.window)
    # Indicators need the bars before the window, so they are computed before the cut.
    known = features.own.on(whole, columns_read([terms.config.rules]))
    panel = with_config_columns(known, terms.config).take(keep)
    for asset, n in zip(panel.assets, panel.lengths.tolist(), strict=True):
        if n < FEWEST_BARS:
            own = whole.select([asset])
            partition = Partition(asset, whole.timeframe.name)
            raise NotEnoughBars(too_few_bars(own, partition, terms.window, n))
    return Tradable(features.inputs, features.own, panel, np.ascontiguousarray(events[:, keep]))


def trade_and_store(
    workspace: Workspace,
    signal: SignalRow,
    tradable: Tradable,
    terms: RunTerms,
    tried_by: str,
    *,
    refreshed: bool,
    rebuild: bool = False,
) -> list[Mapping[str, Any]]:
    """Trade a signal on each asset, and publish the runs that are not stored already.

    Args:
        tried_by: the value of `trials.source`.
        refreshed: whether refreshes publish this signal too.
        rebuild: recompute and publish runs even if they are stored.

    Returns:
        One run per asset, in their order, as `storage.run_tables.runs.runs_by_id` returns it.

    Raises:
        StoreOvertaken: if the features were replaced after they were read.
    """
    started_at = datetime.now(UTC)
    panel, tf = tradable.panel, tradable.panel.timeframe.name
    daily = load_daily(workspace, panel)
    marks = daily.marks(panel)
    benchmark = compare_with(workspace, panel, marks, terms)
    identities = identify_runs(
        (signal,), panel.assets, tf, tradable.inputs, terms, daily, tradable.own, benchmark.inputs
    )
    run_ids = [identity.run_id for identity in identities]
    workspace.progress("backtest", 0, len(run_ids))
    with workspace.database.begin() as connection:
        stored = runs_by_id(connection, run_ids)
    kept = {
        asset: stored[run_id]["artifact_uri"]
        for asset, run_id in zip(panel.assets, run_ids, strict=True)
        # A run that was superseded has to be published again to become current.
        if run_id in stored
        and stored[run_id]["is_current"]
        and workspace.artifacts.is_intact(stored[run_id]["artifact_uri"])
    }
    missing = [asset for asset in panel.assets if rebuild or asset not in kept]
    if missing:
        at = [panel.assets.index(asset) for asset in missing]
        rows, own_bars = np.isin(panel.segment_of_row, at), panel.select(missing)
        batch = simulate_batch(
            own_bars,
            np.ascontiguousarray(tradable.events[:, rows]),
            terms.config,
            funding=terms.funding,
            marks=daily.marks(own_bars),
            benchmark=benchmark.equity[np.isin(marks.segment, at)],
        )
        with workspace.database.begin() as connection:
            ids = asset_ids(connection, missing)
        # A single run stays in its directory, which it may share with the runs of a refresh.
        uri = kept.get(missing[0]) if len(missing) == 1 else None
        own = [one for a, one in zip(panel.assets, identities, strict=True) if a in missing]
        published = prepare_publication(
            batch,
            (signal,),
            own,
            ids,
            terms,
            started_at,
            tradable.inputs,
            tradable.own,
            tried_by,
            uri,
        )
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            publish(workspace.artifacts, cursor, published)
            used = {asset: tradable.inputs[asset].version for asset in missing}
            require_versions(cursor, "features", tf, ids, used)
            if refreshed and terms.window == Window():
                # These runs replaced those of a refresh: if the refresh's data came back, it must
                # not mistake its own runs for current ones.
                for asset in missing:
                    mark_stale(cursor, "backtests", ids[asset], tf)
    others = [Partition(asset, tf) for asset in panel.assets if asset not in missing]
    if others:
        deflate_partitions(workspace, others)  # more trials may have been recorded since
    with workspace.database.begin() as connection:
        stored = runs_by_id(connection, run_ids)
    if stored.keys() != set(run_ids):  # some stored runs are being deleted in the meantime
        return trade_and_store(workspace, signal, tradable, terms, tried_by, refreshed=refreshed)
    workspace.progress("backtest", len(run_ids), len(run_ids))
    return [stored[run_id] for run_id in run_ids]


def too_few_bars(panel: Panel, partition: Partition, window: Window, n: int) -> str:
    """The message that `n` bars in a window are too few, and which bars there are."""
    if len(panel) == 0:
        return f"{partition} has no complete bar; refresh it with more history"
    first, last = panel.ts[[0, -1]].view("M8[us]").astype("M8[D]")
    dates = f"from {window.start or 'the beginning'} to {window.end or 'the end'}"
    return (
        f"{partition} has {n} bars {dates}, but a backtest needs at least {FEWEST_BARS}; "
        f"bars are stored from {first} to {last}"
    )
