"""`doctor`: what it prints, and its exit code."""

from __future__ import annotations

import pytest

from backtest_pipeline.storage.database import Database
from backtest_pipeline.storage.migrations import schema_files
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.other_schemas import OtherSchema


def test_a_sound_set_up_leaves_with_0(cli: CommandLine) -> None:
    answer = cli("doctor")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("ok   settings", "ok   database", "ok   server version", "ok   schema"),
        *("ok   dagster storage", "ok   artifacts", "ok   disk space"),
    ]
    migrations = sum(not file.in_baseline for file in schema_files())
    assert lines[3] == f"ok   schema: baseline and {migrations} migrations applied"


def test_a_broken_part_leaves_with_1_and_says_how_to_mend_it(
    cli: CommandLine, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", empty_database.conninfo)
    answer = cli("doctor")
    assert answer.code == 1
    assert "fail schema: " in answer.out
    assert answer.out.count("     mend: run `backtest-pipeline migrate`\n") == 2
    assert answer.message == "to be mended: schema, dagster storage"


def test_a_store_of_another_schema_is_named_with_what_to_do(
    cli: CommandLine, other_schema: OtherSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", other_schema.database.conninfo)
    before = other_schema.contents()
    answer = cli("doctor")
    assert answer.code == 1
    detail, _, mend = other_schema.sentence.rpartition("; ")
    assert f"fail schema: {detail}\n     mend: {mend}\n" in answer.out
    assert other_schema.contents() == before


def test_an_error_is_not_its_own_remedy(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTEST_HOME", "some/where")
    answer = cli("doctor")
    assert answer.out.splitlines() == [
        "fail settings: BACKTEST_HOME: must be an absolute folder, not 'some/where'",
        "     mend: correct the setting, or unset it",
    ]
