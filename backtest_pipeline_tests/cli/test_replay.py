"""`replay` and `explain-diff`: what they print, and how they end."""

from __future__ import annotations

import pytest

import backtest_pipeline
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.sql import execute_sql


def stored(cli: CommandLine, *arguments: str) -> str:
    answer = cli("run", "--signal", "ema_9_21", "--asset", "S-ALPHA", *arguments, "--json")
    assert answer.code == 0, answer.err
    return answer.json["run_id"]


def test_runs_are_replayed_compared_and_set_apart(cli: CommandLine) -> None:
    plain = stored(cli)
    dear = stored(cli, "--fee-bps", "30", "--start", "2022-01-01")
    same = cli("replay", plain[:8], dear)
    assert same.code == 0, same.err
    assert same.out.count("same result, bit for bit") == 2
    assert "the code that made the run, code/" in same.out

    explained = cli("explain-diff", plain, dear[:8])
    assert explained.code == 0, explained.err
    assert "data: equal" in explained.out
    assert "costs.fee_bps: 10.0 -> 30.0" in explained.out
    assert "explains the whole difference between A and B" in explained.out
    assert "explained by config" in explained.out

    execute_sql(cli, "UPDATE backtest_trades SET fees = 0 WHERE trade_no = 2")
    differs = cli("replay", dear, "--json")
    assert differs.code == 1
    (found,) = differs.json["runs"]
    assert (found["verdict"], found["quarantine"]) == ("differs", "set")
    assert "fees is 0.0 stored" in found["differences"][0]

    as_json = cli.json("explain-diff", plain, plain)
    assert as_json["movers"] == []
    assert as_json["remainder"] == []
    answer = backtest_pipeline.replay(plain, code="installed")
    assert answer.verdict == "differs"
    assert "fees" in answer.differences[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("replay", "0123abcd"), "unknown run '0123abcd'; there are none yet"),
        (("replay", "x", "--code", "instaled"), "did you mean installed"),
        (("explain-diff", "a", "b"), "unknown run 'a'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_message(
    cli: CommandLine, arguments: tuple[str, ...], message: str
) -> None:
    answer = cli(*arguments)
    assert answer.code == 1
    assert message in answer.message
    assert "Traceback" not in answer.err
