"""Runs that a command executes in its own process, and marking those failed whose process is gone.

Dagster launches no process for such a run and so has none to look after. While the command lives,
it renews a lease; a run whose lease has expired is marked failed by whoever looks next. A process
that was only suspended goes on when it wakes up, and the end that it reports is what Dagster shows.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from uuid import uuid4

import dagster as dg

from backtest_pipeline.market.errors import StoreError
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.run_tables.dagster_run_leases import (
    ExpiredLease,
    lock_expired_leases,
    release_lease,
    renew_lease,
    take_lease,
)

LEASE_S, BEAT_S = 30.0, 3.0

_log = logging.getLogger(__name__)


@contextmanager
def leased_run(
    database: Database, command: str, lease_s: float = LEASE_S, beat_s: float = BEAT_S
) -> Iterator[str]:
    """The id for a run that this process is about to execute, leased while the block runs.

    Args:
        database: the store's database.
        command: name of the command, for messages.
        lease_s: seconds until an unrenewed lease expires.
        beat_s: seconds between two renewals.

    Raises:
        StoreOutOfReach: where the database cannot be reached.
    """
    run_id, holder = str(uuid4()), f"process {os.getpid()} on {platform.node()}"

    def take() -> None:
        with database.begin() as connection:
            take_lease(connection, run_id, command, holder, lease_s)

    def release() -> None:
        with database.begin() as connection:
            release_lease(connection, run_id)

    database.retrying("lease of a run", take)
    over = Event()
    thread = Thread(
        target=partial(_renew, database, run_id, lease_s, beat_s, over), name="lease", daemon=True
    )
    thread.start()
    try:
        yield run_id
    finally:
        over.set()
        thread.join()
        database.retrying("end of a run's lease", release)


def _renew(database: Database, run_id: str, lease_s: float, beat_s: float, over: Event) -> None:
    while not over.wait(beat_s):
        try:
            with database.begin() as connection:
                is_ours = renew_lease(connection, run_id, lease_s)
        except StoreError as error:
            _log.warning("run %s: its lease was not renewed: %s", run_id, error)
            continue
        if not is_ours:
            _log.warning("run %s was taken for dead and marked failed; it goes on", run_id)
            return


def fail_dead_runs(instance: dg.DagsterInstance, database: Database) -> list[ExpiredLease]:
    """Mark runs failed whose process is gone; returns their leases.

    Any number of processes may do this at once. Dagster would mark any run failed, a finished one
    too: so the lease is locked, and the run's status read, before that.

    Raises:
        StoreError: where the database cannot be reached.
    """
    dead = []
    with database.begin() as connection:
        for lease in lock_expired_leases(connection):
            run = instance.get_run_by_id(lease.dagster_run_id)
            if run is not None and not run.is_finished:
                instance.report_run_failed(run, f"{lease}; it was marked failed")
                _log.warning("%s; it was marked failed", lease)
                dead.append(lease)
            release_lease(connection, lease.dagster_run_id)
    return dead
