"""Worker processes of this host: the same results, whoever dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread

import psutil
import pytest

from backtest_pipeline.market.errors import (
    BacktestError,
    RowsRefused,
    UnknownName,
    WorkerLost,
    WorkGivenUp,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.pools.processes import ATTEMPTS, Processes
from backtest_pipeline.pipeline.pools.work_pool import PoolWork, done
from backtest_pipeline.pipeline.stage import Outcome, Status
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.storage.logs import about
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.strategies.known_strategies import look_again, rules_known, use_folder
from backtest_pipeline_tests.own_strategies import write
from backtest_pipeline_tests.pipeline.markets import Contents, assert_same, contents, refresh
from backtest_pipeline_tests.pipeline.pools.tasks import (
    Threat,
    asked,
    computed_under,
    ended_once,
    known_strategies,
    logged,
    long_statement,
    nothing_here,
    own_pid,
    raised,
)
from backtest_pipeline_tests.pipeline.pools.universes import (
    ASSETS,
    EARLIER,
    PARTITIONS,
    UNIVERSE,
    WorkedStore,
    worked_store,
)
from backtest_pipeline_tests.sql import count
from backtest_pipeline_tests.waiting import until

FOUR = [Partition(asset, "1D") for asset in ASSETS[2:6]]
ASLEEP = "pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()"


@pytest.fixture(scope="module")
def store(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkedStore]:
    yield from worked_store(template, tmp_path_factory.mktemp("processes") / "store")


@pytest.fixture(scope="module")
def workspace(store: WorkedStore) -> Iterator[Workspace]:
    """The store with two workers, and the universe as it was earlier in it."""
    with open_workspace(store.settings(pool="processes", pool_workers=2)) as opened:
        refresh(opened, EARLIER, PARTITIONS)
        yield opened
    use_folder(None)


@pytest.fixture(scope="module")
def refreshed(workspace: Workspace) -> Workspace:
    """The same with all of the universe."""
    refresh(workspace, UNIVERSE, PARTITIONS)
    return workspace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "counted").mkdir()
    return tmp_path / "counted"


def workers_of(workspace: Workspace) -> list[psutil.Process]:
    """Its worker processes; each is asked for its own."""
    work = PoolWork("test", nothing_here, own_pid)
    return [
        psutil.Process(pid) for pid in {pid for _, pid in done(workspace.pool, work, [None, None])}
    ]


def below() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def test_work_that_is_small_is_done_here(store: WorkedStore) -> None:
    before = below()
    with open_workspace(store.settings(pool="processes", pool_workers=2)) as opened:
        assert not opened.pool.is_here
        reports = refresh(opened, EARLIER, [Partition("U00", "1W")])
        assert reports["backtests"].counts == {"stored": 1}
        assert below() <= before
    use_folder(None)


def test_the_results_are_those_of_one_process(refreshed: Workspace, inline: Contents) -> None:
    assert_same(contents(refreshed), inline)


@pytest.mark.parametrize("when", ["dies before", "dies after"])
def test_a_batch_whose_worker_is_killed_is_done_again(
    refreshed: Workspace, inline: Contents, folder: Path, when: str
) -> None:
    heard: list[Outcome] = []
    threat = Threat("U04", folder, 1, when)  # pyright: ignore[reportArgumentType]
    report = computed_under(refreshed, FOUR, threat, listener=heard.extend)
    assert (threat.happened, report.counts) == (1, {"stored": 4})
    assert sorted(outcome.partition for outcome in heard) == FOUR
    assert_same(contents(refreshed), inline)


def test_a_partition_that_kills_every_worker_fails_alone(
    refreshed: Workspace, inline: Contents, folder: Path
) -> None:
    threat = Threat("U04", folder, 1_000)
    report = computed_under(refreshed, FOUR, threat)
    (failed,) = report.failed
    assert failed.partition == Partition("U04", "1D")
    assert isinstance(failed.error, WorkerLost)
    assert failed.detail.startswith("WorkerLost: features: 3 worker processes died of it")
    assert report.counts == {"stored": 3, "failed": 1}
    assert threat.happened == 2 * ATTEMPTS  # with another partition, and alone
    assert_same(contents(refreshed), inline)


def test_workers_that_are_killed_while_they_wait_are_replaced(workspace: Workspace) -> None:
    killed = {asked(workspace.pool, own_pid) for _ in range(2)}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert all(asked(workspace.pool, own_pid) not in killed for _ in range(2))


def test_a_worker_that_ends_itself_at_work_is_replaced(workspace: Workspace, folder: Path) -> None:
    before = {worker.pid for worker in workers_of(workspace)}
    assert asked(workspace.pool, ended_once, folder / "ended") not in before


def test_an_error_of_ours_arrives_as_it_was_raised(workspace: Workspace) -> None:
    refused = RowsRefused("no such row")
    refused.add_note("of a worker")
    unknown = UnknownName("strategy", "ema_crosover", ["ema_crossover"])
    for error in (refused, unknown):
        with pytest.raises(type(error)) as caught:
            asked(workspace.pool, raised, error)
        assert str(caught.value) == str(error)
        assert caught.value.code == error.code
        assert getattr(caught.value, "__notes__", []) == getattr(error, "__notes__", [])


def test_rules_of_a_spec_and_files_that_change_meanwhile_are_known_to_workers(
    store: WorkedStore, workspace: Workspace
) -> None:
    rules = 'name = "above"\nlong_entry = "close > ema_9"\nlong_exit = "close < ema_9"\n'
    before = asked(workspace.pool, known_strategies)
    with rules_known(rules) as name:
        assert set(asked(workspace.pool, known_strategies)) == {*before, name}
    assert asked(workspace.pool, known_strategies) == before
    path = write(store.folder / "strategies", "dip.py")
    look_again()
    assert set(asked(workspace.pool, known_strategies)) == {*before, "dip"}
    path.unlink()
    look_again()
    assert asked(workspace.pool, known_strategies) == before


def test_what_a_worker_logs_names_request_job_and_run(workspace: Workspace, folder: Path) -> None:
    with about(request="r-1", job="j-2", run="n-3"):
        asked(workspace.pool, logged, folder / "log")
    line = (folder / "log").read_text()
    assert all(name in line for name in ("a worker works", "r-1", "j-2", "n-3"))


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_what_workers_do_and_keeps_what_is_stored(
    refreshed: Workspace, inline: Contents, folder: Path
) -> None:
    heard: list[Outcome] = []

    def listen(outcomes: Sequence[Outcome]) -> None:
        heard.extend(outcomes)
        until(lambda: count(refreshed, ASLEEP) == 1)
        signal.raise_signal(signal.SIGINT)

    threat = Threat("U04", folder, 1, "waits")
    with pytest.raises(KeyboardInterrupt):
        computed_under(refreshed, FOUR, threat, listener=listen)
    # It was cancelled: it would have slept for minutes.
    until(lambda: count(refreshed, ASLEEP) == 0)
    assert not (folder / "woken").exists()
    assert [outcome.partition for outcome in heard] == FOUR[:2]
    assert {outcome.status for outcome in heard} == {Status.STORED}
    assert_same(contents(refreshed), inline)
    assert asked(refreshed.pool, own_pid)


def test_work_that_is_abandoned_says_so(workspace: Workspace, folder: Path) -> None:
    work = PoolWork("test", nothing_here, long_statement)
    running = done(workspace.pool, work, [folder / "woken"])
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            list(running)
        except BacktestError as error:
            caught.append(error)

    waiting = Thread(target=wait)
    waiting.start()
    until(lambda: count(workspace, ASLEEP) == 1)
    workspace.pool.abandon()
    waiting.join()
    assert [type(error) for error in caught] == [WorkGivenUp]
    until(lambda: count(workspace, ASLEEP) == 0)


def test_closing_the_workspace_ends_its_workers(store: WorkedStore) -> None:
    with open_workspace(store.settings(pool="processes", pool_workers=1)) as opened:
        (worker,) = workers_of(opened)
        assert worker.is_running()
        assert isinstance(opened.pool, Processes)
        assert opened.pool.size == 1
    psutil.wait_procs([worker])
    assert not worker.is_running()
    use_folder(None)


def test_a_pool_that_was_closed_begins_anew_and_ends_again(store: WorkedStore) -> None:
    pool = Processes(store.settings(), 1)
    found = []
    for _ in range(2):
        found.append(asked(pool, own_pid))
        pool.close()
        until(lambda: not psutil.pid_exists(found[-1]))
    assert len(set(found)) == 2
