"""Portfolio runs and their weights."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.runs import NAMES_INPUTS, with_provenance

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor
from sqlalchemy import Connection, text

_COLUMNS = """run_id, tf, signal_id, signal_name, scheme, n_members, n_rebalances, left_out,
    metrics, undefined, config, artifact_uri, snapshot_id, dataset_version_ids, member_run_ids,
    first_ts, last_ts, result_fingerprint"""


@dataclass(frozen=True)
class PortfolioTables:
    """Portfolios of one timeframe as rows of their tables.

    Attributes:
        runs: rows of `portfolio_runs`.
        weights: rows of `portfolio_weights`.
        strategy_weights: rows of `portfolio_strategy_weights`.
    """

    runs: pa.Table
    weights: pa.Table
    strategy_weights: pa.Table


def current_portfolio_ids(connection: Connection, tf: str) -> set[uuid.UUID]:
    """The ids of a timeframe's current portfolios."""
    rows = connection.execute(
        text("SELECT run_id FROM portfolio_runs WHERE tf = :tf AND is_current"), {"tf": tf}
    )
    return set(rows.scalars())


def publish_portfolios(cursor: Cursor, tables: PortfolioTables) -> None:
    """Publish portfolios, replacing all current ones of their timeframe.

    `run_id` is text. The artifacts that the portfolios point to must exist already.
    """
    (tf,) = tables.runs["tf"].unique().to_pylist()
    copy.lock_cells(cursor, "portfolios", tf, [0])
    copy.stage(cursor, "staged_portfolios", tables.runs)
    copy.run(
        cursor,
        "DELETE FROM portfolio_runs WHERE run_id IN (SELECT run_id::uuid FROM staged_portfolios)",
    )
    retire_portfolios(cursor, tf)
    copy.insert(cursor, "portfolio_runs", "staged_portfolios", tables.runs.column_names)
    _append_weights(cursor, tables)


def add_portfolio(cursor: Cursor, tables: PortfolioTables, *, replace: bool = False) -> None:
    """Store a portfolio built on demand, next to the current ones, unless it is stored already.

    With `replace` a stored one is replaced, and stays current if it is.
    """
    (tf,) = tables.runs["tf"].to_pylist()
    copy.lock_cells(cursor, "portfolios", tf, [0])
    copy.stage(cursor, "staged_portfolios", tables.runs)
    names = tables.runs.column_names
    if replace:
        copy.run(
            cursor,
            "UPDATE staged_portfolios s SET is_current = p.is_current FROM portfolio_runs p"
            " WHERE p.run_id = s.run_id::uuid",
        )
        copy.run(
            cursor,
            "DELETE FROM portfolio_runs WHERE run_id IN"
            " (SELECT run_id::uuid FROM staged_portfolios)",
        )
    if copy.insert_new(cursor, "portfolio_runs", "staged_portfolios", names, "run_id"):
        _append_weights(cursor, tables)


def _append_weights(cursor: Cursor, tables: PortfolioTables) -> None:
    for name, rows in (
        ("portfolio_weights", tables.weights),
        ("portfolio_strategy_weights", tables.strategy_weights),
    ):
        copy.append(cursor, name, copy.as_stored(cursor, name, rows))


def other_portfolios(connection: Connection, tf: str, run_id: uuid.UUID) -> int:
    """The number of other portfolios at a timeframe."""
    n = connection.scalar(
        text("SELECT count(*) FROM portfolio_runs WHERE tf = :tf AND run_id <> :run_id"),
        {"tf": tf, "run_id": run_id},
    )
    return int(n or 0)


def retire_portfolios(cursor: Cursor, tf: str) -> None:
    """Mark the portfolios of a timeframe as not current."""
    copy.run(
        cursor, "UPDATE portfolio_runs SET is_current = FALSE WHERE is_current AND tf = $1", tf
    )


def current_portfolios(
    connection: Connection, timeframes: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Current portfolios of these timeframes, of all by default, in a stable order.

    Raises:
        ProvenanceMissing: for a portfolio without recorded inputs.
    """
    return _current(connection, _COLUMNS, timeframes)


def current_portfolio_figures(
    connection: Connection, timeframes: Sequence[str]
) -> list[dict[str, Any]]:
    """The portfolios of `current_portfolios` without their members and what these were made from.

    Columns: run_id, tf, signal_name, scheme, n_members, n_rebalances, metrics, undefined and
    artifact_uri.

    Raises:
        ProvenanceMissing: for a portfolio without recorded inputs.
    """
    columns = f"""run_id, tf, signal_name, scheme, n_members, n_rebalances, metrics, undefined,
        artifact_uri, {NAMES_INPUTS}"""
    return _current(connection, columns, timeframes)


def _current(
    connection: Connection, columns: str, timeframes: Sequence[str] | None
) -> list[dict[str, Any]]:
    rows = connection.execute(
        text(f"""
            SELECT {columns} FROM portfolio_runs r
            WHERE is_current
              AND (CAST(:timeframes AS text[]) IS NULL OR tf = ANY(CAST(:timeframes AS text[])))
            ORDER BY tf, signal_id NULLS LAST, scheme
        """),  # noqa: S608 - our own column names
        {"timeframes": None if timeframes is None else list(timeframes)},
    )
    return with_provenance(rows.mappings())


def stored_portfolio(connection: Connection, run_id: uuid.UUID) -> dict[str, Any] | None:
    """The portfolio of this id, current or not; None if there is none."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM portfolio_runs WHERE run_id = :run_id"),  # noqa: S608
        {"run_id": run_id},
    )
    return next(iter(with_provenance(rows.mappings())), None)


def stored_weights(connection: Connection, run_id: uuid.UUID) -> list[dict[str, Any]]:
    """A portfolio's weights: `ts` (microseconds since 1970 UTC), `member` and `weight`, by date.

    A member is an asset, or in a portfolio of all presets a preset; a weight of 0 has no row.
    """
    rows = connection.execute(
        text("""
            SELECT (extract(epoch FROM w.ts) * 1000000)::bigint AS ts, w.member, w.weight
            FROM (
                SELECT ts, symbol AS member, weight
                FROM portfolio_weights JOIN dim_assets USING (id) WHERE run_id = :run_id
                UNION ALL
                SELECT ts, name, weight
                FROM portfolio_strategy_weights JOIN dim_signals USING (signal_id)
                WHERE run_id = :run_id
            ) w ORDER BY w.ts, w.member
        """),
        {"run_id": run_id},
    )
    return [dict(row) for row in rows.mappings()]


def portfolio_figures(connection: Connection) -> list[dict[str, Any]]:
    """What is stored of every portfolio's figures, ordered by directory of artifacts.

    Columns: run_id, config, metrics, code_version, artifact_uri.
    """
    rows = connection.execute(
        text("""
            SELECT run_id, config, metrics, code_version, artifact_uri FROM portfolio_runs
            ORDER BY artifact_uri, run_id
        """)
    )
    return [dict(row) for row in rows.mappings()]
