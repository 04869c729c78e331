"""The table `run_robustness`: one row per run."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from backtest_pipeline.storage.postgres import copy

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor
from sqlalchemy import Connection, text


def publish_robustness(cursor: Cursor, tf: str, asset_id: int, row: pa.Table) -> None:
    """Store the robustness results of a run, replacing earlier ones.

    Args:
        cursor: cursor of the transaction; the artifacts must exist already.
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
    """The robustness results of a run, None without any; undefined numbers are None."""
    rows = connection.execute(
        text("SELECT * FROM run_robustness WHERE run_id = :run_id"), {"run_id": run_id}
    )
    row = rows.mappings().one_or_none()
    return dict(row) if row else None
