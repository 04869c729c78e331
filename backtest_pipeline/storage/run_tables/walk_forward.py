"""The tables of walk-forwards: folds, each stored when done, and the summary of each run."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.declarations import EFFECTIVE
from backtest_pipeline.storage.run_tables.runs import NAMES_INPUTS, publish_runs, with_provenance

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor
from sqlalchemy import Connection, text


def finished_folds(connection: Connection, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows of folds that are stored already, for any run, by `fold_key`."""
    rows = connection.execute(
        text("""
            SELECT DISTINCT ON (fold_key) * FROM walk_forward_folds
            WHERE fold_key = ANY(:keys) ORDER BY fold_key, computed_at, run_id
        """),
        {"keys": list(keys)},
    )
    return {row["fold_key"]: dict(row) for row in rows.mappings()}


def store_folds(cursor: Cursor, folds: pa.Table) -> None:
    """Store folds, replacing those of the same run and number.

    Args:
        cursor: its transaction makes them appear.
        folds: columns of `walk_forward_folds`, `run_id` and `params` as text.
    """
    (tf,) = folds["tf"].unique().to_pylist()
    copy.lock_cells(cursor, "walk_forward_folds", tf, folds["id"].unique().to_pylist())
    copy.stage(cursor, "staged_folds", folds)
    copy.run(
        cursor,
        "DELETE FROM walk_forward_folds f USING staged_folds s"
        " WHERE f.run_id = s.run_id::uuid AND f.fold = s.fold",
    )
    copy.insert(cursor, "walk_forward_folds", "staged_folds", folds.column_names)
    copy.run(cursor, "DROP TABLE staged_folds")


def publish_walk_forwards(
    cursor: Cursor,
    runs: pa.Table,
    trades: pa.Table,
    metrics: pa.Table,
    blocks: pa.Table,
    efficiencies: pa.Table,
) -> None:
    """Publish stitched runs with their summaries, replacing older ones.

    `efficiencies` are rows of `walk_forward_runs`, `run_id` as text; the other tables are those
    of `publish_runs`.
    """
    publish_runs(cursor, runs, trades, metrics, blocks)
    copy.stage(cursor, "staged_efficiency", efficiencies)
    copy.insert(cursor, "walk_forward_runs", "staged_efficiency", efficiencies.column_names)
    copy.run(cursor, "DROP TABLE staged_efficiency")


def walk_forwards_to_judge(cursor: Cursor, tf: str, symbols: Sequence[str]) -> pa.Table:
    """The current walk-forwards of these assets, and by how many each is judged.

    That is how many distinct ones the ledger holds; for one that was declared before the first
    trial of its strategy, how many such there are, if fewer.

    Columns: run_id as text, train_sharpe, test_sharpe, n_judged, threshold, psr, n_walk_forwards,
    declared_at. The ledger holds what was tried in training as well; a walk-forward is what says
    how it chose.
    """
    query = (
        "SELECT w.run_id::text AS run_id, w.train_sharpe, w.test_sharpe, w.n_judged, w.threshold,"
        " m.psr, least(greatest(t.n, 1), d.n) AS n_walk_forwards, d.declared_at"
        " FROM walk_forward_runs w JOIN visible_runs r USING (run_id)"
        " JOIN backtest_metrics m USING (run_id)"
        " LEFT JOIN ({tried}) t USING (symbol)"
        " LEFT JOIN trials own ON own.trial_id = r.trial_id"
        " LEFT JOIN ({effective}) d ON d.configuration_id = own.configuration_id"
        " WHERE r.is_current AND r.tf = $1 AND r.symbol = ANY($2::text[]) ORDER BY w.run_id"
    )
    return copy.fetch(cursor, query.format(tried=_TRIED, effective=EFFECTIVE), tf, list(symbols))


_TRIED = (
    "SELECT symbol, count(DISTINCT (strategy, set_id)) AS n FROM trials"
    " WHERE tf = $1 AND symbol = ANY($2::text[]) AND family = 'walk-forward' GROUP BY symbol"
)


def judged_as_one_of(cursor: Cursor, tf: str, symbol: str, configuration_id: str) -> int:
    """By how many walk-forwards the one with this trial is judged; see `walk_forwards_to_judge`."""
    query = (
        "SELECT least(t.n, d.n) AS n FROM ({tried}) t"
        " LEFT JOIN ({effective}) d ON d.configuration_id = $3::text::uuid"
    )
    query = query.format(tried=_TRIED, effective=EFFECTIVE)
    (n,) = copy.fetch(cursor, query, tf, [symbol], configuration_id)["n"].to_pylist()
    return n


def write_verdicts(cursor: Cursor, verdicts: pa.Table) -> None:
    """Replace the verdicts of walk-forwards.

    Args:
        cursor: its transaction makes them appear.
        verdicts: run_id as text, n_walk_forwards, declared_at, verdict, reason.
    """
    copy.stage(cursor, "staged_verdicts", verdicts)
    copy.run(
        cursor,
        "UPDATE walk_forward_runs w SET n_walk_forwards = s.n_walk_forwards,"
        " declared_at = s.declared_at, verdict = s.verdict, reason = s.reason"
        " FROM staged_verdicts s WHERE w.run_id = s.run_id::uuid",
    )
    copy.run(cursor, "DROP TABLE staged_verdicts")


def judged_by(
    connection: Connection, run_ids: Sequence[uuid.UUID], threshold: float
) -> set[uuid.UUID]:
    """The walk-forwards among `run_ids` whose verdict used this threshold."""
    rows = connection.execute(
        text(
            "SELECT run_id FROM walk_forward_runs"
            " WHERE run_id = ANY(:run_ids) AND threshold = :threshold"
        ),
        {"run_ids": list(run_ids), "threshold": threshold},
    )
    return set(rows.scalars())


def stored_folds(connection: Connection, run_id: uuid.UUID) -> list[dict[str, Any]]:
    """The folds of a run in chronological order; undefined numbers are None."""
    query = text("SELECT * FROM walk_forward_folds WHERE run_id = :run_id ORDER BY fold")
    return [dict(row) for row in connection.execute(query, {"run_id": run_id}).mappings()]


def current_walk_forwards(
    connection: Connection,
    *,
    timeframes: Sequence[str] | None = None,
    symbols: Sequence[str] | None = None,
    run_ids: Sequence[uuid.UUID] | None = None,
) -> list[dict[str, Any]]:
    """Current out-of-sample runs with metrics and efficiency, in a stable order.

    Args:
        timeframes, symbols: the runs of each partition's latest refresh there, except those in
            quarantine.
        run_ids: exactly these runs, of any configuration.

    Raises:
        ProvenanceMissing: for a run without recorded inputs.
    """
    return _walk_forwards(connection, _WHOLE, timeframes, symbols, run_ids)


def walk_forward_figures(
    connection: Connection,
    metrics: Sequence[str],
    *,
    timeframes: Sequence[str],
    symbols: Sequence[str],
) -> list[dict[str, Any]]:
    """The runs of `current_walk_forwards` with these columns of their metrics, and what names them.

    Columns: run_id, signal_name, symbol, tf, synthetic, artifact_uri, n_folds, efficiency, verdict,
    and the metrics.

    Raises:
        ProvenanceMissing: for a run without recorded inputs.
    """
    of_metrics = "".join(f", m.{name}" for name in metrics)
    columns = f"""r.run_id, r.signal_name, r.symbol, r.tf, a.is_synthetic AS synthetic,
        r.artifact_uri, w.n_folds, w.efficiency, w.verdict, {NAMES_INPUTS}{of_metrics}"""
    return _walk_forwards(connection, columns, timeframes, symbols, None)


_WHOLE = """m.*, r.split, FALSE AS is_preset, r.signal_id, r.signal_name, r.strategy, r.params,
    r.symbol, r.id, a.is_synthetic AS synthetic, r.tf, r.config_hash, r.first_ts, r.last_ts,
    r.n_bars, r.artifact_uri, r.result_fingerprint, r.results, r.snapshot_id, r.dataset_version_ids,
    q.quarantined_at, w.n_folds, w.n_judged, w.n_left_out, w.n_untested, w.train_sharpe,
    w.test_sharpe, w.efficiency, w.threshold, w.n_walk_forwards, w.declared_at, w.verdict,
    w.reason"""


def _walk_forwards(
    connection: Connection,
    columns: str,
    timeframes: Sequence[str] | None,
    symbols: Sequence[str] | None,
    run_ids: Sequence[uuid.UUID] | None,
) -> list[dict[str, Any]]:
    rows = connection.execute(
        text(f"""
            SELECT {columns}
            FROM visible_runs r JOIN backtest_metrics m USING (run_id)
            JOIN walk_forward_runs w USING (run_id) JOIN dim_assets a ON a.id = r.id
            LEFT JOIN quarantined_runs q USING (run_id)
            WHERE r.status = 'completed'
              AND CASE WHEN CAST(:run_ids AS uuid[]) IS NULL
                  THEN r.is_current AND EXISTS (
                      SELECT FROM dataset_versions v WHERE v.dataset = 'walk_forward'
                      AND (v.id, v.tf) = (r.id, r.tf) AND r.artifact_uri = ANY (v.uris))
                      AND q.run_id IS NULL AND r.tf = ANY(:timeframes) AND r.symbol = ANY(:symbols)
                  ELSE r.run_id = ANY(CAST(:run_ids AS uuid[])) END
            ORDER BY r.tf, r.strategy, r.symbol, r.run_id
        """),  # noqa: S608 - our own column names
        {
            "run_ids": None if run_ids is None else list(run_ids),
            "timeframes": list(timeframes or ()),
            "symbols": list(symbols or ()),
        },
    )
    return with_provenance(rows.mappings())
