"""Two writers of the same rows at once: the second one waits, and none of them fails."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
import sqlalchemy as sa

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.run_tables.leaderboard import gate_set, publish_controls
from backtest_pipeline.storage.run_tables.walk_forward import store_folds
from backtest_pipeline_tests.sql import scalar

_BOUNDS = ("train_start", "train_end", "test_start", "test_end")
NOW = datetime(2026, 1, 1, tzinfo=UTC)

_MORE = ("n_families", "n_run", "n_run_effective", "n_walk_forwards", "n_walk_forwards_passed")


def folds(database: Database) -> pa.Table:
    id_ = scalar(database, "INSERT INTO dim_assets (symbol) VALUES ('A') RETURNING id")
    row: dict[str, Any] = {
        "run_id": str(UUID(int=1)),
        "fold": 0,
        "fold_key": "key",
        "strategy": "ema_crossover",
        "id": id_,
        "symbol": "A",
        "tf": "1D",
        **{name: NOW + timedelta(n) for n, name in enumerate(_BOUNDS)},
        "n_train": 1,
        "n_test": 1,
        "status": "undefined",
        "objective": "sharpe",
        "n_combinations": 1,
        "computed_at": NOW,
    }
    return pa.Table.from_pylist([row])


def controls(database: Database) -> pa.Table:
    with database.begin() as connection:
        gates = gate_set(connection, "default")
    counts = ("n_assets", "n_trials", "n_naive", "n_in_family", "n_significant", "n_passed", *_MORE)
    row: dict[str, Any] = {
        "control_id": "control",
        "world": "random_walk",
        "seed": 0,
        "n_bars": 1,
        "n_searches": 1,
        **dict.fromkeys(counts, 1),
        **dict.fromkeys(("rate", "run_rate", "walk_forward_rate"), 1.0),
        "upper_bound": 1.0,
        "gate_set_id": gates.gate_set_id,
        "code_version": "code",
        "created_at": NOW,
    }
    return pa.Table.from_pylist([row])


@pytest.mark.parametrize(("rows_of", "store"), [(folds, store_folds), (controls, publish_controls)])
def test_the_second_writer_of_the_same_rows_waits_and_does_not_fail(
    database: Database, rows_of: Callable[[Database], pa.Table], store: Callable[..., None]
) -> None:
    rows = rows_of(database)

    def write() -> None:
        with database.arrow() as connection, connection.cursor() as cursor:
            store(cursor, rows)

    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with ThreadPoolExecutor(1) as pool:
        with database.arrow() as connection, connection.cursor() as cursor:
            store(cursor, rows)
            second = pool.submit(write)
            while True:
                with database.begin() as looking:
                    if looking.scalar(sa.text(waiting)):
                        break
                assert not second.done()
        second.result()
