"""Runs that rank a universe, among the tables of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


def retire_refreshed(
    cursor: Cursor, tf: str, kept: Sequence[str], names: Sequence[str] | None = None
) -> None:
    """Mark the runs that refreshes made at a timeframe as not current, except the ids in `kept`.

    Those of a file that was removed, cannot be run any more, or was run with other costs.

    Args:
        cursor: cursor of the transaction.
        tf: timeframe.
        kept: ids of the runs of the newest refresh.
        names: only of these cross-sections; of all where None.
    """
    copy.run(
        cursor,
        "UPDATE backtest_runs r SET is_current = FALSE FROM trials t"
        " WHERE t.trial_id = r.trial_id AND t.source = 'refresh' AND r.is_current"
        " AND r.split = 'cross_section' AND r.tf = $1 AND r.run_id <> ALL($2::text[]::uuid[])"
        " AND ($3::text[] IS NULL OR r.signal_name = ANY($3::text[]))",
        tf,
        list(kept),
        None if names is None else list(names),
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
