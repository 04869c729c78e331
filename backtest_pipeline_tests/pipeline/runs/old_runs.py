"""Stores with many old runs, jobs and portfolios, which are nobody's results."""

from __future__ import annotations

import hashlib
import os
import uuid
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from backtest_pipeline.pipeline.runs.query import pin
from backtest_pipeline.pipeline.runs.retention import RetentionReport, retain
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.sql import distinct, execute_sql
from backtest_pipeline_tests.stored_runs import NEWEST, fill_runs

DAYS = 90


LONG_AGO = (NEWEST - timedelta(days=300)).timestamp()


def run_id(i: int) -> uuid.UUID:
    """The id of the `i`-th run from the newest, as the database made it."""
    return uuid.UUID(hashlib.md5(f"run{i}".encode(), usedforsecurity=False).hexdigest())


def fill(workspace: Workspace, n_runs: int, per_folder: int = 20) -> None:
    """A store with so many runs over 200 days, and a small directory for each block of them."""
    with workspace.database.begin() as connection:
        fill_runs(connection, n_runs, per_folder=per_folder)
        uris = set(connection.execute(sa.text("SELECT artifact_uri FROM backtest_runs")).scalars())
    for uri in uris:
        put(workspace, f"{uri}/equity.parquet", b"equity")
        put(workspace, f"{uri}/manifest.json", b"{}")


def put(workspace: Workspace, uri: str, data: bytes = b"data") -> None:
    """A file that was written long ago."""
    path = workspace.artifacts.root / uri
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (LONG_AGO, LONG_AGO))


def files(workspace: Workspace) -> set[str]:
    return {file.uri for file in workspace.artifacts.stored()}


def clear(workspace: Workspace) -> None:
    execute_sql(
        workspace,
        "TRUNCATE backtest_runs, portfolio_runs, backtest_jobs, run_pins, run_requests,"
        " dataset_versions, dataset_snapshots, walk_forward_folds, environments CASCADE",
    )
    execute_sql(workspace, "DELETE FROM dim_assets")
    for uri in files(workspace):
        (workspace.artifacts.root / uri).unlink()


def retained(workspace: Workspace, **changes: Any) -> RetentionReport:
    return retain(workspace, **({"days": DAYS, "now": NEWEST} | changes))


def add_job(workspace: Workspace, status: str, ended: datetime | None, *runs: uuid.UUID) -> None:
    execute_sql(
        workspace,
        """
        INSERT INTO backtest_jobs (kind, status, config, config_hash, symbols, timeframes,
            created_by, n_units, result_run_ids, started_at, completed_at, worker_id,
            lease_expires_at)
        VALUES ('run', :status, '{}', '', '{}', '{}', 'ann', 1, :runs, :started, :ended,
            CASE WHEN :status = 'running' THEN 'w' END,
            CASE WHEN :status = 'running' THEN now() END)
        """,
        status=status,
        runs=list(runs),
        started=NEWEST,
        ended=ended,
    )


def add_portfolio(workspace: Workspace, name: str, days: int, *runs: uuid.UUID) -> None:
    """A portfolio of runs that ended so many days ago and is not current."""
    execute_sql(
        workspace,
        """
        INSERT INTO portfolio_runs (run_id, tf, signal_id, signal_name, scheme, n_members,
            n_rebalances, first_ts, last_ts, completed_at, is_current, config, config_hash,
            metrics, undefined, left_out, member_run_ids, snapshot_id, dataset_version_ids,
            code_version, environment_hash, engine, engine_version, seed, result_fingerprint,
            artifact_uri)
        VALUES (:id, '1D', 1, 'ema', 'equal', 1, 1, :at, :at, :at, FALSE, '{}', '', '{}', '{}',
            '{}', :runs, '', '{}', '', '', '', '', 0, '', :uri)
        """,
        id=uuid.uuid5(uuid.NAMESPACE_URL, name),
        at=NEWEST - timedelta(days=days),
        runs=list(runs),
        uri=f"portfolios/1D/{name}",
    )
    put(workspace, f"portfolios/1D/{name}/equity.parquet")
    put(workspace, f"portfolios/1D/{name}/manifest.json")


def state(workspace: Workspace) -> tuple[set[Any], set[str], set[Any]]:
    return (
        distinct(workspace, "SELECT run_id FROM backtest_runs"),
        files(workspace),
        distinct(workspace, "SELECT run_id FROM portfolio_runs"),
    )


def filled(workspace: Workspace) -> None:
    clear(workspace)
    fill(workspace, 200, per_folder=10)
    add_portfolio(workspace, "old", 100)
    put(workspace, "features/1D/nobody.parquet")
    put(workspace, "robustness/1D/nobody/manifest.json")
    pin(workspace, [run_id(150)], "ann")
