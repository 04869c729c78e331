"""The tables `restatements` and `restatement_effects`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa
from psycopg import sql
from sqlalchemy import Connection, text

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import Timeframe
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.tables.signal_writing import RowsOf

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


@dataclass(frozen=True)
class Rewrite:
    """Two versions of one partition's features, the later of which does not continue the earlier.

    Attributes:
        partition: the partition.
        asset_id: its id in `dim_assets`.
        before, after: the two versions.
        uris_before, uris_after: the files that hold their rows.
        code_changed: whether different code made the later one.
    """

    partition: Partition
    asset_id: int
    before: str
    after: str
    uris_before: tuple[str, ...]
    uris_after: tuple[str, ...]
    code_changed: bool


def unseen_rewrites(connection: Connection) -> list[Rewrite]:
    """Rewritten features that have not been compared yet, oldest first."""
    rows = connection.execute(
        text("""
            SELECT a.symbol, v.tf, v.id, b.version AS before, v.version, b.uris AS uris_before,
                   v.uris, b.code_version <> v.code_version AS code_changed
            FROM dataset_snapshots v
            JOIN dataset_snapshots b ON b.dataset = v.dataset AND b.id = v.id AND b.tf = v.tf
                AND b.version = v.follows AND b.current_since <= v.current_since
            JOIN dim_assets a ON a.id = v.id
            WHERE v.dataset = 'features' AND v.generation <> b.generation AND NOT EXISTS (
                SELECT FROM restatements r WHERE (r.id, r.tf, r.version_before, r.version_after)
                                               = (v.id, v.tf, b.version, v.version)
            )
            ORDER BY v.current_since, a.symbol, v.tf
        """)
    )
    return [
        Rewrite(
            partition=Partition(row.symbol, row.tf),
            asset_id=row.id,
            before=row.before,
            after=row.version,
            uris_before=tuple(row.uris_before),
            uris_after=tuple(row.uris),
            code_changed=row.code_changed,
        )
        for row in rows
    ]


def changed_under_signals(cursor: Cursor, timeframe: Timeframe, rows_of: RowsOf) -> pa.Table:
    """Assets with signals whose feature row differs from the one stored with them.

    Only partitions that count as fresh are checked: the others need a refresh anyway.

    Args:
        cursor: of a transaction that is rolled back or ends after; it stages what it compares.
        timeframe: whose signals.
        rows_of: where the feature rows lie today.

    Returns:
        Columns id, symbol, n_signals, and first_ts of the first changed.
    """
    copy.run(
        cursor,
        "CREATE TEMPORARY TABLE staged ON COMMIT DROP AS SELECT DISTINCT s.id, s.ts FROM signals s"
        " JOIN dataset_versions g ON g.dataset = 'signals' AND g.id = s.id AND g.tf = s.tf"
        " JOIN dataset_versions f ON f.dataset = 'features' AND f.id = s.id AND f.tf = s.tf"
        " WHERE s.tf = $1 AND g.input_version = f.version",
        timeframe.name,
    )
    rows = rows_of(cursor, timeframe, [])
    query = sql.SQL(
        "SELECT s.id, a.symbol, count(*) AS n_signals, min(s.ts) AS first_ts"
        " FROM signals s JOIN staged USING (id, ts) JOIN dim_assets a USING (id)"
        " LEFT JOIN {relation} f ON f.id = s.id AND f.ts = s.ts"
        " CROSS JOIN LATERAL (SELECT {columns}) AS snapshot"
        " WHERE s.tf = $1 AND (f.id IS NULL"
        " OR NOT s.feature_snapshot @> ({whole} to_jsonb(snapshot)))"
        " GROUP BY s.id, a.symbol ORDER BY a.symbol"
    ).format(
        relation=rows.relation,
        columns=sql.SQL(", ").join(rows.columns),
        whole=sql.SQL("f.whole ||" if rows.whole else ""),
    )
    return copy.fetch(cursor, query.as_string(), timeframe.name)


def record_restatements(cursor: Cursor, rows: pa.Table) -> int:
    """Add restatements that are not stored yet, in the cursor's transaction; returns how many."""
    copy.stage(cursor, "staged_restatements", rows)
    return copy.insert_new(
        cursor, "restatements", "staged_restatements", rows.column_names, "restatement_id"
    )


@dataclass(frozen=True)
class RunPair:
    """A run on a history that was restated, and the run of the same configuration after it.

    Attributes:
        restatement_id: the restatement.
        run_before, run_after: ids of the two runs.
        until: last bar of the run before.
        uri_before, uri_after: the artifacts with their equity.
    """

    restatement_id: UUID
    run_before: UUID
    run_after: UUID
    until: datetime
    uri_before: str
    uri_after: str


def unmeasured_pairs(connection: Connection) -> list[RunPair]:
    """Runs of one configuration, code and engine before and after a restatement, not compared yet.

    After it is the next run of that configuration, whatever was restated or appended in between.
    """
    rows = connection.execute(
        text("""
            SELECT r.restatement_id, o.run_id, n.run_id, o.last_ts, o.artifact_uri, n.artifact_uri
            FROM restatements r
            JOIN visible_runs o ON o.id = r.id AND o.tf = r.tf AND NOT o.is_current
                AND o.dataset_version_ids ->> concat(o.symbol, '|', o.tf) = r.version_before
            CROSS JOIN LATERAL (
                SELECT * FROM visible_runs n
                WHERE n.config_hash = o.config_hash AND n.id = o.id AND n.tf = o.tf
                    AND n.completed_at > o.completed_at
                    AND n.dataset_version_ids ->> concat(o.symbol, '|', o.tf) <> r.version_before
                ORDER BY n.completed_at LIMIT 1
            ) n
            WHERE r.first_ts IS NOT NULL
                AND n.code_version = o.code_version AND n.engine_version = o.engine_version
                AND NOT EXISTS (SELECT FROM restatement_effects e
                    WHERE e.restatement_id = r.restatement_id AND e.run_before = o.run_id)
            ORDER BY r.restatement_id, o.run_id
        """)
    )
    return [RunPair(*row) for row in rows]


def record_effects(cursor: Cursor, rows: pa.Table) -> None:
    """Add effects, in the cursor's transaction; those that are there already stay."""
    copy.stage(cursor, "staged_effects", rows)
    copy.run(
        cursor,
        "INSERT INTO restatement_effects SELECT restatement_id::uuid, run_before::uuid,"
        " run_after::uuid, until_ts, equity_before, equity_after, pnl_moved FROM staged_effects"
        " ON CONFLICT DO NOTHING",
    )


def signal_timeframes(connection: Connection) -> list[str]:
    """Timeframes with stored signals, sorted."""
    rows = connection.execute(
        text("SELECT DISTINCT tf FROM dataset_versions WHERE dataset = 'signals' AND n_rows > 0")
    )
    return sorted(rows.scalars())


def stored_restatements(
    connection: Connection,
    *,
    symbols: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Restatements that changed bars, newest first, each with its effect on runs.

    `runs` is the number of runs compared, `most_moved` the largest change of equity among them
    (quote currency), and `signal` the signal of that run; None or 0 if no run was compared.
    """
    rows = connection.execute(
        text("""
            SELECT r.found_at, a.symbol, r.tf, r.first_ts, r.last_ts, r.bars_changed, r.bars_added,
                   r.bars_removed, r.code_changed, r.columns, count(e.run_before) AS runs,
                   (array_agg(e.pnl_moved ORDER BY abs(e.pnl_moved) DESC))[1] AS most_moved,
                   (array_agg(o.signal_name ORDER BY abs(e.pnl_moved) DESC))[1] AS signal
            FROM restatements r JOIN dim_assets a USING (id)
            LEFT JOIN restatement_effects e USING (restatement_id)
            LEFT JOIN visible_runs o ON o.run_id = e.run_before
            WHERE r.first_ts IS NOT NULL
                AND (CAST(:symbols AS text[]) IS NULL OR a.symbol = ANY(:symbols))
                AND (CAST(:timeframes AS text[]) IS NULL OR r.tf = ANY(:timeframes))
            GROUP BY r.restatement_id, a.symbol
            ORDER BY r.found_at DESC, a.symbol, r.tf
        """),
        {
            "symbols": None if symbols is None else list(symbols),
            "timeframes": None if timeframes is None else list(timeframes),
        },
    )
    return [dict(row) for row in rows.mappings()]
