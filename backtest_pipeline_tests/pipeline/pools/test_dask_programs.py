"""The commands of scheduler and workers, and what they are told."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.pipeline.pools.dask_programs import scheduler_program, worker_program
from backtest_pipeline.pipeline.pools.environment import PRELOAD
from backtest_pipeline.pipeline.pools.tls import make_certificates


@pytest.fixture
def certificates(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
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
    assert dict(pairwise(command))["--dashboard-address"] == "127.0.0.1:0"
    assert told["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
    profile = "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"
    assert told[profile] == "False"
    monkeypatch.setenv(profile, "True")
    assert profile not in scheduler_program("127.0.0.1", 8786)[1]
    with pytest.raises(ConfigurationError, match="BACKTEST_POOL_ADDRESS is not set"):
        worker_program()
    monkeypatch.setenv("BACKTEST_POOL_ADDRESS", "tls://scheduler:8786")
    monkeypatch.setenv("BACKTEST_POOL_WORKERS", "3")
    command, _ = worker_program(8790)
    pairs = dict(pairwise(command))
    assert pairs["--dashboard-address"] == "127.0.0.1:8790"
    assert (pairs["--nworkers"], pairs["--nthreads"]) == ("3", "1")
    assert (pairs["--protocol"], "tls://scheduler:8786" in command) == ("tls", True)
    command, _ = worker_program(8790)
    assert dict(pairwise(command))["--dashboard-address"] == "127.0.0.1:8790"


def test_without_tls_workers_listen_on_this_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTEST_POOL_ADDRESS", "tcp://127.0.0.1:8786")
    command, _ = worker_program()
    assert dict(pairwise(command))["--host"] == "127.0.0.1"


@pytest.mark.usefixtures("certificates")
def test_an_address_without_tls_does_not_fit_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTEST_POOL_ADDRESS", "tcp://127.0.0.1:8786")
    with pytest.raises(ConfigurationError, match="scheduler listens at tls://"):
        worker_program()


def test_a_worker_that_is_none_of_ours_ends_before_it_registers() -> None:
    nowhere = "tcp://127.0.0.1:9"  # it would be told of if it had come so far
    how = (*("--nthreads", "2"), "--no-nanny", "--no-dashboard", *("--preload", PRELOAD))
    command = (sys.executable, "-m", "distributed.cli.dask_worker", nowhere, *how)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "this worker does not start: a worker does one piece of work" in ended.stderr
    assert "Traceback" not in ended.stderr
