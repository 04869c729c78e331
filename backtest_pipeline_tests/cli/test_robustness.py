"""`robustness`: its arguments, and what it prints and stores."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from backtest_pipeline.pipeline.results import RobustnessResult
from backtest_pipeline.research.robustness.robustness import NUMBERS
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, write

TERMS = ("robustness", "--signal", "ema_9_21", "--asset", "S-ALPHA", "--tf", "1D")
YEARS = ("--start", "2023-01-01", "--end", "2025-01-01", "--draws", "50")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--draws", "0"), "draws must be at least 1, not 0"),
        (("--draws", "100000"), "draws must be at most 10000, not 100000"),
        (("--seed", "-1"), "seed must be at least 0, not -1"),
    ],
)
def test_arguments_that_make_no_sense_leave_nothing_behind(
    cli: CommandLine, arguments: tuple[str, ...], message: str
) -> None:
    before = cli.stored()
    answer = cli(*TERMS, *arguments)
    assert (answer.code, answer.out) == (1, "")
    assert message in answer.message
    assert cli.stored() == before


def test_draws_that_are_no_number_are_a_usage_error(cli: CommandLine) -> None:
    answer = cli(*TERMS, "--draws", "many")
    assert (answer.code, answer.out) == (2, "")
    assert "Usage" in answer.err


def test_json_tells_every_number_and_its_files(cli: CommandLine) -> None:
    found = cli.json(*TERMS, *YEARS, "--seed", "7")
    assert list(found) == list(RobustnessResult.model_fields)
    assert (found["draws"], found["seed"], found["n_bars"]) == (50, 7, 731)
    assert list(found["numbers"]) == list(NUMBERS)
    assert found["fragile"] is bool(found["reasons"])
    assert len(found["envelope"]) == 27
    missing = {name for name, value in found["numbers"].items() if value is None}
    assert missing <= set(found["undefined"])
    for name in ("bands.parquet", "samples.parquet", "manifest.json"):
        assert (cli.folder / "artifacts" / found["robustness_uri"] / name).is_file()
    assert cli.json(*TERMS, *YEARS, "--seed", "7") == found


def test_the_doubted_run_is_the_one_that_run_makes(cli: CommandLine) -> None:
    window = ("--start", "2023-01-01", "--end", "2025-01-01", "--fee-bps", "4")
    run = cli.json("run", *TERMS[1:], *window)
    found = cli.json(*TERMS, *window, "--draws", "20")
    assert found["run_id"] == run["run_id"]
    for name in ("total_return", "sharpe", "max_drawdown"):
        assert found["numbers"][name] == run["metrics"][name]
    with cli.database.begin() as connection:
        stored = connection.execute(sa.text("SELECT run_id, draws FROM run_robustness")).one()
    assert (str(stored.run_id), stored.draws) == (run["run_id"], 20)


def test_the_table_answers_each_question_in_a_line(cli: CommandLine) -> None:
    answer = cli(*TERMS, *YEARS)
    assert answer.code == 0
    for question in (
        "better than random entries?",
        "Sharpe above 0?",
        "return above 0?",
        "drawdown typical?",
        "trades reordered?",
        "random fills in the bar?",
        "break-even cost?",
        "other assumptions?",
    ):
        assert question in answer.out
    assert "ema_9_21 on S-ALPHA 1D (synthetic bars)" in answer.out
    assert "basis points a side" in answer.out
    assert "50 draws each, seed 0" in answer.out
    assert "of the time, so that this comparison says little" in answer.out
    assert "held the true one in 88 to 91 % of simulated histories" in answer.out
    assert "how many other runs were tried" in answer.out
    assert all(len(line) <= 110 for line in answer.out.splitlines() if str(cli.folder) not in line)


def test_the_verdict_on_a_loss_is_no_praise(cli: CommandLine) -> None:
    """A run that loses under every assumption is not fragile, and not robust either."""
    found = cli.json(*TERMS, *YEARS)
    assert found["fragile"] is False
    assert found["numbers"]["total_return"] < 0
    answer = cli(*TERMS, *YEARS)
    assert "always a loss" in answer.out
    assert "robust " not in answer.out


def test_what_a_run_does_not_survive_is_named(cli: CommandLine) -> None:
    answer = cli("robustness", "--signal", "macd", "--asset", "S-BETA", *YEARS)
    assert "fragile: " in answer.out
    assert "the gain falls by more than half" in answer.out


def test_what_is_undefined_shows_its_reason(cli: CommandLine, tmp_path: Path) -> None:
    bars = write(daily_bars(15), tmp_path / "bars.csv")
    answer = cli("robustness", "--signal", "ema_50_200", "--asset", "AAA", "--bars", bars)
    assert answer.code == 0, answer.err
    assert "undefined: no trade" in answer.out
    assert "undefined: fewer than 20 daily returns" in answer.out


def test_its_progress_is_told_on_stderr(cli: CommandLine) -> None:
    told = cli(*TERMS, *YEARS, "--json").err.splitlines()
    ended = [line.split(":")[0] for line in told if " done in " in line]
    assert ended == ["loading", "bars", "features", "backtest", "robustness"]
