"""A store, a schema or a folder that cannot be used, and settings that make no sense."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from psycopg.conninfo import make_conninfo

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.other_schemas import OtherSchema

RUN = ("run", "--signal", "rsi", "--asset", "S-ALPHA")
COMMANDS = (RUN, ("refresh", "--assets", "S-ALPHA", "--timeframes", "1D"), ("migrate",))
SECRET = "hunter2"  # noqa: S105


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BACKTEST_RUN_STORE_MODE", "mysql", "must be 'embedded' or 'postgres'"),
        ("BACKTEST_POSTGRES_DSN", "", "is required if BACKTEST_RUN_STORE_MODE=postgres"),
        ("BACKTEST_POSTGRES_DSN", f"host = = {SECRET}", "is not a valid connection string; write"),
        ("BACKTEST_TIMEFRAMES", "1D,2X", "unknown timeframe '2X'; did you mean"),
        ("BACKTEST_HOME", "some/where", "must be an absolute folder, not 'some/where'"),
        (
            "BACKTEST_ARTIFACTS_URL",
            "ftp://bucket",
            "ftp:// is not supported; give an",
        ),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    for command in (*COMMANDS, ("doctor",)):
        answer = cli(*command)
        assert answer.code == 1
        told = answer.out + answer.message
        assert f"{variable}: " in told
        assert message in told
        assert SECRET not in answer.out + answer.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"host": "127.0.0.1", "port": "1", "user": "u"},
            "check that the server is running and that BACKTEST_POSTGRES_DSN is correct",
        ),
        ({"user": "nobody_here"}, "user name or password refused; check BACKTEST_POSTGRES_DSN"),
        ({"dbname": "no_such"}, "no such database; create it, or correct BACKTEST_POSTGRES_DSN"),
    ],
)
def test_a_database_that_does_not_answer_or_refuses_is_named(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, words: dict[str, str], message: str
) -> None:
    dsn = make_conninfo(cli.database.conninfo, password=SECRET, **words)
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", dsn)
    for command in COMMANDS:
        answer = cli(*command)
        assert (answer.code, answer.out) == (1, "")
        assert message in answer.message
        assert SECRET not in answer.err


def test_a_schema_that_is_not_migrated_is_told_to_migrate_and_left_alone(
    cli: CommandLine, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", empty_database.conninfo)
    for command in COMMANDS[:2]:
        answer = cli(*command)
        assert (answer.code, answer.out) == (1, "")
        assert "the schema is missing baseline/01_dimensions.sql" in answer.message
        assert answer.message.endswith("run `backtest-pipeline migrate`")
    migrated = cli("migrate")
    assert migrated.code == 0
    assert migrated.out.startswith("applied baseline/01_dimensions.sql")
    assert "applied" not in cli("migrate").out
    assert cli(*RUN).code == 0


def test_a_store_of_another_schema_is_refused_with_one_sentence_and_left_alone(
    cli: CommandLine,
    other_schema: OtherSchema,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", other_schema.database.conninfo)
    gates = tmp_path / "gates.json"
    gates.write_text('[{"name": "trades", "metric": "trade_count", "at_least": 100}]')
    symbol, run = ("--asset", "S-ALPHA"), str(UUID(int=1))
    before = other_schema.contents()
    for command in (
        *COMMANDS,
        ("demo",),
        ("robustness", "--signal", "rsi", *symbol),
        ("walk-forward", "--signal", "rsi", *symbol),
        ("explore", "rsi", *symbol),
        ("trials", *symbol),
        ("look-ahead",),
        ("restatements",),
        ("leaderboard",),
        ("negative-controls", "--searches", "1"),
        ("register-gates", "strict", str(gates)),
        ("replay", run),
        ("explain-diff", run, str(UUID(int=2))),
        ("runs", "list"),
        ("retention",),
        ("jobs", "list"),
        ("keys", "list"),
        ("serve", "--no-auth", "--port", "0"),
        ("up", "--port", "0"),
    ):
        answer = cli(*command)
        assert (command, answer.code, answer.message) == (command, 1, other_schema.sentence)
        assert "Traceback" not in answer.err
    assert other_schema.contents() == before


@pytest.mark.parametrize("place", ["file", "/proc/artifacts"])
def test_an_artifact_folder_that_cannot_be_written_is_named(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", str(tmp_path / place))
    before = cli.stored()
    for command in COMMANDS[:2]:
        answer = cli(*command)
        assert (answer.code, answer.out) == (1, "")
        assert f"the artifact folder {tmp_path / place} is not writable" in answer.message
        assert "set BACKTEST_ARTIFACTS_URL to another folder" in answer.message
    assert cli.stored() == before


def test_a_home_that_cannot_be_created_is_named(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "embedded")
    monkeypatch.setenv("BACKTEST_HOME", str(tmp_path / "file" / "home"))
    for command in COMMANDS:
        answer = cli(*command)
        assert (answer.code, answer.out) == (1, "")
        assert f"BACKTEST_HOME={tmp_path}/file/home" in answer.message
        assert "set BACKTEST_HOME to a folder that you can write" in answer.message
