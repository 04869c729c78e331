"""`backtest-pipeline pool`: what it refuses, and the certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtest_pipeline.pipeline.pools.tls import make_certificates
from backtest_pipeline_tests.cli.conftest import CommandLine


def test_certificates_are_made_once(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tls"
    first, second = cli("pool", "certificates", folder), cli("pool", "certificates", folder)
    assert (first.code, second.code) == (0, 0)
    assert f"{folder}: made; set BACKTEST_POOL_TLS" in first.out
    assert f"{folder}: there already; set BACKTEST_POOL_TLS" in second.out
    monkeypatch.chdir(tmp_path)
    assert f"{folder}: there already" in cli("pool", "certificates", "tls").out
    (tmp_path / "file").touch()
    assert "cannot write" in cli("pool", "certificates", tmp_path / "file").message


def test_a_scheduler_without_tls_is_refused_where_others_reach_it(cli: CommandLine) -> None:
    answer = cli("pool", "scheduler", "--host", "0.0.0.0")  # noqa: S104
    assert answer.code != 0
    assert "0.0.0.0 can be reached from other hosts, and without TLS" in answer.message


def test_workers_and_status_need_the_address(cli: CommandLine) -> None:
    for command in ("worker", "status"):
        answer = cli("pool", command)
        assert answer.code != 0
        assert answer.message.startswith("BACKTEST_POOL_ADDRESS is not set; give it")


def test_the_doctor_looks_at_certificates_where_there_are_or_must_be_some(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_POOL_TLS", str(tmp_path))  # Compose always names a folder
    monkeypatch.setenv("BACKTEST_POOL_ADDRESS", "tls://scheduler:8786")
    assert "certificates of the pool" not in cli("doctor").out
    make_certificates(tmp_path)  # as on a host that has workers or the scheduler alone
    assert "certificates of the pool" in cli("doctor").out
    (tmp_path / "ca.pem").unlink()
    monkeypatch.setenv("BACKTEST_POOL", "dask")
    assert "ca.pem is missing" in cli("doctor").out
