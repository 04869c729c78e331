"""Portfolio runs and their weights."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from backtest_pipeline.storage import copy

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor
from sqlalchemy import Connection, text


def stored_portfolio_ids(connection: Connection, run_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the portfolios that are stored and current."""
    rows = connection.execute(
        text("SELECT run_id FROM portfolio_runs WHERE run_id = ANY(:run_ids) AND is_current"),
        {"run_ids": list(run_ids)},
    )
    return set(rows.scalars())


def publish_portfolios(cursor: Cursor, portfolios: pa.Table, weights: pa.Table) -> None:
    """Put portfolios in the place of the current ones of their timeframe, signal and scheme.

    The tables have a `run_id` column (text) and otherwise the columns of `portfolio_runs` and
    `portfolio_weights`.
    """
    for tf in portfolios["tf"].unique().to_pylist():
        copy.lock_cells(cursor, "portfolios", tf, portfolios["signal_id"].unique().to_pylist())
    copy.stage(cursor, "staged_portfolios", portfolios)
    copy.stage(cursor, "staged_weights", weights)
    copy.run(
        cursor,
        "DELETE FROM portfolio_runs WHERE run_id IN (SELECT run_id::uuid FROM staged_portfolios)",
    )
    copy.run(
        cursor,
        "UPDATE portfolio_runs p SET is_current = FALSE FROM staged_portfolios s WHERE p.is_current"
        " AND p.tf = s.tf AND p.signal_id = s.signal_id AND p.scheme = s.scheme",
    )
    copy.insert(cursor, "portfolio_runs", "staged_portfolios", portfolios.column_names)
    copy.insert(cursor, "portfolio_weights", "staged_weights", weights.column_names)
