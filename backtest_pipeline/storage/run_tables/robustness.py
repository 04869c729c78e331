"""Robustness of runs: one row per run, replaced whole."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from backtest_pipeline.storage.postgres import copy

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor
from sqlalchemy import Connection, text


def publish_robustness(cursor: Cursor, tf: str, asset_id: int, row: pa.Table) -> None:
    """Put a row in the place of what is known of its run.

    Args:
        cursor: its transaction makes the row appear; the artifacts must be there already.
        tf, asset_id: the run's partition.
        row: columns of `run_robustness`, `run_id` as text.
    """
    copy.lock_cells(cursor, "robustness", tf, [asset_id])
    copy.stage(cursor, "staged_robustness", row)
    copy.run(
        cursor,
        "DELETE FROM run_robustness WHERE run_id IN (SELECT run_id::uuid FROM staged_robustness)",
    )
    copy.insert(cursor, "run_robustness", "staged_robustness", row.column_names)


def stored_robustness(connection: Connection, run_id: uuid.UUID) -> dict[str, Any] | None:
    """What is known of a run, None where nothing is; an undefined number is None."""
    rows = connection.execute(
        text("SELECT * FROM run_robustness WHERE run_id = :run_id"), {"run_id": run_id}
    )
    found = rows.mappings().one_or_none()
    return dict(found) if found else None
