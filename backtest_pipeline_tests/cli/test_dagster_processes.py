"""`code-server`, `webserver` and `daemon` refuse what is unsafe or wrong, and `health` says why."""

from __future__ import annotations

import signal
from contextlib import closing

import pytest

from backtest_pipeline.storage.postgres.session_lock import (
    CODE_SERVER_LOCK,
    DAEMON_LOCK,
    SessionLock,
)
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.ports import free_port


@pytest.mark.parametrize("command", ["code-server", "webserver"])
def test_they_are_for_this_machine_alone_unless_told_otherwise(
    cli: CommandLine, command: str
) -> None:
    answer = cli(command, "--host", "0.0.0.0", "--port", "4000")  # noqa: S104
    assert answer.code == 1
    assert "can be reached from other machines" in answer.message
    assert "--allow-remote" in answer.message


@pytest.mark.parametrize("command", ["webserver", "daemon"])
def test_a_code_server_is_named_by_host_and_port(cli: CommandLine, command: str) -> None:
    answer = cli(command, "--code-server", "code-location")
    assert answer.code == 1
    assert answer.message == "a code server is named as HOST:PORT, not as 'code-location'"


@pytest.mark.parametrize(
    ("command", "lock"), [("daemon", DAEMON_LOCK), ("code-server", CODE_SERVER_LOCK)]
)
def test_what_an_edited_file_lacks_is_said(cli: CommandLine, command: str, lock: str) -> None:
    path = load_settings().home / "dagster" / "dagster.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("telemetry: { enabled: false }\n")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with closing(SessionLock(cli.database, lock)):  # so that it ends
            answer = cli(command)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert answer.code == 1
    assert f"{path} has been edited and stays so, but it lacks run_storage" in answer.out


def test_health_says_what_is_not_there(cli: CommandLine) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    assert cli("health", "code-server", "--at", nowhere).message == (
        f"code-server: it does not respond at {nowhere} (UNAVAILABLE)"
    )
    assert "webserver: it has not been started with this home" in cli("health", "webserver").message
    answer = cli("health", "daemon")
    assert (answer.code, answer.message) == (1, "daemon: no daemon has run on this store yet")
