"""Numbers that many processes add to come out as if one had."""

from __future__ import annotations

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables import counts
from backtest_pipeline.storage.tables.counts import (
    Key,
    Queue,
    add_counts,
    claim,
    read_counts,
    read_queue,
    set_values,
)
from backtest_pipeline_tests.sql import execute_sql

RUNS = Key("runs_total", (("exchange", "sample"), ("timeframe", "1D")))
KEYS = [Key("errors_total", (("code", code),)) for code in "abcdefgh"]


def _stored(database: Database) -> dict[Key, float]:
    with database.begin() as connection:
        return {count.key: count.value for count in read_counts(connection)}


def _add(database: Database, numbers: dict[Key, float]) -> None:
    with database.begin() as connection:
        add_counts(connection, numbers)


def test_a_number_begins_at_0_and_is_added_to(database: Database) -> None:
    _add(database, {RUNS: 1, KEYS[0]: 2})
    _add(database, {RUNS: 0.5})
    assert _stored(database) == {RUNS: 1.5, KEYS[0]: 2}


def test_a_count_that_is_rolled_back_was_none(database: Database) -> None:
    with database.engine.connect() as connection:
        add_counts(connection, {RUNS: 1})
    assert _stored(database) == {}


def test_many_that_count_the_same_in_any_order_lose_nothing_and_never_block_for_good(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine that does other things besides may keep one waiting for long.
    monkeypatch.setattr(counts, "_TIMEOUTS", sa.text("SELECT 1"))

    def work(seed: int) -> None:
        order = random.Random(seed)  # noqa: S311 - an order, no secret
        for _ in range(25):
            some = order.sample(KEYS, len(KEYS))
            _add(database, dict.fromkeys(some, 1.0))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert _stored(database) == dict.fromkeys(KEYS, 150.0)


_PROCESS = """
import sys
from backtest_pipeline.storage.tables.counts import Key, add_counts
from backtest_pipeline.storage.postgres.database import connect_database
database = connect_database(sys.argv[1])
print("begins", flush=True)
for _ in range(int(sys.argv[2])):
    with database.begin() as connection:
        add_counts(connection, {Key("runs_total"): 1, Key("seconds_sum"): 0.25})
    print("counted", flush=True)
"""


def test_processes_add_to_the_same_numbers_and_a_killed_one_leaves_what_it_told(
    database: Database,
) -> None:
    def begin(times: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _PROCESS, database.conninfo, str(times)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with begin(40) as whole, begin(1_000_000) as killed:
        assert killed.stdout is not None
        for _ in range(20):
            killed.stdout.readline()
        killed.kill()
        told = 19 + len([line for line in killed.stdout if line == "counted\n"])
        assert whole.wait() == 0
    stored = _stored(database)
    # The last of them may have been committed and not told.
    assert stored[Key("runs_total")] - 40 in (told, told + 1)
    assert stored[Key("seconds_sum")] == stored[Key("runs_total")] / 4


def test_a_measured_number_takes_the_place_of_the_last(database: Database) -> None:
    for value in (5.0, 3.0):
        with database.begin() as connection:
            set_values(connection, {RUNS: value})
    assert _stored(database) == {RUNS: 3.0}


def test_of_many_that_would_do_the_same_one_does_it(database: Database) -> None:
    def first(_: int) -> bool:
        with database.begin() as connection:
            return claim(connection, RUNS, 60)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(first, range(8))) == 1
    assert not first(0)
    execute_sql(database, "UPDATE metric_counts SET updated_at = now() - interval '2min'")
    assert first(0)
    assert _stored(database) == {RUNS: 2.0}


def test_the_queue_tells_jobs_by_status_how_long_they_wait_and_lost_leases(
    database: Database,
) -> None:
    with database.begin() as connection:
        assert read_queue(connection) == Queue({}, 0.0, 0)
        insert = """
            INSERT INTO backtest_jobs (kind, status, config, config_hash, symbols, timeframes,
                created_by, created_at, n_units, started_at, worker_id, lease_expires_at)
            SELECT 'run', status, '{}', 'h', '{A}', '{1D}', 'me', now() - age, 1,
                CASE status WHEN 'running' THEN now() END,
                CASE status WHEN 'running' THEN 'w' END, now() + lease
            FROM (VALUES
                ('pending', interval '10s', NULL), ('pending', interval '90s', NULL),
                ('running', interval '1h', interval '30s'),
                ('running', interval '1h', interval '-30s')) AS job (status, age, lease)
        """
        connection.execute(sa.text(insert))
        queue = read_queue(connection)
    assert (queue.by_status, queue.expired_leases) == ({"pending": 2, "running": 2}, 1)
    assert queue.oldest_pending_s == 90.0
