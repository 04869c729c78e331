"""`run`: its arguments, its window, and what it prints and stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from backtest_pipeline.pipeline.results import RunResult
from backtest_pipeline.simulation.metrics.metrics import METRIC_NAMES
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, write

SAMPLE = ("run", "--signal", "rsi", "--asset", "S-ALPHA", "--tf", "1D")


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    return write(daily_bars(200), tmp_path / "bars.csv")


@pytest.mark.parametrize(
    "arguments",
    [("run", "--signal", "rsi"), (*SAMPLE, "--fee-bps", "much"), ("walk",), (*SAMPLE, "--fast")],
)
def test_usage_errors_leave_with_2(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert "Usage" in answer.err


def test_a_timeframe_that_the_source_cannot_give_is_refused(cli: CommandLine, bars: Path) -> None:
    answer = cli("run", "--signal", "rsi", "--asset", "AAA", "--tf", "4H", "--bars", bars)
    assert answer.code == 1
    assert "no complete 4H bar in the 1D bars of files:bars.csv" in answer.message


@pytest.mark.parametrize(
    ("window", "asked"),
    [
        (("--end", "2024-01-01"), "0 bars from the beginning to 2024-01-01"),
        (("--start", "2030-01-01"), "0 bars from 2030-01-01 to the end"),
        (("--start", "2024-03-01", "--end", "2024-03-02"), "1 bars from 2024-03-01 to 2024-03-02"),
    ],
)
def test_a_window_without_enough_bars_is_refused(
    cli: CommandLine, bars: Path, window: tuple[str, ...], asked: str
) -> None:
    answer = cli("run", "--signal", "rsi", "--asset", "AAA", "--bars", bars, *window)
    assert answer.code == 1
    assert f"AAA|1D has {asked}, but a backtest needs at least 2" in answer.message
    assert "bars are stored from 2024-01-01 to 2024-07-18" in answer.message


def test_the_window_holds_the_days_from_start_to_before_end(cli: CommandLine, bars: Path) -> None:
    window = ("--start", "2024-03-01", "--end", "2024-05-01")
    found = cli.json("run", "--signal", "ema", "--asset", "AAA", "--bars", bars, *window)
    assert found["n_bars"] == 31 + 30
    assert found["first_ts"] == "2024-03-01T23:59:59.999000Z"
    assert found["last_ts"] == "2024-04-30T23:59:59.999000Z"


def test_a_window_trades_what_a_direct_simulation_of_it_trades(
    cli: CommandLine, bars: Path
) -> None:
    """Indicators know the history before the window; positions begin inside it."""
    from backtest_pipeline.market.features import build_features
    from backtest_pipeline.simulation.batch import simulate_batch
    from backtest_pipeline.simulation.config import SimulationConfig
    from backtest_pipeline.simulation.orders import (
        LONG_ENTRY,
        LONG_EXIT,
        SHORT_ENTRY,
        SHORT_EXIT,
    )
    from backtest_pipeline.sources.files import FileBars
    from backtest_pipeline.strategies.registry import strategy_of
    from backtest_pipeline.strategies.strategy import conditions_of

    found = cli.json(
        *("run", "--signal", "ema_9_21", "--asset", "AAA", "--bars", bars),
        *("--start", "2024-03-01", "--end", "2024-06-15"),
    )
    panel = build_features(FileBars(bars).read().panels["1D"])
    strategy = strategy_of("ema_crossover")
    events = conditions_of(strategy, panel, strategy.parse({"fast": 9, "slow": 21}))
    bits = (
        events.long_entry * LONG_ENTRY
        + events.long_exit * LONG_EXIT
        + events.short_entry * SHORT_ENTRY
        + events.short_exit * SHORT_EXIT
    ).astype(np.uint8)
    days = pd.to_datetime(panel.ts, unit="us", utc=True)
    keep = np.asarray((days >= "2024-03-01") & (days < "2024-06-15"))
    batch = simulate_batch(panel.take(keep), bits[None, keep], SimulationConfig())
    assert found["metrics"]["trade_count"] == len(batch.trades.entry_ts) > 3
    assert found["metrics"]["total_return"] == pytest.approx(batch.equity[0, -1] / 10_000 - 1)


def test_a_second_run_is_the_same_run_and_stores_nothing(cli: CommandLine) -> None:
    first = cli.json(*SAMPLE, "--start", "2024-01-01")
    stored = cli.stored()
    assert cli.json(*SAMPLE, "--start", "2024-01-01") == first
    assert cli.stored() == stored


def test_a_full_rebuild_computes_the_same_run_again(cli: CommandLine) -> None:
    first = cli.json(*SAMPLE, "--start", "2024-01-01")
    started = "SELECT run_id, started_at, completed_at FROM backtest_runs"
    with cli.database.begin() as connection:
        before = connection.execute(sa.text(started)).one()
    assert cli.json(*SAMPLE, "--start", "2024-01-01", "--full-rebuild") == first
    with cli.database.begin() as connection:
        after = connection.execute(sa.text(started)).one()
    assert after.run_id == before.run_id
    assert after.started_at > before.started_at


def test_json_tells_the_run_its_metrics_and_its_files(cli: CommandLine) -> None:
    found = cli.json(*SAMPLE)
    assert list(found) == list(RunResult.model_fields)
    assert (found["strategy"], found["preset"]) == ("rsi_mean_revert", "rsi_14_30_70")
    assert (found["symbol"], found["timeframe"]) == ("S-ALPHA", "1D")
    assert (found["params"]["period"], found["params"]["upper"]) == (14, 70.0)
    low, high = found["bands"]["sharpe"]
    assert low < found["metrics"]["sharpe"] < high
    assert found["synthetic"] is True
    assert list(found["metrics"]) == list(METRIC_NAMES)
    missing = {name for name, value in found["metrics"].items() if value is None}
    assert missing == set(found["undefined"])
    assert (cli.folder / "artifacts" / found["artifact_uri"] / "equity.parquet").is_file()


def test_the_table_tells_the_result_and_where_it_is(cli: CommandLine) -> None:
    answer = cli(*SAMPLE, "--start", "2024-01-01")
    assert answer.code == 0
    for title in ("return", "benchmark", "Sharpe", "max DD", "trades", "win rate", "fees"):
        assert title in answer.out
    assert "731 bars of the synthetic sample market, closing from 2024-01-01 23:59:59" in answer.out
    assert str(cli.folder / "artifacts" / "runs" / "1D") in answer.out


def test_bars_that_lack_the_asset_are_not_replaced_by_stored_ones(
    cli: CommandLine, bars: Path
) -> None:
    assert cli(*SAMPLE).code == 0
    answer = cli(*SAMPLE, "--bars", bars)
    assert answer.code == 1
    assert answer.message == "unknown asset 'S-ALPHA'; known: AAA"


def test_each_stage_is_told_on_stderr(cli: CommandLine) -> None:
    told = cli(*SAMPLE, "--json").err.splitlines()
    ended = [line.split(":")[0] for line in told if " done in " in line]
    assert ended == ["loading", "bars", "features", "backtest"]


def test_a_run_says_whether_daily_bars_mark_it(cli: CommandLine, bars: Path) -> None:
    run = ("run", "--signal", "ema", "--asset", "AAA", "--bars", bars)
    said = "equity is marked at the closes of 1W bars alone"
    assert cli.json(*run, "--tf", "1W")["sampling"] == "bars"
    told = cli(*run, "--tf", "1W").out
    assert said in told
    assert "refresh --assets AAA --timeframes 1D" in told
    shown = cli.json("runs", "show", cli.json(*run, "--tf", "1W")["run_id"])
    assert shown["sampling"] == "bars"
    daily = cli.json(*run)
    assert daily["sampling"] == "daily"
    assert "is marked at the closes" not in cli(*run).out
    assert cli.json(*run, "--tf", "1W")["sampling"] == "daily"
    assert said not in cli(*run, "--tf", "1W").out


def test_trades_around_a_hole_are_counted_stored_and_said(cli: CommandLine, tmp_path: Path) -> None:
    whole = daily_bars(330)
    bars = write(whole.drop(whole.index[128:280]), tmp_path / "bars.csv")
    run = ("run", "--signal", "ema", "--asset", "AAA", "--bars", bars)
    found = cli.json(*run, "--funding-bps-day", "10")
    assert found["trades_by_gap"]["held_across_gap"] == 1
    with cli.database.begin() as connection:
        (trade,) = connection.execute(
            sa.text("SELECT * FROM backtest_trades WHERE held_across_gap AND run_id = :run_id"),
            {"run_id": found["run_id"]},
        ).mappings()
    assert trade["exit_after_gap"] == bool(found["trades_by_gap"].get("exit_after_gap"))
    # Ten basis points for each of the more than 150 days, of a price that swings by a tenth.
    days = (trade["exit_ts"] - trade["entry_ts"]).total_seconds() / 86_400
    assert days > 150
    paid = trade["funding"] / (trade["size"] * trade["entry_price"] * days)
    assert abs(paid) == pytest.approx(0.001, rel=0.25)
    assert "1 held across a hole" in cli(*run).out
    whole_file = write(whole, tmp_path / "whole.csv")
    assert (
        "missing bars"
        not in cli("run", "--signal", "ema", "--asset", "AAA", "--bars", whole_file).out
    )


def test_what_a_deflated_sharpe_ratio_is_deflated_by_is_said(cli: CommandLine) -> None:
    windows = [("--start", "2021-01-01"), ("--start", "2022-01-01")]
    cli(*SAMPLE, *windows[0])
    second = cli(*SAMPLE, *windows[1]).out
    counted = "of rsi_mean_revert on S-ALPHA 1D, counted by parameter sets"
    assert f"(2 trials {counted} x windows shown)" in second
    assert f"(1 trial {counted})" in cli(*SAMPLE).out
    found = cli.json(*SAMPLE, *windows[0])
    assert found["counting_rule"] == "parameter sets x windows shown"
    assert found["significance"]["n_trials"] == 3, "the whole history was shown as well"
    shown = cli("runs", "show", found["run_id"]).out
    assert "n_trials counts parameter sets x windows shown" in shown
    compared = cli("runs", "compare", found["run_id"], cli.json(*SAMPLE)["run_id"]).out
    assert "counting_rule" in compared
    counted = cli.json("trials", "--asset", "S-ALPHA")["families"]
    assert [(row["trials"], row["windows shown"]) for row in counted] == [(1, 3)]
