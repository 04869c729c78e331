"""The tables of backtest runs: publishing runs in one transaction, and reading them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from backtest_pipeline.market.errors import ProvenanceMissing, StoreOvertaken
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.tables.datasets import COLUMNS
from backtest_pipeline.storage.tables.environment import record_environment

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor
from sqlalchemy import Connection, text

Run = dict[str, Any]


def publish_runs(
    cursor: Cursor, runs: pa.Table, trades: pa.Table, metrics: pa.Table, blocks: pa.Table
) -> None:
    """Publish runs with their trades, metrics and blocked entries, replacing older ones.

    All tables have a `run_id` column (text) and otherwise the columns of `backtest_runs`,
    `backtest_trades`, `backtest_metrics` and `block_events`. Everything becomes visible when the
    cursor's transaction commits; the artifacts that the runs point to must exist already.

    Raises:
        StoreOvertaken: if columns of the user's own that they read were replaced, or removed by
            retention, since they were read.
    """
    (tf,) = runs["tf"].unique().to_pylist()
    of_assets = runs["id"].drop_null().unique().to_pylist()  # a run of several symbols has none
    copy.lock_cells(cursor, "backtests", tf, of_assets)
    copy.stage(cursor, "staged_runs", runs)
    _require_column_sets(cursor)
    copy.stage(cursor, "staged_metrics", metrics)
    copy.analyze(cursor, "staged_runs", "run_id", "config_hash", "id", "tf")
    copy.run(
        cursor, "DELETE FROM backtest_runs WHERE run_id IN (SELECT run_id::uuid FROM staged_runs)"
    )
    copy.run(
        cursor,
        "UPDATE backtest_runs r SET is_current = FALSE FROM staged_runs s"
        " WHERE r.is_current AND r.config_hash = s.config_hash AND r.id = s.id AND r.tf = s.tf",
    )
    record_environment(cursor)
    copy.insert(cursor, "backtest_runs", "staged_runs", runs.column_names)
    copy.append(cursor, "backtest_trades", copy.as_stored(cursor, "backtest_trades", trades))
    copy.insert(cursor, "backtest_metrics", "staged_metrics", metrics.column_names)
    copy.append(cursor, "block_events", copy.as_stored(cursor, "block_events", blocks))
    copy.run(cursor, "DROP TABLE staged_runs, staged_metrics")


def _require_column_sets(cursor: Cursor) -> None:
    """Raise StoreOvertaken unless the staged runs read stored versions of column sets."""
    lost = copy.fetch(
        cursor,
        """
        SELECT DISTINCT u.key
        FROM staged_runs s CROSS JOIN LATERAL jsonb_each_text(s.dataset_version_ids::jsonb) u
        WHERE u.key LIKE '%|' || $1 || '%' AND NOT EXISTS (
            SELECT FROM dataset_versions v JOIN dim_assets a USING (id)
            WHERE v.version = u.value AND input_key(a.symbol, v.tf, v.dataset) = u.key)
        ORDER BY 1
        """,
        COLUMNS,
    )
    if keys := lost["key"].to_pylist():
        raise StoreOvertaken(
            f"{', '.join(keys)} were replaced or removed while runs were computed from them; "
            "try again"
        )


def retire_run_of_book(cursor: Cursor, book: str, tf: str) -> None:
    """Mark the run that followed the plans of a book at a timeframe as not current."""
    copy.run(
        cursor,
        "UPDATE backtest_runs SET is_current = FALSE WHERE is_current AND book = $1 AND tf = $2",
        book,
        tf,
    )


def retire_runs(cursor: Cursor, tf: str, ids: Sequence[int], split: str = "full") -> None:
    """Mark runs over the whole history of these assets at a timeframe as not current.

    `split` is `full` or `walk_forward`; runs of the other kind are left unchanged.
    """
    copy.run(
        cursor,
        "UPDATE backtest_runs SET is_current = FALSE WHERE is_current AND tf = $1"
        " AND id = ANY($2::int[]) AND window_start IS NULL AND window_end IS NULL"
        " AND split = $3",
        tf,
        list(ids),
        split,
    )


def retire_others(
    cursor: Cursor, tf: str, ids: Sequence[int], uris: Sequence[str], kept: Sequence[str]
) -> None:
    """Mark runs in a refresh's artifact directories as not current, except the ids in `kept`.

    For example those of a preset that is no longer active: all runs in these directories count as
    part of the refresh.
    """
    copy.run(
        cursor,
        "UPDATE backtest_runs SET is_current = FALSE WHERE is_current AND tf = $1"
        " AND id = ANY($2::int[]) AND artifact_uri = ANY($3::text[])"
        " AND NOT run_id = ANY($4::text[]::uuid[])",
        tf,
        list(ids),
        list(uris),
        list(kept),
    )


def retire_failed(
    cursor: Cursor, tf: str, pairs: Sequence[tuple[int, int]], uris: Sequence[str]
) -> None:
    """Mark earlier runs of presets that fail now as not current.

    Args:
        cursor: its transaction.
        tf: timeframe.
        pairs: signal_id and asset id of each.
        uris: artifact directories of the refreshes before.
    """
    if not pairs:
        return
    copy.run(
        cursor,
        "UPDATE backtest_runs r SET is_current = FALSE"
        " FROM unnest($2::int[], $3::int[]) AS failed (signal_id, id)"
        " WHERE r.is_current AND r.tf = $1 AND r.signal_id = failed.signal_id"
        " AND r.id = failed.id AND r.artifact_uri = ANY($4::text[])",
        tf,
        [signal_id for signal_id, _ in pairs],
        [asset_id for _, asset_id in pairs],
        list(uris),
    )


def require_current(cursor: Cursor, run_ids: Sequence[str]) -> None:
    """Raise StoreOvertaken unless these runs are stored, current, and not being removed."""
    stored = copy.fetch(
        cursor,
        "SELECT count(*) AS n FROM visible_runs"
        " WHERE is_current AND run_id = ANY($1::text[]::uuid[])",
        list(run_ids),
    )
    if stored["n"][0].as_py() < len(set(run_ids)):
        raise StoreOvertaken(
            "stored runs were removed or replaced during the refresh; refresh again"
        )


def current_artifacts(connection: Connection, run_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
    """The artifact directories of those of these runs that are stored and current, by run id."""
    rows = connection.execute(
        text(
            "SELECT run_id, artifact_uri FROM visible_runs"
            " WHERE run_id = ANY(:run_ids) AND is_current AND status = 'completed'"
        ),
        {"run_ids": list(run_ids)},
    )
    return {row.run_id: row.artifact_uri for row in rows}


_COLUMNS = """r.signal_id, r.signal_name, r.strategy, r.params, r.symbol, r.id,
    a.is_synthetic AS synthetic, r.tf, r.first_ts,
    r.last_ts, r.n_bars, r.artifact_uri, r.result_fingerprint, r.config_hash, r.results,
    r.snapshot_id, r.dataset_version_ids, r.is_current, r.split, d.is_active AS is_preset,
    q.quarantined_at, m.*"""
_SOURCES = """visible_runs r JOIN backtest_metrics m USING (run_id)
    JOIN dim_signals d USING (signal_id) JOIN dim_assets a ON a.id = r.id
    LEFT JOIN quarantined_runs q USING (run_id)"""
_ORDER = "r.tf, r.signal_id, r.symbol, r.run_id"
NAMES_INPUTS = "r.snapshot_id, r.dataset_version_ids NOT IN ('{}', 'null') AS dataset_version_ids"
"""What `with_provenance` needs, where nobody reads which inputs a run has: of many runs, reading
that takes longer than all else."""
_OF_REFRESH = """r.is_current AND r.status = 'completed' AND q.run_id IS NULL
    AND EXISTS (SELECT FROM dataset_versions v WHERE v.dataset = 'backtests'
        AND (v.id, v.tf) = (r.id, r.tf) AND r.artifact_uri = ANY (v.uris))
    AND (CAST(:timeframes AS text[]) IS NULL OR r.tf = ANY(CAST(:timeframes AS text[])))
    AND (CAST(:symbols AS text[]) IS NULL OR r.symbol = ANY(CAST(:symbols AS text[])))"""


def current_runs(
    connection: Connection,
    *,
    timeframes: Sequence[str] | None = None,
    symbols: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """The runs of each partition's latest refresh with their metrics, in a stable order.

    These are runs of active presets over the whole history, with one configuration; runs in
    quarantine are left out. An undefined metric is None.

    Args:
        timeframes, symbols: only these, where given.

    Raises:
        ProvenanceMissing: for a run that does not say what it was made from.
    """
    return runs_of_refresh(connection, _COLUMNS, timeframes, symbols)


def runs_of_refresh(
    connection: Connection,
    columns: str,
    timeframes: Sequence[str] | None,
    symbols: Sequence[str] | None,
) -> list[dict[str, Any]]:
    """The runs of `current_runs` with other columns of r (runs), m (metrics) and a (assets)."""
    query = f"SELECT {columns} FROM {_SOURCES} WHERE {_OF_REFRESH} ORDER BY {_ORDER}"  # noqa: S608
    bound = {
        "timeframes": None if timeframes is None else list(timeframes),
        "symbols": None if symbols is None else list(symbols),
    }
    return with_provenance(connection.execute(text(query), bound).mappings())


def runs_of_books(connection: Connection, books: Sequence[str], tf: str) -> list[dict[str, Any]]:
    """The current runs of these plan books at a timeframe by book, with their metrics.

    Raises:
        ProvenanceMissing: for a run that does not say what it was made from.
    """
    rows = connection.execute(
        text("""
            SELECT r.book, r.symbol, r.symbols, r.tf, r.first_ts, r.last_ts, r.n_bars, r.results,
                   r.snapshot_id, r.dataset_version_ids, r.artifact_uri, m.*
            FROM visible_runs r JOIN backtest_metrics m USING (run_id)
            WHERE r.is_current AND r.status = 'completed' AND r.tf = :tf AND r.book = ANY(:books)
            ORDER BY r.book
        """),
        {"tf": tf, "books": list(books)},
    )
    return with_provenance(rows.mappings())


def followed_by_runs(connection: Connection, book: str) -> dict[str, dict[str, Any]]:
    """What the current runs of a plan book followed, by timeframe.

    Columns: dataset_version_ids; plan_id and suppressed, those of the newest plan.
    """
    rows = connection.execute(
        text("""
            SELECT DISTINCT ON (r.tf) r.tf, r.dataset_version_ids, l.plan_id, l.suppressed
            FROM visible_runs r JOIN plan_log l USING (run_id)
            WHERE r.is_current AND r.book = :book
            ORDER BY r.tf, l.replan_sequence DESC
        """),
        {"book": book},
    )
    return {row["tf"]: dict(row) for row in rows.mappings()}


def runs_by_id(connection: Connection, run_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Run]:
    """Exactly these runs as `current_runs` returns them, of any window and configuration.

    A run that is not stored is left out.

    Raises:
        ProvenanceMissing: for a run that does not say what it was made from.
    """
    query = f"""
        SELECT {_COLUMNS} FROM {_SOURCES} WHERE r.status = 'completed' AND r.run_id = ANY(:run_ids)
        ORDER BY {_ORDER}
    """  # noqa: S608 - literals
    rows = connection.execute(text(query), {"run_ids": list(run_ids)})
    return {row["run_id"]: row for row in with_provenance(rows.mappings())}


def runs_configured(
    connection: Connection, tf: str, config_hashes: Sequence[str], code_version: str
) -> dict[str, Run]:
    """The current runs of these configurations by symbol, as `runs_by_id` returns them.

    Args:
        connection: of the store.
        tf: their timeframe.
        config_hashes: hashes of configurations of different symbols.
        code_version: runs of another one are left out.
    """
    query = f"""
        SELECT {_COLUMNS} FROM {_SOURCES} WHERE r.status = 'completed' AND r.is_current
            AND r.tf = :tf AND r.config_hash = ANY(:hashes) AND r.code_version = :code
        ORDER BY {_ORDER}
    """  # noqa: S608 - literals
    given = {"tf": tf, "hashes": list(config_hashes), "code": code_version}
    rows = connection.execute(text(query), given)
    return {row["symbol"]: row for row in with_provenance(rows.mappings())}


def with_provenance(rows: Iterable[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """The rows unchanged, checked to have `snapshot_id` and `dataset_version_ids`.

    Raises:
        ProvenanceMissing: for a row without one of them, naming the run and what it lacks.
    """
    checked = [dict(row) for row in rows]
    for row in checked:
        lacks = [name for name in ("snapshot_id", "dataset_version_ids") if not row[name]]
        if lacks:
            raise ProvenanceMissing(
                f"run {row['run_id']} has no {' and no '.join(lacks)}, so its inputs are unknown "
                "and its result cannot be trusted; refresh with --full-rebuild, or delete it"
            )
    return checked
