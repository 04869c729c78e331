"""Pools by the settings, and work in threads."""

from __future__ import annotations

import os
import threading

import pytest

from backtest_pipeline.pipeline.pools.cluster import Cluster
from backtest_pipeline.pipeline.pools.configured_pool import pool_of, usable_cores, workers_of
from backtest_pipeline.pipeline.pools.processes import Processes
from backtest_pipeline.pipeline.pools.work_pool import HERE, PoolWork, Running, Threads, done
from backtest_pipeline.storage.logs import about, run_id
from backtest_pipeline.storage.settings import load_settings


def unread() -> None:
    raise AssertionError("nobody needs the store's name before there is work")


def test_the_settings_choose_and_nothing_is_started() -> None:
    assert pool_of(load_settings(), unread) == Threads(2)
    assert pool_of(load_settings(pool_workers=5), unread) == Threads(5)
    processes = pool_of(load_settings(pool="processes"), unread)
    assert isinstance(processes, Processes)
    assert 1 <= processes.size == usable_cores() <= len(os.sched_getaffinity(0))
    assert workers_of(load_settings(pool="processes", pool_workers=7)) == 7
    cluster = pool_of(load_settings(pool="dask", pool_address="tcp://127.0.0.1:1"), unread)
    assert isinstance(cluster, Cluster)
    for pool in (processes, cluster):
        assert not pool.is_here
        pool.abandon()
        pool.close()


def test_what_only_this_process_can_do_is_done_here() -> None:
    work = PoolWork("test", lambda item: (item, threading.get_ident()))
    here = threading.get_ident()
    for settings in (
        load_settings(pool="processes"),
        load_settings(pool="dask", pool_address="tcp://127.0.0.1:1"),
    ):
        assert pool_of(settings, unread).do(work, 3) == (3, here)


def test_work_is_done_side_by_side_and_comes_as_it_is_done() -> None:
    together = threading.Barrier(2)
    work: PoolWork[int, int] = PoolWork(
        "test", lambda item: item * together.parties if together.wait() >= 0 else 0
    )
    assert sorted(done(HERE, work, [1, 2, 3, 4])) == [(1, 2), (2, 4), (3, 6), (4, 8)]


def test_it_knows_what_the_thread_knows_that_wants_it() -> None:
    with about(run="n-3"):
        assert list(done(HERE, PoolWork("test", lambda _: run_id.get()), [0])) == [(0, "n-3")]


def test_after_an_error_nothing_more_is_started_and_what_is_done_is_given() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def do(item: int) -> int:
        begun.append(item)
        if item == 1:
            failed.set()
            raise ValueError("one")
        failed.wait()
        return item

    pool = Threads(2)
    running: Running[int, int] = Running(pool, do, [0, 1], "test")
    with pytest.raises(ValueError, match="one"):
        list(running)
    assert running.stop() in ([], [(0, 0)])
    begun.clear()
    failed.clear()
    with pytest.raises(ValueError, match="one"):
        list(done(Threads(1), PoolWork("test", do), [1, 2, 3, 4, 5, 6]))
    assert begun[0] == 1
    assert len(begun) < 6


def test_an_abandoned_cluster_that_nobody_connected_to_has_nothing_to_end() -> None:
    cluster = Cluster(load_settings(pool="dask", pool_address="tcp://127.0.0.1:1"), unread)
    cluster.abandon()
    cluster.close()
