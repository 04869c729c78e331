"""`backtest-pipeline look-ahead`."""

from __future__ import annotations

from backtest_pipeline_tests.cli.conftest import CommandLine


def test_what_is_stored_is_probed_and_the_verdict_printed(cli: CommandLine) -> None:
    nothing = cli("look-ahead")
    assert (nothing.code, nothing.out.strip()) == (
        0,
        "nothing tested: no features are stored; refresh them first",
    )
    assert cli("run", "--signal", "ema_9_21", "--asset", "S-BETA", "--tf", "3D").code == 0
    found = cli("look-ahead", "--cuts", "3")
    assert found.code == 0, found.err
    assert "no look-ahead; features and signals from source bars: 1 partitions, 9" in found.out
    told = cli.json("look-ahead", "--seed", "7", "--timeframes", "3D")
    assert (told["leaks"], told["futures"], told["seed"]) == ([], 18, 7)
    wrong = cli("look-ahead", "--assets", "S-BET")
    assert (wrong.code, wrong.message) == (1, "unknown stored asset 'S-BET'; did you mean S-BETA?")
