"""`backtest-pipeline strategies` and `presets`, from an empty folder to a walk-forward."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.own_strategies import DIP, write


@pytest.fixture
def folder(cli: CommandLine, tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path / "home" / "strategies"


def test_a_new_strategy_is_checked_run_and_walked_forward(cli: CommandLine, folder: Path) -> None:
    answer = cli("strategies", "new", "swing")
    assert answer.code == 0
    assert answer.out.splitlines()[0] == f"{folder}/swing.toml"
    answer = cli("strategies", "check", "swing")
    assert answer.code == 0
    assert "swing: no look-ahead found" in answer.out
    run = cli.json("run", "--strategy", "swing", "--asset", "S-ALPHA")
    assert run["strategy"] == "swing"
    assert run["metrics"]["trade_count"] > 3
    walked = cli.json("walk-forward", "--strategy", "swing", "--asset", "S-ALPHA")
    assert walked["strategy"] == "swing"
    assert "swing_20_10" in [p["preset"] for p in cli.json("presets", "list")["presets"]]


def test_a_copy_of_a_shipped_strategy_gives_the_same_metrics(
    cli: CommandLine, folder: Path
) -> None:
    assert cli("strategies", "new", "mine", "--from", "rsi").code == 0
    for name in ("mine", "rsi_mean_revert"):
        shown = cli.json("strategies", "show", name)
        assert shown["columns"] == ["rsi_14"]
        assert shown["parameters"]["lower"] == {"default": 30.0, "above": 0, "below": 100}
        assert shown["account"] == {}
    assert cli.json("strategies", "show", "atr")["account"] == {"stops": {"trailing_atr": 2.0}}
    assert "names none: trailing_atr 2.0" in cli("strategies", "show", "atr").out
    mine, shipped = (
        cli.json("run", "--strategy", name, "--asset", "S-ALPHA") for name in ("mine", "rsi")
    )
    assert mine["metrics"]["total_return"] == shipped["metrics"]["total_return"]
    assert mine["run_id"] != shipped["run_id"]
    walked = [
        cli.json("walk-forward", "--strategy", name, "--asset", "S-ALPHA")["n_walk_forwards"]
        for name in ("mine", "rsi")
    ]
    assert walked == [1, 2]  # two strategies with the same parameters are two


def test_what_is_wrong_is_said_at_its_place(cli: CommandLine, folder: Path) -> None:
    write(folder, "wrong.toml", 'name = "wrong"\nlong_entry = "close > ema_2oo"\n')
    write(folder, "broken.py", "import pandas\n1 / 0\n")
    write(folder, "dip.py", DIP)
    listed = cli.json("strategies", "list")
    assert "dip" in [one["strategy"] for one in listed["strategies"]]
    assert listed["refused"].keys() == {"wrong", "broken"}
    assert "did you mean ema_21" in listed["refused"]["wrong"]
    answer = cli("strategies", "check", "broken")
    assert answer.code == 1
    assert "broken.py line 2: ZeroDivisionError" in answer.message
    for arguments, message in (
        (("new", "dip"), "there is a strategy dip"),
        (("new", "rsi"), "there is a strategy rsi: shipped"),
        (("new", "Dip!"), "cannot name a strategy"),
        (("new", "other", "--from", "rsii"), "unknown strategy 'rsii'; did you mean rsi"),
        (("check", "nothing"), "unknown strategy 'nothing'"),
        (("check", "dip", "--param", "z=-1"), "z: must be above 0"),
    ):
        answer = cli("strategies", *arguments)
        assert (answer.code, message in answer.message) == (1, True), answer.message


def test_a_folder_that_is_refused_is_told_wherever_it_is_missed(
    cli: CommandLine, folder: Path
) -> None:
    write(folder, "dip.py")
    folder.chmod(0o777)
    for command in ("check", "show"):
        answer = cli("strategies", command, "dip")
        assert "no strategy dip is known, and the folder of strategies cannot be used" in answer.err
        assert "run chmod o-w on it" in answer.err
    cli.monkeypatch.setenv("BACKTEST_STRATEGIES", str(folder / "dip.py"))
    answer = cli("strategies", "new", "other")
    assert f"{folder}/dip.py exists; name a folder" in answer.message


def test_a_configured_folder_that_does_not_exist_is_named_and_new_makes_it(
    cli: CommandLine, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "of_mine"
    cli.monkeypatch.setenv("BACKTEST_STRATEGIES", str(folder))
    for command in (("strategies", "list"), ("run", "--asset", "S-ALPHA")):
        answer = cli(*command)
        assert answer.code == 1
        assert f"BACKTEST_STRATEGIES is {folder}, which does not exist" in answer.message
    assert cli("strategies", "new", "swing").code == 0
    assert "swing" in cli("strategies", "list").out


def test_what_a_strategy_prints_is_no_part_of_the_json(cli: CommandLine, folder: Path) -> None:
    printing = DIP.replace("    close = ", '    print("in the rule")\n    close = ')
    write(folder, "dip.py", f'print("in the module")\n{printing}')
    answer = cli("strategies", "check", "dip", "--json")
    assert answer.json["strategy"] == "dip"
    assert "in the module" in answer.err
    assert "in the rule" in answer.err


def test_presets_are_added_and_removed(cli: CommandLine, folder: Path) -> None:
    answer = cli("presets", "add", "rsi_7", "--strategy", "rsi", "--param", "period=7")
    assert "preset rsi_7: rsi_mean_revert with period 7" in answer.out
    assert cli("run", "--preset", "rsi_7", "--asset", "S-ALPHA").code == 0
    assert cli("presets", "remove", "rsi_7").code == 0
    answer = cli("run", "--preset", "rsi_7", "--asset", "S-ALPHA")
    assert answer.code == 1
    assert "unknown preset 'rsi_7'" in answer.message


def test_names_for_other_commands_are_listed(cli: CommandLine) -> None:
    assert "no asset is stored yet" in cli("assets").out
    assert cli("run", "--strategy", "rsi", "--asset", "S-ALPHA").code == 0
    (asset,) = cli.json("assets")["assets"]
    assert (asset["asset"], asset["synthetic"], asset["timeframes"]) == ("S-ALPHA", True, ["1D"])
    assert asset["last_ts"].startswith("2025-12-31T23:59:59")
    assert "binance_perp" in [row["venue"] for row in cli.json("venues")["venues"]]
