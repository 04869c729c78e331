"""The tables of leaderboards, gate sets and negative controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import pyarrow as pa

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.runs import NAMES_INPUTS, with_provenance
from backtest_pipeline.storage.tables.dimensions import REAL_RUNS

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor
from sqlalchemy import Connection, text

BOARDS_KEPT = 10


class GateSet(NamedTuple):
    """A registered gate set; `gates` are JSON values."""

    gate_set_id: str
    name: str
    gates: list[dict[str, Any]]
    registered_at: datetime


def gate_set(connection: Connection, name: str) -> GateSet:
    """The gate set of this name; raises UnknownName if it is not registered."""
    rows = connection.execute(
        text("SELECT gate_set_id, name, gates, registered_at FROM gate_sets ORDER BY name")
    )
    sets = {row.name: GateSet(*row) for row in rows}
    if name not in sets:
        raise UnknownName("gate set", name, sets)
    return sets[name]


def register_gate_set(connection: Connection, name: str, gates: str) -> GateSet:
    """Register gates (canonical JSON) under a name; registering the same again changes nothing.

    Raises:
        InvalidInput: if the name is taken by other gates, or the gates have another name.
    """
    values = {"name": name, "gates": gates}
    connection.execute(
        text(
            "INSERT INTO gate_sets (name, gates) VALUES (:name, CAST(:gates AS jsonb))"
            " ON CONFLICT DO NOTHING"
        ),
        values,
    )
    taken = connection.execute(
        text(
            "SELECT gate_set_id, name, gates, registered_at FROM gate_sets"
            " WHERE name = :name OR gates = CAST(:gates AS jsonb)"
        ),
        values,
    )
    first, *others = [GateSet(*row) for row in taken]
    same = connection.scalar(
        text("SELECT count(*) FROM gate_sets WHERE name = :name AND gates = CAST(:gates AS jsonb)"),
        values,
    )
    if others or not same:
        raise InvalidInput(
            f"gate set {name!r}: {first.name!r} was already registered at "
            f"{first.registered_at:%F %T} UTC with the same gates or under the same name, and "
            "cannot change; choose another name, or use that set"
        )
    return first


def runs_to_rank(connection: Connection, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Every current, completed run with these columns of its metrics, in a stable order.

    `of_refresh` says whether it belongs to its partition's latest refresh: an active preset over
    the whole history, with the pipeline's configuration, or a run of the asset `cross_sections`.
    `n_days` is its number of daily returns, `daily_skew` and `daily_kurtosis` are theirs,
    and `first_tried` is when the ledger first recorded its signal on its asset and timeframe,
    whatever the bars, window or settings; both are None for a run that is not in the ledger.
    `engine` is who simulated it. `quarantined_at` is None unless a replay gave a different result.
    `synthetic_beside_real` says whether its asset, or one of its plan book, is synthetic, in a
    store that has runs of real ones; `within_training` whether the model of its plans may have read
    its bars in training.

    Raises:
        ProvenanceMissing: for a run without recorded inputs.
    """
    of_metrics = ", ".join(f"m.{name}" for name in metrics)
    query = f"""
        SELECT r.run_id, r.signal_name,
               coalesce(r.id IN (SELECT id FROM dim_assets WHERE is_synthetic),
                   are_synthetic(r.symbols)) AND {REAL_RUNS} AS synthetic_beside_real,
               coalesce((r.results ->> 'within_training')::boolean, FALSE) AS within_training,
               r.strategy, r.symbol, r.tf, r.split, r.result_fingerprint, {NAMES_INPUTS},
               q.quarantined_at, {of_metrics}, t.n_obs AS n_days,
               t.skew AS daily_skew, t.kurtosis AS daily_kurtosis,
               first_tried(r.run_id) AS first_tried,
               (r.config ->> 'initial_cash')::float8 AS initial_cash,
               coalesce(r.config ->> 'engine', 'account') AS engine,
               coalesce(r.artifact_uri = ANY (v.uris), FALSE)
                   OR r.run_id IN (SELECT run_id FROM refreshed_cross_sections) AS of_refresh
        FROM visible_runs r JOIN backtest_metrics m USING (run_id)
        LEFT JOIN quarantined_runs q USING (run_id)
        LEFT JOIN trials t USING (trial_id)
        LEFT JOIN dataset_versions v ON (v.dataset, v.id, v.tf) = ('backtests', r.id, r.tf)
        WHERE r.is_current AND r.status = 'completed'
        ORDER BY r.tf, r.signal_name, r.symbol, r.run_id
    """  # noqa: S608 - our own literals
    return with_provenance(connection.execute(text(query)).mappings())


def newest_board(connection: Connection) -> dict[str, Any] | None:
    """The newest row of `leaderboards`, with its gates; None if there is none.

    `open_gate_sets` are the names of the gate sets that could have judged it, itself among them if
    it is one: registered before its first ranked configuration was first tried, and, where nothing
    is ranked, before it was published.
    """
    rows = connection.execute(
        text("""
            SELECT b.*, g.name AS gate_set, g.gates, g.registered_at, ARRAY(
                       SELECT name FROM gate_sets
                       WHERE registered_at <= LEAST(b.first_tried, b.published_at) ORDER BY name
                   ) AS open_gate_sets
            FROM leaderboards b JOIN gate_sets g USING (gate_set_id)
            ORDER BY b.published_at DESC, b.board_id LIMIT 1
        """)
    )
    row = rows.mappings().one_or_none()
    return dict(row) if row else None


def board_rows(connection: Connection, board_id: str) -> list[dict[str, Any]]:
    """The runs of a board, best first, with their metrics and engine where still stored.

    `identity` lists today's remarks on the identity of the asset, see `market.asset_identity`;
    `within_training` says whether the model of its plans may have read its bars in training.
    """
    rows = connection.execute(
        text("""
            SELECT l.*, m.sharpe, m.total_return, m.benchmark_return, m.max_drawdown,
                   m.trade_count, coalesce(remarks.traits, '{}') AS identity,
                   coalesce((r.results ->> 'within_training')::boolean, FALSE) AS within_training,
                   coalesce(r.config ->> 'engine', 'account') AS engine
            FROM leaderboard l LEFT JOIN backtest_metrics m USING (run_id)
            LEFT JOIN LATERAL (
                SELECT results, config FROM visible_runs WHERE run_id = l.run_id
            ) r ON TRUE
            LEFT JOIN (
                SELECT a.symbol, array_agg(DISTINCT t.trait ORDER BY t.trait) AS traits
                FROM (
                    SELECT id, trait FROM asset_identity
                    UNION ALL SELECT id, 'synthetic' FROM dim_assets WHERE is_synthetic
                ) t JOIN dim_assets a USING (id)
                GROUP BY a.symbol
            ) remarks ON remarks.symbol = l.symbol
            WHERE l.board_id = :board_id
            ORDER BY l.rank NULLS LAST, l.tf, l.signal_name, l.symbol, l.run_id
        """),
        {"board_id": board_id},
    )
    return [dict(row) for row in rows.mappings()]


def place_on_board(connection: Connection, run_id: UUID) -> dict[str, Any] | None:
    """A ranked run on the newest board: rank, n_ranked, dsr, n_trials and the gates it fails.

    None where there is no board, or the run has no rank on it.
    """
    rows = connection.execute(
        text("""
            SELECT l.rank, b.n_ranked, l.dsr, l.n_trials, ARRAY(
                       SELECT gate FROM jsonb_each(l.gates) AS g (gate, met)
                       WHERE NOT met::boolean ORDER BY gate
                   ) AS fails
            FROM leaderboard l JOIN leaderboards b USING (board_id)
            WHERE l.run_id = :run_id AND l.rank IS NOT NULL AND board_id = (
                SELECT board_id FROM leaderboards ORDER BY published_at DESC, board_id LIMIT 1
            )
        """),
        {"run_id": run_id},
    )
    row = rows.mappings().one_or_none()
    return dict(row) if row else None


def publish_board(cursor: Cursor, board: pa.Table, rows: pa.Table) -> None:
    """Publish a board as the newest; the last BOARDS_KEPT boards are kept.

    Args:
        cursor: its transaction makes all of it appear at once.
        board: one row of `leaderboards`, without what the database stamps.
        rows: columns of `leaderboard`, `run_id` as text.
    """
    copy.run(cursor, "LOCK TABLE leaderboards IN SHARE ROW EXCLUSIVE MODE")
    copy.stage(cursor, "staged_board", board)
    copy.stage(cursor, "staged_rows", rows)
    copy.run(
        cursor, "DELETE FROM leaderboards WHERE board_id IN (SELECT board_id FROM staged_board)"
    )
    copy.insert(cursor, "leaderboards", "staged_board", board.column_names)
    copy.insert(cursor, "leaderboard", "staged_rows", rows.column_names)
    copy.run(
        cursor,
        "DELETE FROM leaderboards WHERE board_id NOT IN (SELECT board_id FROM leaderboards"
        " ORDER BY published_at DESC, board_id LIMIT $1)",
        BOARDS_KEPT,
    )


def board_faults(connection: Connection) -> dict[str, int]:
    """Faults of the newest board, counted by kind; all 0 if valid, `no_board` 1 without a board."""
    row = connection.execute(
        text("""
            WITH newest AS (
                SELECT board_id, n_ranked FROM leaderboards
                ORDER BY published_at DESC, board_id LIMIT 1
            ), listed AS (
                SELECT l.* FROM leaderboard l JOIN newest USING (board_id)
            ), current AS (
                SELECT run_id FROM visible_runs WHERE is_current AND status = 'completed'
            )
            SELECT (SELECT count(*) = 0 FROM newest)::int AS no_board,
                   (SELECT count(*) FROM listed WHERE rank > (SELECT n_ranked FROM newest))
                       + (SELECT n_ranked - count(DISTINCT rank) FROM listed, newest
                          GROUP BY n_ranked) AS ranks_not_contiguous,
                   (SELECT count(*) FROM current c WHERE NOT EXISTS
                       (SELECT FROM listed l WHERE l.run_id = c.run_id)) AS runs_missing,
                   (SELECT count(*) FROM listed l WHERE NOT EXISTS
                       (SELECT FROM current c WHERE c.run_id = l.run_id)) AS runs_outdated,
                   (SELECT count(*) FROM listed l JOIN quarantined_runs q USING (run_id)
                       WHERE l.rank IS NOT NULL) AS runs_ranked_in_quarantine
        """)
    )
    return {name: int(count or 0) for name, count in row.mappings().one().items()}


def publish_controls(cursor: Cursor, controls: pa.Table) -> None:
    """Store controls, replacing those of the same id."""
    copy.run(cursor, "LOCK TABLE negative_controls IN SHARE ROW EXCLUSIVE MODE")
    copy.stage(cursor, "staged_controls", controls)
    copy.run(
        cursor,
        "DELETE FROM negative_controls WHERE control_id IN"
        " (SELECT control_id FROM staged_controls)",
    )
    copy.insert(cursor, "negative_controls", "staged_controls", controls.column_names)


def controls_of(connection: Connection, control_id: str | None = None) -> list[Mapping[str, Any]]:
    """The rows of a control by planted edge and kind of market; of the newest if none is named."""
    rows = connection.execute(
        text("""
            SELECT c.*, g.name AS gate_set
            FROM negative_controls c JOIN gate_sets g USING (gate_set_id)
            WHERE control_id = coalesce(:control_id, (
                SELECT control_id FROM negative_controls
                ORDER BY created_at DESC, control_id LIMIT 1))
            ORDER BY planted, world
        """),
        {"control_id": control_id},
    )
    return [dict(row) for row in rows.mappings()]


def symbols_with_bars(connection: Connection, tf: str, dataset: str = "bars") -> Sequence[str]:
    """Symbols that have stored bars in a dataset at a timeframe, sorted.

    Synthetic assets are left out where there are real ones.
    """
    rows = connection.execute(
        text("""
            WITH stored AS (
                SELECT a.symbol, a.is_synthetic
                FROM dataset_versions v JOIN dim_assets a USING (id)
                WHERE v.dataset = :dataset AND v.tf = :tf AND v.n_rows > 0
            )
            SELECT symbol FROM stored
            WHERE NOT is_synthetic OR (SELECT bool_and(is_synthetic) FROM stored)
            ORDER BY symbol
        """),
        {"tf": tf, "dataset": dataset},
    )
    return list(rows.scalars())
