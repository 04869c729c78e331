"""Workers of a Dask cluster: the same results, whatever of it dies."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from distributed import Client
from distributed.client import ClosedClientError

from backtest_pipeline.market.errors import (
    ConfigurationError,
    PoolUnavailable,
    RowsRefused,
    UnknownName,
    WorkGivenUp,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.pools.cluster import Cluster, workers_known
from backtest_pipeline.pipeline.pools.pool_process import Order, call, give_up
from backtest_pipeline.pipeline.pools.tls import make_certificates, security_of
from backtest_pipeline.pipeline.stage import Outcome
from backtest_pipeline.pipeline.workspace import Workspace, open_workspace
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import Settings
from backtest_pipeline.strategies.known_strategies import use_folder
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.pools.clusters import (
    RunningCluster,
    running_cluster,
    wait_for_workers,
)
from backtest_pipeline_tests.pipeline.pools.tasks import (
    Threat,
    asked,
    computed_under,
    long_statement,
    own_pid,
    raised,
)
from backtest_pipeline_tests.pipeline.pools.universes import (
    ASSETS,
    EARLIER,
    PARTITIONS,
    WorkedStore,
    worked_store,
)
from backtest_pipeline_tests.sql import count
from backtest_pipeline_tests.waiting import LIMIT_S, until

FOUR = [Partition(asset, "1D") for asset in ASSETS[2:6]]
ASLEEP = "pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()"


@pytest.fixture(scope="module")
def store(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkedStore]:
    yield from worked_store(template, tmp_path_factory.mktemp("cluster") / "store")


@pytest.fixture(scope="module")
def cluster(
    store: WorkedStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningCluster]:
    """Two workers of the store."""
    folder = tmp_path_factory.mktemp("programs")
    with running_cluster(folder, store.environment(), workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def workspace(store: WorkedStore, cluster: RunningCluster) -> Iterator[Workspace]:
    """The store, with the cluster and the universe as it was earlier."""
    with open_workspace(on(store, cluster, store_retry_s=LIMIT_S)) as opened:
        wait_for_workers(cluster, lambda: opened.pool.size, 2)
        refresh(opened, EARLIER, PARTITIONS)
        yield opened
    use_folder(None)


def on(store: WorkedStore, cluster: RunningCluster, **more: Any) -> Settings:
    known = cluster.environment
    return store.settings(
        pool="dask",
        pool_tls=known["BACKTEST_POOL_TLS"],
        pool_address=known["BACKTEST_POOL_ADDRESS"],
        **more,
    )


def test_two_processes_share_the_workers(
    store: WorkedStore, cluster: RunningCluster, workspace: Workspace
) -> None:
    settings = on(store, cluster, store_retry_s=LIMIT_S)
    other = Cluster(settings, workspace.artifacts.root_id)
    with ThreadPoolExecutor(8) as threads:
        wanted = [
            threads.submit(asked, pool, own_pid)
            for _ in range(6)
            for pool in (workspace.pool, other)
        ]
        found = {one.result() for one in wanted}
    other.close()
    assert found <= {process.pid for process in cluster.computing()}


RULES = 'name = "weak"\nlong_entry = "rsi_14 < 30"\nlong_exit = "rsi_14 > 50"'
PAGES = ("/info/main/workers.html", "/json/identity.json", "/metrics")


def test_nobody_learns_over_http_what_runs(workspace: Workspace, cluster: RunningCluster) -> None:
    assert workspace.pool.size == 2
    sockets = cluster.listening()
    assert len(sockets) > 3
    for host, port in sockets:
        answers = [answer(port, page) for page in PAGES]
        assert not any(found.startswith(b"HTTP/1.1 200") for found in answers), (host, port)
        assert host == "127.0.0.1" or not any(found.startswith(b"HTTP") for found in answers)


def answer(port: int, path: str) -> bytes:
    """The first bytes of what a port of this host says to a browser; none if it hangs up."""
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as connection:
        try:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            return connection.recv(64)
        except ConnectionError:
            return b""


def test_an_error_of_ours_arrives_as_it_was_raised(workspace: Workspace) -> None:
    for error in (
        RowsRefused("no row"),
        UnknownName("strategy", "ema_crosover", ["ema_crossover"]),
    ):
        with pytest.raises(type(error)) as caught:
            asked(workspace.pool, raised, error)
        assert (str(caught.value), caught.value.code) == (str(error), error.code)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_statements_of_workers_and_keeps_what_is_stored(
    workspace: Workspace, cluster: RunningCluster, tmp_path: Path
) -> None:
    heard: list[Outcome] = []

    def listen(outcomes: Sequence[Outcome]) -> None:
        heard.extend(outcomes)
        until(lambda: count(workspace, ASLEEP) == 1)
        signal.raise_signal(signal.SIGINT)

    (tmp_path / "counted").mkdir()
    threat = Threat("U04", tmp_path / "counted", 1, "waits")
    with pytest.raises(KeyboardInterrupt):
        computed_under(workspace, FOUR, threat, listener=listen)
    until(lambda: count(workspace, ASLEEP) == 0)  # it would have slept for minutes
    assert not (threat.folder / "woken").exists()
    assert [outcome.partition for outcome in heard] == FOUR[:2]
    assert asked(workspace.pool, own_pid) in {process.pid for process in cluster.computing()}


def test_a_frozen_scheduler_is_named_and_its_work_can_be_given_up(
    store: WorkedStore,
    cluster: RunningCluster,
    workspace: Workspace,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = Cluster(on(store, cluster, store_retry_s=3_600), workspace.artifacts.root_id)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(asked, other, long_statement, tmp_path / "woken")
        until(lambda: count(workspace, ASLEEP) == 1)
        frozen = cluster.scheduler.tree()
        for process in frozen:
            process.suspend()
        try:
            until(lambda: "does not answer" in caplog.text)
            other.abandon()
            with pytest.raises(WorkGivenUp):
                waiting.result(LIMIT_S)
        finally:
            for process in frozen:
                process.resume()
            other.abandon()
    until(lambda: count(workspace, ASLEEP) == 0)
    other.close()
    wait_for_workers(cluster, lambda: workspace.pool.size, 2)


def test_work_that_is_lost_each_time_is_not_sent_for_ever(
    store: WorkedStore,
    cluster: RunningCluster,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[object] = []

    def broken(_client: Client, *order: object, **_how: object) -> None:
        sent.append(order)
        raise OSError("broken stream")

    monkeypatch.setattr(Client, "submit", broken)
    other = Cluster(on(store, cluster), workspace.artifacts.root_id)
    with pytest.raises(PoolUnavailable, match=r"lost each time \(broken stream\)"):
        asked(other, own_pid)
    assert 1 < len(sent) < 100
    other.close()


class EndsMeanwhile:
    """Work of Dask that raises something just when nobody waits for it any more."""

    status = "pending"

    def done(self) -> bool:
        return self.status == "error"

    def result(self, timeout: float) -> None:
        if not self.done():
            self.status = "error"
            raise TimeoutError(f"{timeout} s")
        raise RowsRefused("no row")


def test_what_work_raises_is_not_taken_for_the_end_of_a_wait(
    store: WorkedStore, cluster: RunningCluster
) -> None:
    other = Cluster(on(store, cluster), lambda: None)
    with pytest.raises(RowsRefused):
        other._result(cast("Any", None), cast("Any", EndsMeanwhile()), 0)


def test_a_closed_client_knows_no_workers(workspace: Workspace, cluster: RunningCluster) -> None:
    address = cluster.environment["BACKTEST_POOL_ADDRESS"]
    security = security_of(address, Path(cluster.environment["BACKTEST_POOL_TLS"]))
    assert workspace.pool.size == 2
    with Client(address, security=security, set_as_default=False) as client:
        assert len(workers_known(client)) == 2
    with pytest.raises(ClosedClientError):
        workers_known(client)


def test_an_order_that_was_given_up_before_it_arrived_is_not_begun(
    workspace: Workspace, cluster: RunningCluster
) -> None:
    address = cluster.environment["BACKTEST_POOL_ADDRESS"]
    security = security_of(address, Path(cluster.environment["BACKTEST_POOL_TLS"]))
    assert workspace.pool.size == 2
    order = Order.of(own_pid, None)
    with Client(address, security=security, set_as_default=False) as client:
        client.run(give_up, [order.ticket])
        with pytest.raises(WorkGivenUp):
            client.submit(call, order).result(LIMIT_S)


@pytest.mark.usefixtures("workspace")
def test_the_status_tells_of_other_strategies(cluster: RunningCluster, tmp_path: Path) -> None:
    (tmp_path / "weak.toml").write_text(RULES)
    found = cluster.status(BACKTEST_STRATEGIES=str(tmp_path))
    assert found.returncode == 1
    assert "has other strategies in" in found.stderr


def test_workers_of_another_store_are_told_apart(
    store: WorkedStore, cluster: RunningCluster, workspace: Workspace
) -> None:
    other = Cluster(on(store, cluster, store_retry_s=0), lambda: "another store")
    with pytest.raises(
        PoolUnavailable, match=r"none of the 2 workers .* store is another store here"
    ):
        asked(other, own_pid)
    other.close()


def test_whoever_has_no_certificate_of_the_same_ca_is_not_let_in(
    store: WorkedStore, cluster: RunningCluster, tmp_path: Path
) -> None:
    make_certificates(tmp_path / "tls")
    settings = on(store, cluster, store_retry_s=3_600)  # it does not wait: that mends nothing
    stranger = settings.model_copy(update={"pool_tls": tmp_path / "tls"})
    with pytest.raises(PoolUnavailable, match="BACKTEST_POOL_TLS is not a copy of the scheduler"):
        asked(Cluster(stranger, lambda: None), own_pid)
    for path in (tmp_path / "tls").iterdir():
        path.unlink()
    with pytest.raises(ConfigurationError, match=r"ca\.pem is missing"):
        asked(Cluster(stranger, lambda: None), own_pid)


def test_the_status_tells_whether_there_are_workers_and_sigterm_ends_all(
    cluster: RunningCluster, workspace: Workspace
) -> None:
    found = cluster.status()
    assert (found.returncode, "2 workers of this code and store" in found.stdout) == (0, True)
    assert cluster.stop() == []
    gone = cluster.status()
    assert gone.returncode != 0
    assert "cannot be reached" in gone.stderr
