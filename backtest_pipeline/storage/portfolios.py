"""Portfolio runs and their weights."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from backtest_pipeline.storage.copy import copy_table
from sqlalchemy import Connection, text


def stored_portfolio_ids(connection: Connection, run_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the portfolios that are stored and current."""
    rows = connection.execute(
        text("SELECT run_id FROM portfolio_runs WHERE run_id = ANY(:run_ids) AND is_current"),
        {"run_ids": list(run_ids)},
    )
    return set(rows.scalars())


def publish_portfolios(
    connection: Connection, rows: Sequence[Mapping[str, Any]], weights: pa.Table
) -> None:
    """Put portfolios in the place of the current ones of their timeframe, signal and scheme."""
    for row in rows:
        place = {"tf": row["tf"], "signal_id": row["signal_id"], "scheme": row["scheme"]}
        lock = f"portfolios/{row['tf']}/{row['signal_id']}/{row['scheme']}"
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:lock, 0))"), {"lock": lock}
        )
        connection.execute(
            text("DELETE FROM portfolio_runs WHERE run_id = :run_id"), {"run_id": row["run_id"]}
        )
        connection.execute(
            text("""
                UPDATE portfolio_runs SET is_current = FALSE
                WHERE is_current AND tf = :tf AND signal_id = :signal_id AND scheme = :scheme
            """),
            place,
        )
        connection.execute(
            text("""
                INSERT INTO portfolio_runs (run_id, tf, signal_id, signal_name, scheme, n_assets,
                    first_ts, last_ts, completed_at, is_current, config, metrics,
                    member_run_ids, code_version, result_fingerprint, artifact_uri)
                VALUES (:run_id, :tf, :signal_id, :signal_name, :scheme, :n_assets,
                    :first_ts, :last_ts, :completed_at, TRUE, CAST(:config AS jsonb),
                    CAST(:metrics AS jsonb), CAST(:member_run_ids AS uuid[]), :code_version,
                    :result_fingerprint, :artifact_uri)
            """),
            dict(row),
        )
    copy_table(connection, "portfolio_weights", weights)
