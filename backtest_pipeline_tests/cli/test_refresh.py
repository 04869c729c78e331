"""`refresh`: one Dagster run from the command line."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, put, write
from backtest_pipeline_tests.leaky import planted
from backtest_pipeline_tests.own_strategies import DIP
from backtest_pipeline_tests.own_strategies import write as write_strategy
from backtest_pipeline_tests.sql import execute_sql

STAGES = ["bars", "features", "signals", "backtests"]


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    both = pd.concat([daily_bars(), daily_bars(symbol="BBB")])
    return write(both, tmp_path / "bars.csv")


def ended(told: str) -> list[str]:
    return [line.split(":")[0] for line in told.splitlines() if " done in " in line]


def test_a_refresh_tells_its_stages_and_results_and_a_second_one_stores_nothing(
    cli: CommandLine, bars: Path
) -> None:
    first = cli("refresh", "--timeframes", "1D,2D", "--bars", bars)
    assert first.code == 0, first.err
    assert ended(first.err) == ["loading", *STAGES, "portfolios"]
    assert "24 backtests, " in first.out
    assert "Portfolios by weighting scheme" in first.out
    assert "equal_weight" in first.out
    assert f"files:    {cli.folder / 'artifacts'}" in first.out
    stored = cli.stored()

    second = cli("refresh", "--timeframes", "1D,2D", "--bars", bars, "--json")
    assert second.code == 0, second.err
    found = second.json
    assert set(found) == {
        *("dagster_runs", "failures", "runs", "without_bars", "left_out", "rows_by_reason"),
        "not_fetched_since",
        *("portfolios", "identity", "left_out_presets", "failed_presets", "database", "artifacts"),
    }
    assert len(found["portfolios"]) == 2 * 7 * 5
    never = [row for row in found["portfolios"] if row["metrics"]["sharpe"] is None]
    assert all("sharpe" in row["undefined"] for row in never)
    assert len({run["run_id"] for run in found["runs"]}) == 24
    assert {run["asset"] for run in found["runs"]} == {"AAA", "BBB"}
    assert found["failures"] == []
    assert cli.stored() == stored


def test_a_preset_that_fails_on_one_asset_is_named_and_all_else_is_stored(
    cli: CommandLine, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    close = '    close = features["close"]\n'
    failing = f"{close}    assert close.iloc[0] < 22, 'too dear'\n"
    write_strategy(tmp_path / "home" / "strategies", "dip.py", DIP.replace(close, failing))
    arguments = ("refresh", "--assets", "S-GAMMA,S-IOTA", "--timeframes", "1W")
    answer = cli(*arguments)
    assert answer.code == 1
    assert "preset dip_2_20 on S-IOTA|1W fails: dip fails: AssertionError: too dear" in answer.err
    assert "all else is stored; the next refresh tries these again" in answer.err
    assert "13 backtests, " in answer.out
    again = cli(*arguments, "--json")
    assert (again.code, list(again.json["failed_presets"])) == (1, ["dip_2_20 on S-IOTA|1W"])


def test_bad_input_is_refused_and_stored_results_stay(
    cli: CommandLine, bars: Path, tmp_path: Path
) -> None:
    assert cli("refresh", "--timeframes", "1D", "--bars", bars).code == 0
    good = daily_bars()
    damaged = {
        "text.csv": good.assign(close=["abc", *good["close"][1:]]),
        "nothing.csv": put(good, "low", -1.0, slice(None)),
    }
    paths = {name: write(frame, tmp_path / name) for name, frame in damaged.items()}
    asked: list[tuple[tuple[str | Path, ...], str]] = [
        (("--assets", "AAAA", "--bars", bars), "unknown asset 'AAAA'; did you mean AAA?"),
        (("--timeframes", "1X", "--bars", bars), "unknown timeframe '1X'; did you mean"),
        (
            ("--timeframes", "5m", "--bars", bars),
            "timeframe 5m is not one of this project: 1H, 4H",
        ),
        (("--bars", tmp_path / "none.csv"), "none.csv: no such file or folder; check the path"),
        (("--timeframes", "1D", "--bars", paths["text.csv"]), str(paths["text.csv"])),
        (
            ("--timeframes", "1D", "--bars", paths["nothing.csv"]),
            (
                "the source has no usable bars: AAA|1D: no complete 1D bar in the 1D bars of "
                "files:nothing.csv: 90 1D rows skipped as non_positive_price; the 90 stored bars "
                "are kept"
            ),
        ),
        (
            ("--timeframes", "4H", "--bars", bars),
            "no complete 4H bar in the 1D bars of files:bars.csv: supply bars that 4H bars can be",
        ),
    ]
    for arguments, message in asked:
        before = {
            k: v for k, v in cli.stored().items() if k not in ("data_quality", "dataset_versions")
        }
        answer = cli("refresh", *arguments)
        after = {
            k: v for k, v in cli.stored().items() if k not in ("data_quality", "dataset_versions")
        }
        assert answer.code == 1, arguments
        assert message in answer.message, arguments
        assert "Traceback" not in answer.err, arguments
        assert after == before, arguments


def test_a_partition_without_bars_is_named_beside_the_results(cli: CommandLine, bars: Path) -> None:
    answer = cli("refresh", "--assets", "AAA", "--timeframes", "12H,1D", "--bars", bars)
    assert answer.code == 0, answer.err
    assert "6 backtests, " in answer.out
    assert "without bars: AAA|12H: no complete 12H bar in the 1D bars" in answer.out


def test_a_refresh_shows_its_own_data_after_a_run_on_other_data(
    cli: CommandLine, bars: Path, tmp_path: Path
) -> None:
    refresh = ("refresh", "--assets", "AAA", "--timeframes", "1D", "--json", "--bars", bars)
    first = cli(*refresh).json
    other = write(daily_bars(60), tmp_path / "other.csv")
    assert cli("run", "--signal", "ema_9_21", "--asset", "AAA", "--bars", other).code == 0
    assert cli(*refresh).json["runs"] == first["runs"]


def test_the_sample_market_can_be_removed(cli: CommandLine) -> None:
    nothing = cli("demo", "--remove")
    assert (nothing.code, "has no asset of the sample market" in nothing.out) == (0, True)
    sample = ("run", "--signal", "rsi", "--asset", "S-ALPHA", "--tf", "1W")
    assert cli(*sample).code == 0
    assert "synthetic current" in cli("runs", "list").out
    (listed,) = cli.json("runs", "list")["runs"]
    assert listed["synthetic"] is True
    assert "synthetic" in cli("runs", "show", listed["run_id"]).out
    removed = cli("demo", "--remove")
    assert removed.code == 0, removed.err
    assert "removed S-ALPHA: 1 runs" in removed.out
    assert set(cli.stored().values()) == {"None"}
    assert cli(*sample).code == 0


def test_a_removed_sample_market_is_no_part_of_later_refreshes(
    cli: CommandLine, bars: Path
) -> None:
    assert cli("refresh", "--assets", "S-ALPHA", "--timeframes", "1W").code == 0
    assert cli("refresh", "--timeframes", "1W", "--bars", bars).code == 0
    assert {"AAA", "BBB", "S-ALPHA", "S-BETA"} <= set(partitions(cli))
    removed = cli("demo", "--remove")
    assert "deleted from Dagster: the partitions of S-ALPHA, S-BETA, " in removed.out
    # The nightly refresh is of all partitions.
    assert partitions(cli) == ["AAA", "BBB"]


def partitions(cli: CommandLine) -> list[str]:
    with open_instance(load_settings(), cli.database) as instance:
        return list(instance.get_dynamic_partitions("asset"))


def test_parts_of_a_source_that_are_not_read_are_named_and_counted(
    cli: CommandLine, bars: Path
) -> None:
    folder = bars.parent / "folder"
    folder.mkdir()
    bars.rename(folder / "bars.csv")
    (folder / "BBB.csv").write_text("a,b\n1,2\n")
    (folder / "CCC.parquet").write_text("x")
    arguments = ("refresh", "--timeframes", "1D", "--bars", folder)
    named = cli.json(*arguments)["left_out"]
    assert [sentence.split(f"{folder}/")[-1][:11] for sentence in named] == [
        "BBB.csv: no",
        "CCC.parquet",
    ]
    answer = cli(*arguments)
    assert answer.out.count("left out: ") == 2
    assert f"left out: {named[0]}" in answer.out
    with open_instance(load_settings(), cli.database) as instance:
        (event,) = instance.fetch_observations(dg.AssetKey("bars"), limit=1).records
    assert event.asset_observation is not None
    assert event.asset_observation.metadata["source_parts_left_out"].value == 2


def test_a_preset_that_looks_ahead_is_named_and_left_out(
    cli: CommandLine, bars: Path, tmp_path: Path
) -> None:
    execute_sql(cli.database, "INSERT INTO dim_signals VALUES (99, 'peeker', 'peeker', '{}', TRUE)")
    (tmp_path / "strategies").mkdir()
    with planted(tmp_path / "strategies"):
        refreshed = cli("refresh", "--timeframes", "1D", "--bars", bars)
        assert refreshed.code == 0, refreshed.err
        assert "preset peeker is left out: peeker on S-ETA|1D looks ahead: " in refreshed.out
        assert "12 backtests, " in refreshed.out
        run = ("run", "--preset", "peeker", "--asset", "AAA", "--tf", "1D", "--bars", bars)
        assert "peeker on S-ETA|1D looks ahead: " in cli(*run).message
        probed = cli("look-ahead", "--timeframes", "1D", "--bars", bars)
        assert "1 outputs look ahead (signal peeker)" in probed.message
