"""The embedded server among processes that come, go and are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, LiteralString

import psutil
import psycopg
import pytest

from backtest_pipeline.market.errors import ConfigurationError, StoreUnavailable
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.postgres.embedded import EmbeddedServer, embedded_server
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.sql import scalar
from backtest_pipeline_tests.waiting import LIMIT_S

_USER = """
import sys
from pathlib import Path
from backtest_pipeline.storage.postgres.embedded import embedded_server
print(embedded_server(Path(sys.argv[1])).socket_folder, flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def initialised(open_folder: Path) -> Path:
    """The home of a server that has been started and stopped once."""
    folder = open_folder / "initialised"
    server = EmbeddedServer(folder)
    server.claim()
    server.release()
    return folder


@pytest.fixture
def home(new_home: Path, initialised: Path) -> Path:
    """A home of its own like that."""
    subprocess.run(["cp", "-a", f"{initialised}/.", str(new_home)], check=True)
    new_home.chmod(0o755)
    return new_home


@pytest.fixture
def new_home() -> Iterator[Path]:
    """An empty one."""
    folder = Path(tempfile.mkdtemp(prefix="btp-"))
    folder.chmod(0o755)
    yield folder
    for process in psutil.process_iter(["cmdline"]):
        if str(folder / "postgres" / "data") in (process.info["cmdline"] or ()):
            process.kill()
    shutil.rmtree(folder)


class Process:
    """Another process that uses the server until it is told to leave."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _USER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def socket(self) -> str:
        return _open(self._process.stdout).readline().strip()

    def leave(self) -> None:
        _open(self._process.stdin).close()
        assert self._process.wait(LIMIT_S) == 0
        _open(self._process.stdout).close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(LIMIT_S)
        _open(self._process.stdin).close()
        _open(self._process.stdout).close()


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def ask(socket: str | Path, query: LiteralString) -> object:
    with psycopg.connect(host=str(socket), user="postgres", dbname="postgres") as connection:
        row = connection.execute(query).fetchone()
    return row and row[0]


def postmaster(home: Path) -> psutil.Process:
    number = (home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0]
    return psutil.Process(int(number))


def kill_server(home: Path) -> None:
    server = postmaster(home)
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.kill()
    while any(alive(process) for process in family):
        time.sleep(0.01)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # nobody may reap it, without an init
    except psutil.NoSuchProcess:
        return False


def test_processes_share_one_server_and_the_last_one_out_stops_it(new_home: Path) -> None:
    processes = [Process(new_home) for _ in range(3)]
    sockets = {process.socket for process in processes}
    assert len(sockets) == 1
    socket = sockets.pop()
    for process in processes[:2]:
        process.leave()
    assert ask(socket, "SELECT 1") == 1
    processes[2].leave()
    with pytest.raises(psycopg.OperationalError):
        ask(socket, "SELECT 1")


def test_a_killed_process_does_not_keep_the_server_running(home: Path) -> None:
    killed, other = Process(home), Process(home)
    socket = killed.socket
    assert other.socket == socket
    killed.kill()
    other.leave()
    with pytest.raises(psycopg.OperationalError):
        ask(socket, "SELECT 1")


def test_what_was_committed_survives_a_kill_of_everything(home: Path) -> None:
    for round_ in range(2):
        process = Process(home)
        socket = process.socket
        with psycopg.connect(host=socket, user="postgres", dbname="postgres") as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (round INTEGER)")
            connection.execute("INSERT INTO kept VALUES (%s)", [round_])
        kill_server(home)
        process.kill()
    server = EmbeddedServer(home)
    server.claim()
    assert ask(server.socket_folder, "SELECT array_agg(round ORDER BY round) FROM kept") == [0, 1]
    server.release()


def test_a_stale_number_that_another_process_has_now_is_not_believed(home: Path) -> None:
    process = Process(home)
    assert process.socket
    kill_server(home)
    process.kill()
    data = home / "postgres" / "data"
    lines = (data / "postmaster.pid").read_text().splitlines()
    (data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    server = EmbeddedServer(home)
    server.claim()
    assert ask(server.socket_folder, "SELECT 1") == 1
    server.release()


def test_a_server_that_outlived_its_users_is_used_again(home: Path) -> None:
    process = Process(home)
    assert process.socket
    number = postmaster(home).pid
    process.kill()
    server = EmbeddedServer(home)
    server.claim()
    assert postmaster(home).pid == number
    server.release()


def test_a_restarting_server_is_waited_for(home: Path) -> None:
    server = EmbeddedServer(home)
    server.claim()
    postmaster(home).send_signal(signal.SIGINT)  # a fast shutdown under our feet
    again = EmbeddedServer(home)
    again.claim()
    assert ask(again.socket_folder, "SELECT 1") == 1
    server.release()
    assert ask(again.socket_folder, "SELECT 1") == 1
    again.release()


def _read_by_arrow(database: Database) -> None:
    with database.arrow() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")


READS: dict[str, Callable[[Database], object]] = {
    "statement": lambda database: scalar(database, "SELECT 1"),
    "arrow": _read_by_arrow,
    "ping": Database.ping,  # as /readyz does
}


def test_whoever_reads_restarts_a_server_that_has_died(home: Path) -> None:
    settings = load_settings(run_store_mode="embedded", home=home)
    database = open_database(settings)
    for read in READS.values():
        read(database)
    for read in READS.values():
        kill_server(home)
        read(database)
    kill_server(home)
    open_database(settings).close()
    database.close()
    embedded_server(home).release()


def test_a_process_that_is_about_to_end_does_not_start_it_again(home: Path) -> None:
    server = EmbeddedServer(home)
    server.claim()
    server.end()
    with pytest.raises(StoreUnavailable, match="about to end"):
        server.revive()
    with pytest.raises(FileNotFoundError):
        postmaster(home)
    again = EmbeddedServer(home)
    again.claim()
    assert ask(again.socket_folder, "SELECT 1") == 1
    again.release()


def test_a_killed_initialisation_is_begun_anew(new_home: Path) -> None:
    server = EmbeddedServer(new_home)
    (new_home / "postgres" / "data.partial").mkdir(parents=True)
    (new_home / "postgres" / "data.partial" / "PG_VERSION").write_text("18\n")
    server.claim()
    assert ask(server.socket_folder, "SELECT 1") == 1
    server.release()


def test_a_home_too_deep_for_a_socket_gets_a_short_private_folder(new_home: Path) -> None:
    server = EmbeddedServer(new_home / ("deep" * 10) / ("deeper" * 10))
    server.claim()
    assert ask(server.socket_folder, "SELECT 1") == 1
    assert not server.socket_folder.is_relative_to(new_home)
    assert server.socket_folder.stat().st_mode & 0o077 == 0
    server.release()
    shutil.rmtree(server.socket_folder)


def test_the_server_listens_on_no_network_and_commits_are_durable(new_home: Path) -> None:
    server = EmbeddedServer(new_home)
    server.claim()
    assert ask(server.socket_folder, "SHOW listen_addresses") == ""
    assert ask(server.socket_folder, "SHOW synchronous_commit") == "on"
    assert ask(server.socket_folder, "SHOW fsync") == "on"
    assert (new_home / "postgres").stat().st_mode & 0o077 == 0
    server.release()


def test_data_of_another_release_is_refused_by_name(new_home: Path) -> None:
    data = new_home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match="created by PostgreSQL 16"):
        EmbeddedServer(new_home).claim()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(home: Path) -> None:
    server = EmbeddedServer(home)
    server.claim()
    server.release()
    with (home / "postgres" / "data" / "postgresql.conf").open("a") as configuration:
        configuration.write("nonsense_setting = 1\n")
    with pytest.raises(StoreUnavailable, match="nonsense_setting"):
        EmbeddedServer(home).claim()


def test_a_server_of_an_older_release_gets_the_settings_of_this_one(home: Path) -> None:
    data = home / "postgres" / "data"
    (data / "backtest_pipeline.conf").unlink()
    lines = (data / "postgresql.conf").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("include 'backtest")]
    (data / "postgresql.conf").write_text("\n".join([*kept, "max_wal_size = 4GB", ""]))
    server = EmbeddedServer(home)
    server.claim()
    assert ask(server.socket_folder, "SHOW max_wal_size") == "256MB"
    assert ask(server.socket_folder, "SHOW wal_level") == "minimal"
    server.release()
