"""Restatements: history that changed after runs had used it, and the effect on their results."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.revision import Revision, revision_of
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.runs.identity import canonical_json
from backtest_pipeline.pipeline.runs.summary import Summary
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS
from backtest_pipeline.pipeline.stages.signals import feature_rows_of
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.storage.artifacts.panel_files import read_panel
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.tables.datasets import mark_changed
from backtest_pipeline.storage.tables.restatements import (
    Rewrite,
    RunPair,
    changed_under_signals,
    record_effects,
    record_restatements,
    signal_timeframes,
    stored_restatements,
    unmeasured_pairs,
    unseen_rewrites,
)

_SHOWN = 10
_BY_SOURCE = "other bars"
_NAMESPACE = uuid.UUID("8a4bb7c6-40b5-5b0f-8a57-7e6f6f0d51c3")


@dataclass(frozen=True)
class Watched:
    """What one check of the history found.

    Attributes:
        silent: partitions whose features differ from those stored with their signals, although no
            change was recorded; the next refresh recomputes them.
        rewrites: number of version pairs compared.
        restated: number of those pairs in which a bar differs.
        effects: number of runs whose equity was compared before and after.
        most_moved: largest absolute change of a run's equity, quote currency; 0 without any.
    """

    silent: tuple[Partition, ...]
    rewrites: int
    restated: int
    effects: int
    most_moved: float


@retried
def watch_history(workspace: Workspace) -> Watched:
    """Find history that changed after runs had used it, and record the effect on their results.

    Compares features with those stored with the signals, versions rewritten since the last check
    with the versions they replaced, and runs on the new version with those on the old one.

    Each step is recorded completely or not at all; if interrupted, the next check does the rest.

    Raises:
        ArtifactCorrupt: where a version that runs used can no longer be read.
    """
    silent = _changed_silently(workspace)
    with workspace.database.begin() as connection:
        rewrites = unseen_rewrites(connection)
    revisions = [_revision(workspace, rewrite) for rewrite in rewrites]
    if rewrites:
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            record_restatements(cursor, _restatement_rows(rewrites, revisions))
    with workspace.database.begin() as connection:
        pairs = unmeasured_pairs(connection)
    effects = _effects(workspace, pairs)
    if pairs:
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            record_effects(cursor, effects)
    moved = np.abs(effects["pnl_moved"].to_numpy())
    return Watched(
        silent=silent,
        rewrites=len(rewrites),
        restated=sum(revision.first_ts is not None for revision in revisions),
        effects=len(pairs),
        most_moved=float(moved.max()) if len(moved) else 0.0,
    )


def _changed_silently(workspace: Workspace) -> tuple[Partition, ...]:
    """Mark partitions stale whose feature rows differ from those stored with their signals."""
    partitions: list[Partition] = []
    with workspace.database.begin() as connection:
        timeframes = signal_timeframes(connection)
    for tf in timeframes:
        with workspace.database.arrow() as connection, connection.cursor() as cursor:
            changed = changed_under_signals(cursor, timeframe(tf), feature_rows_of(workspace))
            if changed.num_rows:
                mark_changed(cursor, tf, changed["id"].to_pylist())
        partitions += [Partition(symbol, tf) for symbol in changed["symbol"].to_pylist()]
    return tuple(partitions)


@retried
def restatements(
    workspace: Workspace,
    *,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Restatements as rows for display, newest first; see `stored_restatements`."""
    with workspace.database.begin() as connection:
        rows = stored_restatements(connection, symbols=symbols, timeframes=timeframes)
    return [
        {
            "found": f"{row['found_at']:%Y-%m-%d %H:%M}",
            "asset": row["symbol"],
            "timeframe": row["tf"],
            "from": f"{row['first_ts']:%Y-%m-%d}",
            "to": f"{row['last_ts']:%Y-%m-%d}",
            "bars": row["bars_changed"],
            "late": row["bars_added"],
            "gone": row["bars_removed"],
            "why": "other code" if row["code_changed"] else _BY_SOURCE,
            "most moved": row["most_moved"],
            "signal": row["signal"] or "",
        }
        for row in rows
    ]


@retried
def restated_lately(workspace: Workspace) -> list[dict[str, Any]]:
    """Restatements by the source in the last seven days, as `restatements` returns them."""
    since = f"{datetime.now(UTC) - timedelta(days=7):%Y-%m-%d %H:%M}"
    return [
        row for row in restatements(workspace) if row["found"] >= since and row["why"] == _BY_SOURCE
    ]


@retried
def restatements_summary(workspace: Workspace, watched: Watched) -> Summary:
    """What one check found, and the newest restatements."""
    return Summary(
        {
            "changed_silently": len(watched.silent),
            "rewrites_compared": watched.rewrites,
            "restatements": watched.restated,
            "runs_compared": watched.effects,
            "most_pnl_moved": watched.most_moved,
        },
        {"newest": restatements(workspace)[:_SHOWN]},
    )


def _revision(workspace: Workspace, rewrite: Rewrite) -> Revision:
    def panel(uris: Sequence[str]) -> Panel:
        asset, tf = rewrite.partition
        return read_panel(workspace.artifacts, tf, {asset: uris}, SNAPSHOT_COLUMNS)

    return revision_of(panel(rewrite.uris_before), panel(rewrite.uris_after), SNAPSHOT_COLUMNS)


def _restatement_rows(rewrites: Sequence[Rewrite], revisions: Sequence[Revision]) -> pa.Table:
    ids = [
        uuid.uuid5(_NAMESPACE, "\0".join([str(r.partition), r.before, r.after])) for r in rewrites
    ]
    return pa.table(
        {
            "restatement_id": [str(id_) for id_ in ids],
            "id": pa.array([r.asset_id for r in rewrites], pa.int32()),
            "tf": [r.partition.timeframe for r in rewrites],
            "version_before": [r.before for r in rewrites],
            "version_after": [r.after for r in rewrites],
            "code_changed": [r.code_changed for r in rewrites],
            "bars_changed": [r.changed for r in revisions],
            "bars_added": [r.added for r in revisions],
            "bars_removed": [r.removed for r in revisions],
            "first_ts": copy.stamps([r.first_ts for r in revisions]),
            "last_ts": copy.stamps([r.last_ts for r in revisions]),
            "columns": [canonical_json(dict(r.columns)) for r in revisions],
        }
    )


def _effects(workspace: Workspace, pairs: Sequence[RunPair]) -> pa.Table:
    """Equity of both runs of each pair, at the last bar of the older run."""
    stamps_by_file: dict[str, dict[str, int]] = defaultdict(dict)
    for pair in pairs:
        until = int(pair.until.timestamp() * 1_000_000)
        stamps_by_file[pair.uri_before][str(pair.run_before)] = until
        stamps_by_file[pair.uri_after][str(pair.run_after)] = until
    equity = {
        run: value
        for uri, until_of_run in stamps_by_file.items()
        for run, value in _equity_at(workspace, uri, until_of_run).items()
    }
    before = np.array([equity[str(pair.run_before)] for pair in pairs], np.float64)
    after = np.array([equity[str(pair.run_after)] for pair in pairs], np.float64)
    return pa.table(
        {
            "restatement_id": pa.array([str(p.restatement_id) for p in pairs], pa.string()),
            "run_before": pa.array([str(pair.run_before) for pair in pairs], pa.string()),
            "run_after": pa.array([str(pair.run_after) for pair in pairs], pa.string()),
            "until_ts": pa.array([pair.until for pair in pairs], copy.TIMESTAMPTZ),
            "equity_before": before,
            "equity_after": after,
            "pnl_moved": after - before,
        }
    )


def _equity_at(workspace: Workspace, uri: str, until_of_run: dict[str, int]) -> dict[str, float]:
    """Each run's last equity at or before its timestamp, by run id."""
    table = workspace.artifacts.read_table(
        uri,
        "equity.parquet",
        ["run_id", "ts", "equity"],
        [("run_id", "in", list(until_of_run))],
    )
    equity = {}
    for run, until in until_of_run.items():
        own = table.filter(pc.field("run_id") == run)
        last = np.searchsorted(own["ts"].cast(pa.int64()).to_numpy(), until, side="right") - 1
        equity[run] = own["equity"][int(last)].as_py()
    return equity
