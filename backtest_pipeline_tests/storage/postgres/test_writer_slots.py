"""No more writers at once than there are slots, whoever dies and whatever else they lock."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import Connection

import pyarrow as pa
import pytest

from backtest_pipeline.market.errors import StoreOutOfReach
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.postgres.retry import Retry
from backtest_pipeline.storage.postgres.writer_slots import waiting_until
from backtest_pipeline_tests.sql import scalar
from backtest_pipeline_tests.waiting import LIMIT_S, until

# They share one import of the modules.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "adbc_driver_postgresql.dbapi"])
# Of this database; a lock of two numbers says so in `objsubid`.
HELD = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def write_until_told(conninfo: str, told: Connection) -> None:
    """Say `waits`, then `writes`, and end when something is said."""
    database = connect_database(conninfo, writers=2)
    told.send("waits")
    with database.writing():
        told.send("writes")
        told.recv()


class Writer:
    """A process that writes until it is told to end, or is killed."""

    def __init__(self, database: Database) -> None:
        self.told, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(
            target=write_until_told, args=(database.conninfo, theirs), daemon=True
        )
        self.process.start()
        theirs.close()
        assert self.told.recv() == "waits"

    @property
    def writes(self) -> bool:
        return self.process.is_alive() and self.told.poll()

    def end(self) -> None:
        assert self.told.recv() == "writes"
        self.told.send("end")
        self.process.join()
        assert self.process.exitcode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.told.close()


@pytest.fixture
def writers(database: Database) -> Iterator[list[Writer]]:
    six = [Writer(database) for _ in range(6)]
    yield six
    for writer in six:
        writer.kill()


def test_six_processes_share_two_slots_and_a_killed_one_frees_its_own(
    database: Database, writers: list[Writer]
) -> None:
    for n_left in (6, 5, 4, 3, 2, 1):
        n_writing = min(n_left, 2)
        until(lambda n=n_writing: sum(writer.writes for writer in writers) == n)
        assert scalar(database, HELD) == n_writing
        first = next(writer for writer in writers if writer.writes)
        first.kill() if n_left % 2 else first.end()
    until(lambda: scalar(database, HELD) == 0)


def test_waiting_for_a_slot_ends_when_it_is_given_up(database: Database) -> None:
    one = replace(database, writers=1)
    given_up = threading.Event()

    def write() -> None:
        with waiting_until(given_up), one.writing():
            raise AssertionError("there was no slot")

    with ThreadPoolExecutor(1) as pool, one.writing():
        waiting = pool.submit(write)
        given_up.set()
        with pytest.raises(StoreOutOfReach, match="was stopped"):
            waiting.result()
    one.close()


def test_writers_of_the_same_cells_never_wait_in_a_circle(database: Database) -> None:
    two, n_rounds = replace(database, writers=2), 10
    began = threading.Barrier(6)

    def write(n: int) -> int:
        began.wait()
        for _ in range(n_rounds):
            # Single runs are published without a slot.
            transaction = two.arrow if n == 0 else two.writing
            with transaction() as connection, connection.cursor() as cursor:
                copy.lock_cells(cursor, "features", "1D", [n % 3, 3 - n % 2, 5])
                copy.lock_cells(cursor, "backtests", "1D", [n % 3])
        return n_rounds

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(write, range(6))) == 6 * n_rounds
    assert scalar(database, HELD) == 0
    two.close()


def test_a_writer_that_stands_still_in_a_copy_loses_its_slot(database: Database) -> None:
    # Rows that arrive one batch at a time; the second one never does.
    schema, sent, goes_on = pa.schema([("x", pa.string())]), threading.Event(), threading.Event()

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"x": ["x" * 1000] * 10_000}, schema)
        yield pa.record_batch({"x": ["x" * 1000] * 10_000}, schema)
        sent.set()
        goes_on.wait()

    one = replace(database, writers=1, retry=Retry(30, still_s=0.2))

    def stand_still() -> None:
        rows = pa.RecordBatchReader.from_batches(schema, batches())
        with one.writing() as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("copied", rows, mode="create", temporary=True)

    with ThreadPoolExecutor(1) as pool, ExitStack() as released:
        released.callback(goes_on.set)
        still = pool.submit(stand_still)
        assert sent.wait(LIMIT_S)
        with one.writing():
            assert scalar(database, HELD) == 1
        goes_on.set()
        assert still.exception() is not None
    one.close()
