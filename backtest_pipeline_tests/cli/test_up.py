"""`doctor`: what it prints, and its exit code; what `up` and `serve` refuse at once."""

from __future__ import annotations

import signal
import socket
from contextlib import closing

import pytest

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.migrations import schema_files
from backtest_pipeline.storage.postgres.session_lock import DAEMON_LOCK, SessionLock
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.other_schemas import OtherSchema
from backtest_pipeline_tests.sql import execute_sql


def test_a_sound_set_up_leaves_with_0(cli: CommandLine) -> None:
    answer = cli("doctor")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("ok   variables", "ok   settings", "ok   service settings"),
        *("ok   language model settings", "ok   notice settings"),
        *("ok   database", "ok   server version", "ok   schema"),
        *("ok   dagster storage", "ok   dagster runs", "ok   second opinion"),
        *("ok   artifacts", "ok   artifact root", "ok   disk space", "ok   dagster settings"),
    ]
    migrations = sum(not file.in_baseline for file in schema_files())
    assert lines[7] == f"ok   schema: baseline and {migrations} migrations applied"


def test_stored_metrics_that_were_edited_are_found_if_asked_to_look_deep(
    cli: CommandLine,
) -> None:
    assert cli("run", "--asset", "S-ALPHA", "--signal", "ema_9_21").code == 0
    sound = cli("doctor", "--deep")
    assert (sound.code, sound.out.splitlines()[-1]) == (
        0,
        "ok   stored metrics: those of 1 run follow from their trades and equity",
    )
    execute_sql(cli, "UPDATE backtest_metrics SET sharpe = 9.99")
    assert cli("doctor").code == 0
    edited = cli("doctor", "--deep")
    assert (edited.code, edited.message) == (1, "needs fixing: stored metrics")
    assert "backtest_metrics: sharpe is 9.99, but its trades and equity give " in edited.out


def test_a_broken_part_leaves_with_1_and_says_how_to_mend_it(
    cli: CommandLine, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", empty_database.conninfo)
    answer = cli("doctor")
    assert answer.code == 1
    assert "fail schema: " in answer.out
    assert answer.out.count("     fix: run `backtest-pipeline migrate`\n") == 2
    assert answer.message == "needs fixing: schema, dagster storage"


def test_a_store_of_another_schema_is_named_with_what_to_do(
    cli: CommandLine, other_schema: OtherSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", other_schema.database.conninfo)
    before = other_schema.contents()
    answer = cli("doctor")
    assert answer.code == 1
    detail, _, mend = other_schema.sentence.rpartition("; ")
    assert f"fail schema: {detail}\n     fix: {mend}\n" in answer.out
    assert other_schema.contents() == before


def test_an_error_is_not_its_own_remedy(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTEST_HOME", "some/where")
    answer = cli("doctor")
    assert answer.out.splitlines()[1:3] == [
        "fail settings: BACKTEST_HOME: must be an absolute folder, not 'some/where'",
        "     fix: correct the setting or unset it",
    ]


def test_all_variables_that_are_mistyped_or_make_no_sense_are_named(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "ARTIFACT_URL": "/elsewhere",
        "SERVICE_PROT": "8001",
        "SERVICE_RATE_PER_MINUTE": "many",
        "OIDC_ISSUER": "http://issuer.example",
        "CACHE_MAX_GB": "-1",
        "LLM_MODEL": "gpt",
    }.items():
        monkeypatch.setenv(f"BACKTEST_{name}", value)
    answer = cli("doctor")
    assert answer.code == 1
    kinds = ("variables", "settings", "service settings", "language model settings")
    assert answer.message == f"needs fixing: {', '.join(kinds)}"
    mistyped, settings, service, models = (
        [line for line in answer.out.splitlines() if line.startswith(f"fail {name}: ")]
        for name in kinds
    )
    assert [line.removeprefix("fail variables: ") for line in mistyped] == [
        "BACKTEST_ARTIFACT_URL is not a setting; did you mean BACKTEST_ARTIFACTS_URL?",
        "BACKTEST_SERVICE_PROT is not a setting; did you mean BACKTEST_SERVICE_PORT?",
    ]
    assert "BACKTEST_CACHE_MAX_GB: must be above 0" in settings[0]
    assert "BACKTEST_SERVICE_RATE_PER_MINUTE: must be a whole number" in service[0]
    assert "BACKTEST_OIDC_ISSUER: must be an https address" in service[0]
    assert "BACKTEST_LLM_MODEL: must be PROVIDER:MODEL with one of" in models[0]


def test_a_command_warns_once_of_a_mistyped_variable_and_goes_on(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_TIMEFRAME", "1D")
    for command in (("jobs", "list"), ("runs", "list", "--json")):
        answer = cli(*command)
        assert answer.code == 0, answer.err
        warning = "BACKTEST_TIMEFRAME is not a setting; did you mean BACKTEST_TIMEFRAMES?"
        assert answer.err.count(warning) == 1
        assert "BACKTEST_TIMEFRAME" not in answer.out


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_used_port_is_named_before_the_store_is_opened(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", "postgresql://u@127.0.0.1:1/nowhere")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = cli(command, "--port", str(port))
    assert answer.code == 1
    assert answer.message.startswith(f"127.0.0.1:{port} is in use by another process; ")


def test_up_is_for_this_machine_alone_unless_told_otherwise(cli: CommandLine) -> None:
    answer = cli("up", "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    assert answer.code == 1
    assert "can be reached from other machines" in answer.message
    assert "--allow-remote" in answer.message


def test_a_second_up_on_one_store_is_refused(cli: CommandLine) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with closing(SessionLock(cli.database, DAEMON_LOCK)):
            answer = cli("up", "--port", "0")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert answer.code == 1
    assert "another process is the Dagster daemon of this store" in answer.message
