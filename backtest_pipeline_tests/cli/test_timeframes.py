"""Timeframes are listed, added, refreshed, run and removed."""

from __future__ import annotations

from typing import Any

import pytest

from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.sql import column, execute_sql


def listed(cli: CommandLine) -> dict[str, dict[str, Any]]:
    return {row["timeframe"]: row for row in cli.json("timeframes", "list")["timeframes"]}


def test_an_added_timeframe_is_refreshed_run_and_kept_while_stored(cli: CommandLine) -> None:
    refused = cli("refresh", "--assets", "S-ALPHA", "--timeframes", "7D")
    assert refused.code == 1
    assert "timeframes add 7D" in " ".join(refused.message.split())
    assert "timeframe 7D is added" in cli("timeframes", "add", "7d").out
    row = listed(cli)["7D"]
    assert row == {
        "timeframe": "7D",
        "definition": "7 days",
        "days": 7.0,
        "origin": "added",
        "refreshed": True,
        "assets": 0,
    }
    assert cli("refresh", "--assets", "S-ALPHA", "--timeframes", "7D,1D").code == 0
    assert listed(cli)["7D"]["assets"] == 1
    run = cli.json("run", "--strategy", "rsi", "--asset", "S-ALPHA", "--tf", "7d")
    assert run["timeframe"] == "7D"
    kept = cli("timeframes", "remove", "7D")
    assert kept.code == 1
    assert "7D cannot be removed: bars or results of it are stored" in kept.message
    assert column(cli, "SELECT tf FROM dim_timeframe WHERE is_refreshed") == ["7D"]


def test_a_timeframe_need_not_be_added_for_a_run(cli: CommandLine) -> None:
    run = cli.json("run", "--strategy", "rsi", "--asset", "S-ALPHA", "--tf", "1q")
    assert run["timeframe"] == "1Q"
    assert not listed(cli)["1Q"]["refreshed"]


def test_what_is_not_stored_is_removed(cli: CommandLine) -> None:
    for name in ("21D", "45D"):
        assert cli("timeframes", "add", name).code == 0
        assert listed(cli)[name]["refreshed"]
        assert f"timeframe {name} is removed" in cli("timeframes", "remove", name).out
    assert "21D" not in listed(cli)
    assert (listed(cli)["45D"]["origin"], listed(cli)["45D"]["refreshed"]) == ("shipped", False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "1X"), "unknown timeframe '1X'; did you mean"),
        (("add", "1m_cal"), "unknown timeframe '1m_cal'; did you mean 1M_CAL"),
        (("remove", "1D"), "1D is one of BACKTEST_TIMEFRAMES; take it out of the setting instead"),
        (("remove", "77D"), "unknown timeframe of this store '77D'"),
    ],
)
def test_what_cannot_be_added_or_removed(
    cli: CommandLine, arguments: tuple[str, ...], message: str
) -> None:
    answer = cli("timeframes", *arguments)
    assert answer.code == 1
    assert message in answer.message


def test_a_row_that_contradicts_its_name_is_named(cli: CommandLine) -> None:
    assert cli("timeframes", "add", "14D").code == 0
    execute_sql(cli, "UPDATE dim_timeframe SET tf_qty = 7 WHERE tf = '14D'")
    answer = cli("timeframes", "list")
    assert "dim_timeframe says of 14D that tf_qty = 7, not 14" in " ".join(answer.out.split())
    refused = cli("run", "--strategy", "rsi", "--asset", "S-ALPHA", "--tf", "14D")
    assert refused.code == 1
    assert "tf_qty = 7, not 14" in refused.message
