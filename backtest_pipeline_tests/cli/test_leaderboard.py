"""`leaderboard`, `negative-controls` and `register-gates`: what they print, refuse and store."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.sql import count, execute_sql

GATES = [{"name": "trades", "metric": "trade_count", "at_least": 5}]
FEW = ("negative-controls", "--searches", "20", "--bars", "300")


def refreshed(cli: CommandLine) -> None:
    answer = cli("refresh", "--assets", "S-ALPHA", "--timeframes", "1D,1W")
    assert answer.code == 0, answer.err


def test_the_board_and_the_controls_are_printed_after_one_refresh(
    cli: CommandLine, tmp_path: Path
) -> None:
    refreshed(cli)
    answer = cli("leaderboard", "--limit", "3")
    assert answer.code == 0, answer.err
    assert "Leaderboard by deflated Sharpe ratio" in answer.out
    assert "pass every gate of 'default'" in answer.out
    found = cli.json("leaderboard", "--scheme", "balanced", "--tf", "1D", "--limit", "4")
    assert [row["timeframe"] for row in found["runs"]] == ["1D"] * 4
    scores = [row["balanced"] for row in found["runs"]]
    assert scores == sorted(scores, reverse=True)
    assert found["ranked"] + found["unranked"] == 12
    assert found["registered_after_results"] is False

    file = tmp_path / "gates.json"
    file.write_text(json.dumps(GATES))
    assert "easy: 1 gates, registered" in cli("register-gates", "easy", file).out
    refused = cli("leaderboard", "--gates", "easy")
    assert refused.code == 1
    assert "prove nothing" in refused.message
    late = cli("leaderboard", "--gates", "easy", "--late-gates")
    assert late.code == 0
    assert "registered after results were known" in late.out

    controlled(cli)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("leaderboard",), "there is no ranked run; run `backtest-pipeline refresh` first"),
        (("leaderboard", "--scheme", "balance"), "did you mean balanced"),
        (("leaderboard", "--tf", "1DD"), "did you mean 1D"),
        (("leaderboard", "--gates", "x"), "unknown gate set 'x'"),
        (("negative-controls",), "no asset has 100 stored bars at 1D"),
        (("negative-controls", "--searches", "0"), "draws must be"),
        (("register-gates", "x", "/nowhere.json"), "/nowhere.json"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_message(
    cli: CommandLine, arguments: tuple[str, ...], message: str
) -> None:
    answer = cli(*arguments)
    assert answer.code == 1
    assert message in answer.message
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ("{}", "must hold a list of gates"),
        ("[]", "at least one gate"),
        ('[{"name": "a", "metric": "shrpe", "at_least": 1}]', "did you mean sharpe"),
    ],
)
def test_files_that_hold_no_gates_are_refused(
    cli: CommandLine, tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "gates.json"
    file.write_text(content)
    answer = cli("register-gates", "mine", file)
    assert answer.code == 1
    assert message in answer.message
    assert count(cli, "gate_sets") == 1


def controlled(cli: CommandLine) -> None:
    """The false-positive rate is printed, and one that is too high is an error."""
    answer = cli(*FEW)
    assert answer.code == 0, answer.err
    assert "False positives in markets without an edge" in answer.out
    planted = cli(*FEW, "--planted", "3")
    assert planted.code == 0, planted.err
    assert "Power: markets with a planted edge" in planted.out
    assert " ± " in planted.out
    power = cli.json(*FEW, "--planted", "1, 3")["power"]
    assert [row["true_sharpe"] for row in power] == [1, 1, 3, 3]
    assert "such as 1,2,3, not 'one'" in cli(*FEW, "--planted", "one").message
    found = cli.json(*FEW)
    assert found["power"] == []
    assert [row["world"] for row in found["worlds"]] == ["random_walk", "shuffled_bars"]
    assert all(row["rate"] <= 0.05 < row["best_by_psr"] for row in found["worlds"])
    execute_sql(cli, "UPDATE negative_controls SET rate = 0.06, upper_bound = 0.2")
    alarmed = cli(*FEW)
    assert alarmed.code == 1
    assert "more than 5% false positives" in alarmed.message


def test_what_a_command_stores_of_an_asset_is_reported_to_dagster(cli: CommandLine) -> None:
    refreshed(cli)
    board = cli.json("leaderboard")["board_id"]
    assert cli("restatements").code == 0
    assert cli("retention", "--dry-run").code == 0
    with open_instance(load_settings(), cli.database) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("leaderboard"))
        assert event is not None
        assert (event.tags or {})["dagster/data_version"] == board
        assert instance.get_latest_materialization_event(dg.AssetKey("restatements")) is not None
        assert instance.get_latest_materialization_event(dg.AssetKey("retention")) is None
