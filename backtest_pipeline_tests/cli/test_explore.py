"""`explore`: its ranges, its table, its page, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.cli.options import SpecOptions, with_ranges
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.pipeline.spec_options import values_of
from backtest_pipeline.pipeline.specs import SweepSpec
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, write
from backtest_pipeline_tests.sql import scalar

EMA = ("explore", "ema", "--asset", "S-ALPHA", "--fast", "5,9", "--slow", "15:27:6")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("9", [9]),
        ("9,21,50", [9, 21, 50]),
        ("5:8", [5, 6, 7, 8]),
        ("5:50:20", [5, 25, 45]),
        ("1:2:0.25", [1.0, 1.25, 1.5, 1.75, 2.0]),
        ("1:1.3:0.1", [1.0, 1.1, 1.2, 1.3]),
        ("2.5", [2.5]),
        ("9,20:40:10", [9, 20, 30, 40]),
    ],
)
def test_a_range_holds_its_end_and_is_exact(text: str, values: list[float]) -> None:
    found = values_of("--fast", text)
    assert found == values
    assert {type(value) for value in found} == {type(value) for value in values}


@given(st.integers(-50, 50), st.integers(0, 80), st.integers(1, 9))
def test_a_range_of_whole_numbers_is_python_s_with_its_end(
    first: int, span: int, step: int
) -> None:
    found = values_of("--fast", f"{first}:{first + span}:{step}")
    assert found == list(range(first, first + span + 1, step))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is neither a number nor a range; write 9, or 9,21,50, or 5:50:5"),
        ("five", "--fast: 'five' is neither a number nor a range"),
        ("1:2:3:4", "is neither a number nor a range"),
        ("5:50:0", "is empty; write from:to:step with a step above 0"),
        ("50:5:5", "is empty"),
        ("1:inf", "is neither a number nor a range"),
        ("nan", "is neither a number nor a range"),
        ("1:1e9", "has 1,000,000,000 values, and at most 10,000 are allowed"),
    ],
)
def test_text_that_is_no_range_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        values_of("--fast", text)


def test_options_become_parameters() -> None:
    values = {"asset": "S-ALPHA", "strategy": "atr", "param": ["atr_period=14"]}
    options = SpecOptions(SweepSpec, values)
    found = with_ranges(options, ["--trail-mult=1:2:0.5", "--lookback", "10,20"]).spec()
    assert found.params == {"atr_period": 14, "trail_mult": [1.0, 1.5, 2.0], "lookback": [10, 20]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fast"], "--fast has no values; write it as --fast 5:50:5"),
        (["5:50"], "'5:50' is not a parameter; write it as --fast 5:50:5"),
        (
            ["--fast", "5", "--fast", "9"],
            "--param fast is given twice; separate several values by commas",
        ),
    ],
)
def test_arguments_that_are_no_parameters_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        with_ranges(SpecOptions(SweepSpec, {"asset": "S-ALPHA"}), arguments).spec()


def test_the_table_and_the_warning_are_printed_and_the_page_is_written(
    cli: CommandLine, tmp_path: Path
) -> None:
    page = tmp_path / "sweep.html"
    answer = cli(*EMA, "--output", page)
    assert answer.code == 0, answer.err
    for text in ("best", "median", "worst", "Sharpe", "fast", "slow", "6 combinations"):
        assert text in answer.out
    assert "warning: 6 combinations were tried on the same bars" in answer.out
    assert "neighbours of the best: " in answer.out
    assert "the synthetic sample market" in answer.out
    assert str(page) in answer.out
    assert "explore: 6 of 6 done" in answer.err
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    best = scalar(cli, "SELECT run_id FROM backtest_runs")
    assert f"best combination stored as run {best}" in answer.out
    assert "Deflated Sharpe ratio of the best: " in answer.out
    assert "Probability of backtest overfitting: " in answer.out
    assert "Probability of backtest overfitting: " in page.read_text(encoding="utf-8")


def test_what_was_swept_weighs_on_the_run_of_the_best(cli: CommandLine, tmp_path: Path) -> None:
    run = ("run", "--signal", "ema_9_21", "--asset", "S-ALPHA", "--json")
    alone = cli(*run).json
    assert alone["significance"]["n_trials"] == 1
    assert alone["significance"]["dsr"] == alone["metrics"]["psr"]
    sweep = (*EMA[:4], "--fast", "5,9", "--slow", "15:27:6")
    answer = cli(*sweep, "--output", tmp_path / "sweep.html", "--json")
    selection = answer.json["selection"]
    assert selection["n_trials"] == 6
    assert selection["dsr"] <= selection["dsr_effective"] <= selection["psr"]
    assert 0 <= selection["pbo"] <= 1
    for low, high in answer.json["bands"].values():
        assert low < high
    weighed = cli(*run).json
    assert weighed["significance"]["n_trials"] == 6  # 9/21 is one of them
    assert weighed["significance"]["dsr"] < alone["significance"]["dsr"]
    for name in ("run_id", "result_fingerprint", "metrics", "bands"):
        assert weighed[name] == alone[name]


def test_the_ledger_is_counted_by_strategy(cli: CommandLine, tmp_path: Path) -> None:
    assert "unknown asset 'S-ALPHA'" in cli("trials", "--asset", "S-ALPHA").message
    cli(*EMA, "--output", tmp_path / "sweep.html")
    cli("run", "--signal", "ema_9_21", "--asset", "S-ALPHA")
    found = cli.json("trials", "--asset", "S-ALPHA")
    (family,) = found["families"]
    assert (family["strategy"], family["trials"]) == ("ema_crossover", 6)
    assert 1 <= family["effective trials"] <= 6
    answer = cli("trials", "--asset", "S-ALPHA")
    assert answer.code == 0
    assert "Trials on S-ALPHA|1D" in answer.out
    assert "unknown asset 'S-ALPHAA'" in cli("trials", "--asset", "S-ALPHAA").message


def test_a_sweep_says_of_a_combination_what_run_says(cli: CommandLine, tmp_path: Path) -> None:
    """The registered EMA 9/21 in a window, from the store and from the sweep."""
    bars = write(daily_bars(200), tmp_path / "bars.csv")
    shared = ("--asset", "AAA", "--bars", bars, "--start", "2024-03-01", "--end", "2024-06-15",
              "--stops", "trailing_atr=2", "--venue", "binance_perp")  # fmt: skip
    run = cli.json("run", "--signal", "ema_9_21", *shared)
    page = ("--output", tmp_path / "sweep.html")
    answer = cli("explore", "ema", *shared, "--fast", "9", "--slow", "21,300", "--json", *page)
    found = answer.json
    assert found["ranked"][0]["params"] == {"fast": 9, "slow": 21}
    assert found["ranked"][0]["metrics"] == run["metrics"]
    assert run["metrics"]["trade_count"] > 3
    assert list(found["ranked"][0]["metrics"]) == list(METRIC_NAMES)
    assert (found["n_combinations"], found["n_bars"]) == (2, run["n_bars"])
    assert found["neighbourhood"]["undefined"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fsat", "5:9"), "unknown parameter of ema_crossover 'fsat'; did you mean fast?"),
        (("--fast", "50", "--slow", "20"), "fast (50) must be below slow (20)"),
        (("--fast", "1:300", "--slow", "1:300"), "90,000 combinations, and 20,000 are the limit"),
        (("--metric", "sharp"), "unknown metric 'sharp'; did you mean sharpe?"),
        (("--start", "2031-01-01"), "S-ALPHA|1D has 0 bars from 2031-01-01 to the end"),
    ],
)
def test_what_cannot_be_explored_leaves_no_page(
    cli: CommandLine, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    page = tmp_path / "sweep.html"
    answer = cli("explore", "ema", "--asset", "S-ALPHA", "--output", page, *arguments)
    assert (answer.code, answer.out) == (1, "")
    assert message in answer.message
    assert not page.exists()


def test_an_unknown_asset_or_indicator_names_its_neighbour(cli: CommandLine) -> None:
    answer = cli("explore", "ema", "--asset", "S-ALHPA")
    assert "unknown asset 'S-ALHPA'; did you mean S-ALPHA" in answer.message
    answer = cli("explore", "bolinger", "--asset", "S-ALPHA")
    assert "unknown strategy 'bolinger'; did you mean bollinger" in answer.message
