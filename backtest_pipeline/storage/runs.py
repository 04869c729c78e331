"""Backtest runs: published whole, in one transaction, and read back."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
from backtest_pipeline.storage.copy import copy_table
from sqlalchemy import Connection, text


def stored_run_ids(connection: Connection, run_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the runs that are completed and current."""
    rows = connection.execute(
        text("""
            SELECT run_id FROM backtest_runs
            WHERE run_id = ANY(:run_ids) AND status = 'completed' AND is_current
        """),
        {"run_ids": list(run_ids)},
    )
    return set(rows.scalars())


def publish_runs(
    connection: Connection,
    runs: pa.Table,
    trades: pa.Table,
    metrics: pa.Table,
) -> None:
    """Put runs with their trades and metrics in the place of what they supersede.

    All tables have a `run_id` column and otherwise the columns of `backtest_runs`,
    `backtest_trades` and `backtest_metrics`. The caller's transaction makes all of it appear at
    once; the artifacts that the runs point to must be there already.
    """
    run_ids = [uuid.UUID(run_id) for run_id in runs["run_id"].to_pylist()]
    _serialise(
        connection, {(row["id"], row["tf"]) for row in runs.select(["id", "tf"]).to_pylist()}
    )
    connection.execute(
        text("DELETE FROM backtest_runs WHERE run_id = ANY(:run_ids)"), {"run_ids": run_ids}
    )
    connection.execute(
        text("""
            UPDATE backtest_runs SET is_current = FALSE
            WHERE is_current AND (config_hash, id, tf) IN (
                SELECT * FROM unnest(CAST(:hashes AS text[]), CAST(:ids AS int[]),
                                     CAST(:tfs AS text[])))
        """),
        {
            "hashes": runs["config_hash"].to_pylist(),
            "ids": runs["id"].to_pylist(),
            "tfs": runs["tf"].to_pylist(),
        },
    )
    copy_table(connection, "backtest_runs", runs)
    copy_table(connection, "backtest_trades", trades)
    copy_table(connection, "backtest_metrics", metrics)


def _serialise(connection: Connection, partitions: set[tuple[int, str]]) -> None:
    """Let two publications of one partition follow each other; in one order, so never locked."""
    connection.execute(
        text("""
            SELECT pg_advisory_xact_lock(hashtextextended(key, 0))
            FROM (SELECT unnest(CAST(:keys AS text[])) AS key ORDER BY 1) AS keys
        """),
        {"keys": [f"backtests/{id_}/{tf}" for id_, tf in partitions]},
    )


def current_runs(
    connection: Connection,
    *,
    timeframes: Sequence[str] | None = None,
    symbols: Sequence[str] | None = None,
    run_ids: Sequence[uuid.UUID] | None = None,
) -> pd.DataFrame:
    """Current full-window runs with their metrics, one row each, in a stable order.

    Args:
        timeframes, symbols: only these, where given.
        run_ids: exactly these runs, of whatever window.
    """
    conditions = ["r.is_current", "r.status = 'completed'"]
    bound: dict[str, Any] = {}
    if run_ids is None:
        conditions.append("r.window_start IS NULL AND r.window_end IS NULL")
    else:
        conditions.append("r.run_id = ANY(:run_ids)")
        bound["run_ids"] = list(run_ids)
    if timeframes is not None:
        conditions.append("r.tf = ANY(:timeframes)")
        bound["timeframes"] = list(timeframes)
    if symbols is not None:
        conditions.append("r.symbol = ANY(:symbols)")
        bound["symbols"] = list(symbols)
    query = f"""
        SELECT r.run_id, r.signal_id, r.signal_name, r.symbol, r.id, r.tf, r.first_ts, r.last_ts,
               r.n_bars, r.artifact_uri, r.result_fingerprint, r.config_hash, r.results, m.*
        FROM backtest_runs r JOIN backtest_metrics m USING (run_id)
        WHERE {" AND ".join(conditions)}
        ORDER BY r.tf, r.signal_id, r.symbol, r.run_id
    """  # noqa: S608 - the conditions are the literals above, their values are bound
    frame = pd.read_sql(text(query), connection, params=bound)
    return frame.loc[:, ~frame.columns.duplicated()]
