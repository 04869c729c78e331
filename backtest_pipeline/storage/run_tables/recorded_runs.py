"""Stored runs with their recorded specs, inputs and results, for replay and comparison."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import RunNotFound, unknown
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.plan_tables.plan_history import plans_of_runs
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.run_tables.run_search import not_found
from backtest_pipeline.storage.run_tables.runs import with_provenance
from backtest_pipeline.storage.run_tables.strategy_sources import files_in, files_of_strategies

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

_FEWEST_DIGITS = 6
_NEAR = 200


@dataclass(frozen=True)
class Snapshot:
    """The artifacts with the rows of one version of a dataset.

    Attributes:
        version: content hash of the rows.
        uris: the artifacts that hold them, oldest rows first.
        n_rows: number of rows.
    """

    version: str
    uris: tuple[str, ...]
    n_rows: int


@dataclass(frozen=True)
class RecordedRun:
    """A stored run with everything that determines its result.

    Attributes:
        run_id: its id.
        signal_name, asset, timeframe, split: signal, partition and kind of run.
        config: `backtest_runs.config`, JSON values.
        dataset_versions: content hashes of the datasets it read, by input key.
        snapshots: the artifacts with their rows, by input key; unknown ones are missing.
        code_version: declared versions, and the hash of the strategy's own code.
        code_archive: artifact with the source code; None for a run made before code was archived.
        strategy_files: files of its strategy by path; none where the code archive has them. Of a
            run under plans those of all strategies that its triggers follow, each below its name.
        environment_hash, engine: environment, and engine as name and version.
        fingerprint, artifact_uri, results: its result.
        is_current: whether no newer run of its configuration is stored.
        plans: the plans that it followed, as rows of `plan_log`; none for a run of a strategy.
    """

    run_id: uuid.UUID
    signal_name: str
    asset: str
    timeframe: str
    split: str
    config: Mapping[str, Any]
    dataset_versions: Mapping[str, str]
    snapshots: Mapping[str, Snapshot]
    code_version: str
    code_archive: str | None
    strategy_files: Mapping[str, bytes]
    environment_hash: str
    engine: tuple[str, str]
    fingerprint: str
    artifact_uri: str
    results: Mapping[str, Any]
    is_current: bool
    plans: Sequence[Mapping[str, Any]] = ()

    @property
    def name(self) -> str:
        """The run's signal, asset and timeframe, for display."""
        return f"{self.signal_name} on {Partition(self.asset, self.timeframe)}"


def find_run_id(connection: Connection, given: str) -> uuid.UUID:
    """The full id of the stored run whose id begins with `given`.

    Raises:
        RunNotFound: if there is none, or more than one.
    """
    if len(given) >= _FEWEST_DIGITS and re.fullmatch("[0-9a-f-]+", given):
        rows = connection.execute(
            text("SELECT run_id FROM visible_runs WHERE run_id::text LIKE :start LIMIT 2"),
            {"start": f"{given}%"},
        )
        ids = list(rows.scalars())
        if len(ids) == 1:
            return ids[0]
    recent = connection.execute(
        text("SELECT run_id::text FROM visible_runs ORDER BY completed_at DESC LIMIT :n"),
        {"n": _NEAR},
    )
    raise RunNotFound(unknown("run", given, recent.scalars()))


def recorded_runs(connection: Connection, run_ids: Sequence[uuid.UUID]) -> list[RecordedRun]:
    """The runs, in the order given.

    Raises:
        RunNotFound: for a run that is not stored.
        ProvenanceMissing: for a run without recorded inputs.
    """
    rows = connection.execute(
        text("""
            SELECT run_id, signal_name, symbol, tf, split, config, snapshot_id,
                   dataset_version_ids, code_version, code_archive, environment_hash, engine,
                   engine_version, result_fingerprint, artifact_uri, results, is_current,
                   (SELECT archive FROM strategy_sources s
                     WHERE s.strategy = config ->> 'strategy'
                       AND code_version LIKE '%, ' || s.strategy || ' ' || s.code_hash)
                       AS strategy_archive,
                   (SELECT array_agg(s.strategy ORDER BY s.strategy) FROM strategy_sources s
                     WHERE jsonb_exists(config -> 'strategies', s.strategy)
                       AND strpos(code_version, concat(', ', s.strategy, ' ', s.code_hash)) > 0)
                       AS followed,
                   (SELECT array_agg(s.archive ORDER BY s.strategy) FROM strategy_sources s
                     WHERE jsonb_exists(config -> 'strategies', s.strategy)
                       AND strpos(code_version, concat(', ', s.strategy, ' ', s.code_hash)) > 0)
                       AS followed_archives
            FROM visible_runs WHERE run_id = ANY(:run_ids)
        """),
        {"run_ids": list(run_ids)},
    )
    by_id = {row["run_id"]: row for row in with_provenance(rows.mappings())}
    for run_id in run_ids:
        if run_id not in by_id:
            raise not_found(run_id)
    versions = {item for row in by_id.values() for item in row["dataset_version_ids"].items()}
    known = _snapshots(connection, sorted(versions))
    logged = plans_of_runs(connection, run_ids)
    return [_recorded(by_id[run_id], known, logged.get(run_id, ())) for run_id in run_ids]


def _recorded(
    row: Mapping[str, Any],
    known: Mapping[tuple[str, str], Snapshot],
    plans: Sequence[Mapping[str, Any]],
) -> RecordedRun:
    versions = row["dataset_version_ids"]
    followed = zip(row["followed"] or (), row["followed_archives"] or (), strict=True)
    archives: dict[str, bytes] = dict(followed)
    return RecordedRun(
        run_id=row["run_id"],
        signal_name=row["signal_name"],
        asset=row["symbol"],
        timeframe=row["tf"],
        split=row["split"],
        config=row["config"],
        dataset_versions=versions,
        snapshots={key: known[key, v] for key, v in versions.items() if (key, v) in known},
        code_version=row["code_version"],
        code_archive=row["code_archive"],
        strategy_files=files_in(row["strategy_archive"]) or files_of_strategies(archives),
        environment_hash=row["environment_hash"],
        engine=(row["engine"], row["engine_version"]),
        fingerprint=row["result_fingerprint"],
        artifact_uri=row["artifact_uri"],
        results=row["results"],
        is_current=row["is_current"],
        plans=plans,
    )


def _snapshots(
    connection: Connection, versions: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Snapshot]:
    """The snapshots by input key (such as `BTC|1D`) and version."""
    rows = connection.execute(
        text("""
            SELECT w.key, s.version, s.uris, s.n_rows
            FROM unnest(CAST(:keys AS text[]), CAST(:versions AS text[])) AS w (key, version)
            JOIN dataset_snapshots s ON s.version = w.version
            JOIN dim_assets a ON a.id = s.id AND input_key(a.symbol, s.tf, s.dataset) = w.key
        """),
        {"keys": [key for key, _ in versions], "versions": [v for _, v in versions]},
    )
    return {
        (row.key, row.version): Snapshot(row.version, tuple(row.uris), row.n_rows) for row in rows
    }


def lost_inputs(connection: Connection) -> dict[uuid.UUID, list[str]]:
    """The input keys whose rows are not known any more, by the run that read them."""
    rows = connection.execute(
        text("""
            WITH known AS (
                SELECT input_key(a.symbol, s.tf, s.dataset) AS key, s.version
                FROM dataset_snapshots s JOIN dim_assets a USING (id))
            SELECT r.run_id, array_agg(u.key ORDER BY u.key) AS keys
            FROM visible_runs r CROSS JOIN LATERAL jsonb_each_text(r.dataset_version_ids) u
            WHERE NOT EXISTS (SELECT FROM known k WHERE (k.key, k.version) = (u.key, u.value))
            GROUP BY r.run_id ORDER BY r.run_id
        """)
    )
    return {row.run_id: row.keys for row in rows}


def stored_trades(connection: Connection, run_id: uuid.UUID) -> list[dict[str, Any]]:
    """A run's rows of `backtest_trades` by number; timestamps in microseconds since 1970 UTC."""
    rows = connection.execute(
        text("""
            SELECT *, (extract(epoch FROM entry_ts) * 1000000)::bigint AS entry_ts,
                   (extract(epoch FROM exit_ts) * 1000000)::bigint AS exit_ts
            FROM backtest_trades WHERE run_id = :run_id ORDER BY trade_no
        """),
        {"run_id": run_id},
    )
    return [dict(row) for row in rows.mappings()]


def trades_by_gap(connection: Connection, run_id: uuid.UUID) -> dict[str, int]:
    """How many of a run's trades were entered after, left after, or held across missing bars."""
    rows = connection.execute(
        text("""
            SELECT count(*) FILTER (WHERE entry_after_gap) AS entry_after_gap,
                   count(*) FILTER (WHERE exit_after_gap) AS exit_after_gap,
                   count(*) FILTER (WHERE held_across_gap) AS held_across_gap
            FROM backtest_trades WHERE run_id = :run_id
        """),
        {"run_id": run_id},
    )
    return dict(rows.mappings().one())


def stored_metrics(connection: Connection, run_id: uuid.UUID) -> dict[str, Any]:
    """A run's row of `backtest_metrics`; empty if it has none."""
    rows = connection.execute(
        text("SELECT * FROM backtest_metrics WHERE run_id = :run_id"), {"run_id": run_id}
    )
    return dict(rows.mappings().one_or_none() or {})


def runs_by_directory(connection: Connection) -> dict[str, int]:
    """How many completed runs each directory of artifacts holds, in the order of the names."""
    rows = connection.execute(
        text("""
            SELECT artifact_uri, count(*) AS n FROM visible_runs
            WHERE status = 'completed' GROUP BY artifact_uri ORDER BY artifact_uri
        """)
    )
    return {row["artifact_uri"]: row["n"] for row in rows.mappings()}


def figures_by_directory(connection: Connection, uris: Sequence[str]) -> list[dict[str, Any]]:
    """What is stored of the figures of the runs in these directories, ordered by directory.

    Columns: run_id, symbol, split, n_bars, artifact_uri, results, risk_free, and those of
    `backtest_metrics`.
    """
    rows = connection.execute(
        text("""
            SELECT r.symbol, r.split, r.n_bars, r.artifact_uri, r.results,
                   (r.config ->> 'risk_free')::float8 AS risk_free, m.*
            FROM visible_runs r JOIN backtest_metrics m USING (run_id)
            WHERE r.status = 'completed' AND r.artifact_uri = ANY(:uris)
            ORDER BY r.artifact_uri, r.run_id
        """),
        {"uris": list(uris)},
    )
    return [dict(row) for row in rows.mappings()]


def trades_of(cursor: Cursor, run_ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """The trades of runs: `run_id` as text, and these columns, by run and number."""
    return copy.fetch(
        cursor,
        f"SELECT run_id::text AS run_id, {', '.join(columns)} FROM backtest_trades"  # noqa: S608
        " WHERE run_id = ANY($1::text[]::uuid[]) ORDER BY run_id, trade_no",
        list(run_ids),
    )


def current_run_ids(connection: Connection) -> list[tuple[uuid.UUID, bool]]:
    """The ids of all current runs, each with whether it is in quarantine."""
    rows = connection.execute(
        text("""
            SELECT r.run_id, q.run_id IS NOT NULL AS apart
            FROM visible_runs r LEFT JOIN quarantined_runs q USING (run_id)
            WHERE r.is_current AND r.status = 'completed' ORDER BY r.run_id
        """)
    )
    return [(row.run_id, row.apart) for row in rows]


def runs_of_other_sources(
    connection: Connection, uri: str, code_versions: Sequence[str]
) -> list[uuid.UUID]:
    """Ids of current runs with these code versions whose source archive is not `uri`."""
    rows = connection.execute(
        text("""
            SELECT r.run_id FROM visible_runs r LEFT JOIN quarantined_runs q USING (run_id)
            WHERE r.is_current AND r.status = 'completed' AND q.run_id IS NULL
                AND r.code_archive <> :uri AND r.code_version = ANY(:code_versions)
            ORDER BY r.run_id
        """),
        {"uri": uri, "code_versions": list(code_versions)},
    )
    return list(rows.scalars())
