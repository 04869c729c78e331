"""Runs whose process no launcher can look after, and marking those failed whose process is gone.

Dagster launches no process for a run that a command executes in its own, and cannot see one that
was launched on another machine. While the process lives, it renews a lease; a run whose lease has
expired is marked failed by whoever looks next. A process that was only suspended goes on when it
wakes up, and the end that it reports is what Dagster shows.
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

from backtest_pipeline.defs.launcher import LAUNCHED, launched_elsewhere
from backtest_pipeline.market.errors import StoreError
from backtest_pipeline.storage.dagster_run_leases import (
    ExpiredLease,
    is_leased,
    lease_ids,
    lock_expired_leases,
    release_lease,
    renew_lease,
    take_lease,
)
from backtest_pipeline.storage.postgres.database import Database

LEASE_S, BEAT_S = 30.0, 3.0
# A launched run outlasts an outage of the database, as long as stages do. It has its lease a little
# longer than its resources, until Dagster has noted its end.
_LAUNCHED_S, _LINGERS_S = 120.0, 30.0
_CODE_LOCATION = "dagster/code_location"  # only launched runs have this tag

_log = logging.getLogger(__name__)


@contextmanager
def leased_run(database: Database, command: str) -> Iterator[str]:
    """The id for a run that this process is about to create and execute; leased as by `leased`."""
    run_id = str(uuid4())
    with leased(database, run_id, command):
        yield run_id


@contextmanager
def watched(database: Database, run: dg.DagsterRun) -> Iterator[None]:
    """Lease a run that this process executes, unless its death would be noticed otherwise.

    A run that was launched on this machine is looked after by its launcher; one of `leased_run` has
    its lease.
    """

    def has_lease() -> bool:
        with database.begin() as connection:
            return is_leased(connection, run.run_id)

    if launched_elsewhere(run):
        with leased(database, run.run_id, LAUNCHED, _LAUNCHED_S, lingers_s=_LINGERS_S):
            yield
    elif _CODE_LOCATION in run.tags or database.retrying("lease of a run", has_lease):
        yield
    else:
        with leased(database, run.run_id, "dagster"):
            yield


@contextmanager
def leased(
    database: Database,
    run_id: str,
    command: str,
    lease_s: float = LEASE_S,
    beat_s: float = BEAT_S,
    lingers_s: float = 0.0,
) -> Iterator[None]:
    """Hold a lease on a run that this process executes while the block runs.

    Args:
        database: the store's database.
        run_id: the run.
        command: the command that executes it, for messages.
        lease_s: seconds until an unrenewed lease expires.
        beat_s: seconds between two renewals.
        lingers_s: seconds that the lease stays after the block.

    Raises:
        StoreOutOfReach: where the database cannot be reached.
    """
    holder = f"process {os.getpid()} on {platform.node()}"

    def take() -> None:
        with database.begin() as connection:
            take_lease(connection, run_id, command, holder, lease_s)

    def release() -> None:
        with database.begin() as connection:
            if lingers_s:
                renew_lease(connection, run_id, lingers_s)
            else:
                release_lease(connection, run_id)

    database.retrying("lease of a run", take)
    over = Event()
    thread = Thread(
        target=partial(_renew, database, run_id, lease_s, beat_s, over), name="lease", daemon=True
    )
    thread.start()
    try:
        yield
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
        for run_id in lease_ids(connection, LAUNCHED):
            run = instance.get_run_by_id(run_id)
            if run is not None and run.is_finished:
                release_lease(connection, run_id)
        for lease in lock_expired_leases(connection):
            run = instance.get_run_by_id(lease.dagster_run_id)
            if run is not None and not run.is_finished:
                instance.report_run_failed(run, f"{lease}; it was marked failed")
                _log.warning("%s; it was marked failed", lease)
                dead.append(lease)
            release_lease(connection, lease.dagster_run_id)
    return dead
