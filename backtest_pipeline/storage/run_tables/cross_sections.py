"""Runs that rank a universe, among the tables of runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa
from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import StoreOvertaken
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.runs import with_provenance

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


def require_features(cursor: Cursor, versions: Mapping[str, str]) -> None:
    """Raise StoreOvertaken unless these versions of features, by `input_key`, are still stored."""
    found = copy.fetch(
        cursor,
        "SELECT count(*) AS n FROM unnest($1::text[], $2::text[]) AS w (key, version)"
        " JOIN dim_assets a ON starts_with(w.key, a.symbol || '|')"
        " JOIN dataset_versions v ON v.id = a.id AND v.dataset = 'features'"
        "  AND v.version = w.version AND input_key(a.symbol, v.tf, v.dataset) = w.key",
        list(versions),
        list(versions.values()),
    )
    if found["n"][0].as_py() < len(versions):
        raise StoreOvertaken("features were replaced while the universe was ranked; run it again")


def retire_cross_section(cursor: Cursor, runs: pa.Table) -> None:
    """Mark the run of the same name, universe, window and costs as not current.

    Args:
        cursor: cursor of the transaction.
        runs: one row of `backtest_runs` that is about to be published.
    """
    (row,) = runs.select(["signal_name", "tf", "config"]).to_pylist()
    copy.run(
        cursor,
        "UPDATE backtest_runs SET is_current = FALSE WHERE is_current AND split = 'cross_section'"
        " AND signal_name = $1 AND tf = $2"
        " AND config - 'params' - 'symbol' = $3::text::jsonb - 'params' - 'symbol'",
        row["signal_name"],
        row["tf"],
        row["config"],
    )


def note_refreshed(
    connection: Connection, tf: str, run_ids: Mapping[str, UUID], known: Collection[str] | None
) -> None:
    """Note which runs are the asset's at a timeframe, whoever computed them first.

    Those that were its runs before and are no more are not current afterwards.

    Args:
        connection: connection of the transaction.
        tf: name of the timeframe.
        run_ids: the runs, by name of the cross-section; those of others stay as they are.
        known: names of all cross-sections that there are; the runs of others are the asset's no
            more. None where only some were refreshed.
    """
    replaced = [{"tf": tf, "name": name, "run_id": run_id} for name, run_id in run_ids.items()]
    if known is not None:
        connection.execute(
            text(
                "WITH gone AS (DELETE FROM refreshed_cross_sections"
                " WHERE tf = :tf AND signal_name <> ALL(:known) RETURNING run_id)"
                " UPDATE backtest_runs r SET is_current = FALSE FROM gone"
                " WHERE r.run_id = gone.run_id"
            ),
            {"tf": tf, "known": sorted(known)},
        )
    if replaced:
        connection.execute(
            text(
                "UPDATE backtest_runs r SET is_current = FALSE FROM refreshed_cross_sections f"
                " WHERE r.run_id = f.run_id AND f.tf = :tf AND f.signal_name = :name"
                " AND f.run_id <> :run_id"
            ),
            replaced,
        )
        connection.execute(
            text(
                "INSERT INTO refreshed_cross_sections (tf, signal_name, run_id)"
                " VALUES (:tf, :name, :run_id)"
                " ON CONFLICT (tf, signal_name) DO UPDATE SET run_id = EXCLUDED.run_id"
            ),
            replaced,
        )


def current_cross_sections(
    connection: Connection, timeframes: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The current runs that rank a universe, of these timeframes or of all, with their metrics.

    Raises:
        ProvenanceMissing: for a run that does not say what it was made from.
    """
    rows = connection.execute(
        text("""
            SELECT r.signal_name, r.strategy, r.symbol, r.symbols, r.tf, r.window_start,
                   r.window_end, r.first_ts, r.last_ts, r.n_bars, r.results, r.config,
                   r.snapshot_id, r.dataset_version_ids, r.artifact_uri, r.result_fingerprint, m.*
            FROM visible_runs r JOIN backtest_metrics m USING (run_id)
            WHERE r.is_current AND r.status = 'completed' AND r.split = 'cross_section'
              AND (CAST(:timeframes AS text[]) IS NULL OR r.tf = ANY(CAST(:timeframes AS text[])))
            ORDER BY r.tf, r.signal_name, r.run_id
        """),
        {"timeframes": None if timeframes is None else list(timeframes)},
    )
    return with_provenance(rows.mappings())
