"""Pools by the settings, and work in threads."""

from __future__ import annotations

import os
import threading
from itertools import pairwise

import pytest

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.pipeline.pools.choose import pool_of, usable_cores, workers_of
from backtest_pipeline.pipeline.pools.cluster import Cluster
from backtest_pipeline.pipeline.pools.pool import HERE, Running, Threads, Work, done
from backtest_pipeline.pipeline.pools.processes import Processes
from backtest_pipeline.pipeline.pools.programs import scheduler_program, worker_program
from backtest_pipeline.storage.logs import about, run_id
from backtest_pipeline.storage.settings import load_settings


def unread() -> None:
    raise AssertionError("nobody needs the store's name before there is work")


def test_the_settings_choose_and_nothing_is_started() -> None:
    assert pool_of(load_settings(), unread) == Threads(2)
    assert pool_of(load_settings(pool_workers=5), unread) == Threads(5)
    processes = pool_of(load_settings(pool="processes"), unread)
    assert isinstance(processes, Processes)
    assert processes.size == usable_cores() == len(os.sched_getaffinity(0))
    assert workers_of(load_settings(pool="processes", pool_workers=7)) == 7
    cluster = pool_of(load_settings(pool="dask", pool_address="tcp://127.0.0.1:1"), unread)
    assert isinstance(cluster, Cluster)
    for pool in (processes, cluster):
        assert not pool.is_here
        pool.abandon()
        pool.close()


def test_what_only_this_process_can_do_is_done_here() -> None:
    work = Work("test", lambda item: (item, threading.get_ident()))
    here = threading.get_ident()
    for settings in (
        load_settings(pool="processes"),
        load_settings(pool="dask", pool_address="tcp://127.0.0.1:1"),
    ):
        assert pool_of(settings, unread).do(work, 3) == (3, here)


def test_work_is_done_side_by_side_and_comes_as_it_is_done() -> None:
    together = threading.Barrier(2)
    work: Work[int, int] = Work(
        "test", lambda item: item * together.parties if together.wait() >= 0 else 0
    )
    assert sorted(done(HERE, work, [1, 2, 3, 4])) == [(1, 2), (2, 4), (3, 6), (4, 8)]


def test_it_knows_what_the_thread_knows_that_wants_it() -> None:
    with about(run="n-3"):
        assert list(done(HERE, Work("test", lambda _: run_id.get()), [0])) == [(0, "n-3")]


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
        list(done(Threads(1), Work("test", do), [1, 2, 3, 4, 5, 6]))
    assert begun[0] == 1
    assert len(begun) < 6


@pytest.fixture
def certificates(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    from backtest_pipeline.pipeline.pools.tls import make_certificates

    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    monkeypatch.setenv("BACKTEST_POOL_TLS", str(folder))


def test_without_tls_a_scheduler_listens_on_this_host_alone() -> None:
    command, _ = scheduler_program("127.0.0.1", 8786)
    assert command[command.index("--protocol") + 1] == "tcp"
    for host in ("0.0.0.0", "::", "10.0.0.5", "scheduler"):  # noqa: S104
        with pytest.raises(ConfigurationError, match="whoever reaches it can run code"):
            scheduler_program(host, 8786)


@pytest.mark.usefixtures("certificates")
def test_programs_of_dask_are_told_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    command, told = scheduler_program("0.0.0.0", 8786)  # noqa: S104
    assert command[command.index("--protocol") + 1] == "tls"
    assert told["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
    ttl = "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"
    assert told[ttl] == "60s"
    monkeypatch.setenv(ttl, "300s")
    assert ttl not in scheduler_program("127.0.0.1", 8786)[1]
    with pytest.raises(ConfigurationError, match="BACKTEST_POOL_ADDRESS is not set"):
        worker_program()
    monkeypatch.setenv("BACKTEST_POOL_ADDRESS", "tls://scheduler:8786")
    monkeypatch.setenv("BACKTEST_POOL_WORKERS", "3")
    command, _ = worker_program()
    pairs = dict(pairwise(command))
    assert (pairs["--nworkers"], pairs["--nthreads"]) == ("3", "1")
    assert (pairs["--protocol"], "tls://scheduler:8786" in command) == ("tls", True)


def test_an_abandoned_cluster_that_nobody_connected_to_has_nothing_to_end() -> None:
    cluster = Cluster(load_settings(pool="dask", pool_address="tcp://127.0.0.1:1"), unread)
    cluster.abandon()
    cluster.close()
