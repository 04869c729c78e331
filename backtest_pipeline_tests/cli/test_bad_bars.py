"""Bars that cannot be used: an error that helps, and what is stored stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.symbols import key_of
from backtest_pipeline_tests.cli.conftest import CommandLine
from backtest_pipeline_tests.cli.files import daily_bars, put, write

RUN = ("run", "--signal", "ema_9_21", "--asset", "AAA", "--bars")
ALL = slice(None)


def naive(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.assign(ts=(bars["ts"] + pd.Timedelta(hours=5)).dt.tz_localize(None).astype(str))


UNUSABLE: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "missing column": (
        lambda b: pd.DataFrame(b.drop(columns="low")),
        (
            "bars.csv: no column for 'low'; its columns are symbol, ts, open, high, close, volume; "
            "say which it is in bars.toml beside the file: columns = { low ="
        ),
    ),
    "misspelt column": (
        lambda b: pd.DataFrame(b.rename(columns={"close": "cloze"})),
        "no column for 'close'; did you mean 'cloze'?",
    ),
    "missing stamp": (
        lambda b: pd.DataFrame(b.drop(columns="ts")),
        "no column for a stamp (ts, timestamp",
    ),
    "empty column": (lambda b: put(b, "close", np.nan, ALL), "column 'close' is empty in all rows"),
    "stamps without a zone": (
        naive,
        "stamps without a time zone, such as 2024-01-01T05:00:00 in line 2, which may be",
    ),
    "text for a price": (
        lambda b: b.assign(close=["abc", *b["close"][1:]]),
        (
            "bars.csv, line 2: column 'close': invalid value 'abc' is no number; fix it, or leave "
            "the cell empty"
        ),
    ),
    "no rows": (lambda b: b.head(0), "a header and no rows; export the bars again"),
    "one bar": (lambda b: b.head(1), "one stamp does not tell how long a bar is"),
    "other asset": (
        lambda b: b.assign(symbol="AAB"),
        "unknown asset 'AAA'; did you mean AAB?",
    ),
    "all infinite": (
        lambda b: put(b, "close", np.inf, ALL),
        "90 1D rows skipped as infinite_price; the 90 stored bars are kept",
    ),
    "all zero": (lambda b: put(b, "low", 0.0, ALL), "90 1D rows skipped as non_positive_price"),
    "all negative": (
        lambda b: put(b, "open", -1.0, ALL),
        (
            "AAA|1D: bars: no complete 1D bar in the 1D bars of files:bars.csv: "
            "90 1D rows skipped as non_positive_price"
        ),
    ),
    "all high below low": (
        lambda b: put(b, "high", 50.0, ALL),
        "90 1D rows skipped as high_below_low",
    ),
    "all in conflict": (
        lambda b: pd.concat([b, b.assign(close=b["close"] + 1)]),
        "180 1D rows skipped as duplicate_conflicting",
    ),
    "symbol that is no key": (
        lambda b: b.assign(symbol="A|B"),
        f"unknown asset 'AAA'; known: {key_of('A|B')}",
    ),
}


@pytest.fixture
def filled(cli: CommandLine, tmp_path: Path) -> CommandLine:
    """The command line of a store that holds a run already."""
    assert cli(*RUN, write(daily_bars(), tmp_path / "good.csv")).code == 0
    return cli


def test_unusable_bars_are_refused_and_stored_results_stay(
    filled: CommandLine, tmp_path: Path
) -> None:
    for name, (damage, message) in UNUSABLE.items():
        before = filled.stored()
        answer = filled(*RUN, write(damage(daily_bars()), tmp_path / "bars.csv"))
        assert answer.code == 1, name
        assert message in answer.message, name
        assert "Traceback" not in answer.err, name
        assert answer.out == "", name
        assert filled.stored() == before, name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bars.csv", b"", "the file is empty"),
        ("bars.csv", bytes(range(256)), "bars.csv: cannot be read"),
        ("bars.parquet", b"no parquet", "bars.parquet: cannot be read"),
        ("bars.xlsx", b"", "a workbook, which is not read; save its sheet as CSV"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    cli: CommandLine, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    before = cli.stored()
    answer = cli(*RUN, tmp_path / name)
    assert (answer.code, answer.out) == (1, "")
    assert message in answer.message
    assert cli.stored() == before


def test_a_path_with_brackets_is_printed_as_it_is(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "[bold]bars[/].csv"
    assert cli(*RUN, path).message == f"{path}: no such file or folder; check the path"


def test_a_folder_without_bars_is_refused(cli: CommandLine, tmp_path: Path) -> None:
    assert "no .parquet, .pq, .csv" in cli(*RUN, tmp_path).message


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda b: put(b, "close", np.nan), "gap 1, nan_price 1"),
        (lambda b: put(b, "high", np.inf), "gap 1, infinite_price 1"),
        (lambda b: put(b, "low", 0.0), "gap 1, non_positive_price 1"),
        (lambda b: put(b, "high", 10.0), "gap 1, high_below_low 1"),
        (lambda b: b.drop(index=[7, 8]), "gap 2"),
        (lambda b: pd.concat([b, b[3:5]]), "duplicate_equal 2"),
        (
            lambda b: pd.concat([b, put(b, "close", 101.5)[5:6]]),
            "duplicate_conflicting 2, gap 1",
        ),
        (lambda b: put(b, "volume", 0.0), "zero_volume 1"),
    ],
)
def test_bad_rows_are_skipped_and_counted_on_the_result(
    cli: CommandLine, tmp_path: Path, damage: Callable[[pd.DataFrame], pd.DataFrame], told: str
) -> None:
    answer = cli(*RUN, write(damage(daily_bars()), tmp_path / "bars.csv"))
    assert answer.code == 0, answer.err
    assert told in answer.out


def test_unsorted_rows_give_the_run_of_sorted_ones(cli: CommandLine, tmp_path: Path) -> None:
    sorted_run = cli(*RUN, write(daily_bars(), tmp_path / "bars.csv"))
    shuffled = daily_bars().sample(frac=1, random_state=1)
    again = cli(*RUN, write(shuffled, tmp_path / "bars.csv"))
    assert again.out.splitlines()[0] == sorted_run.out.splitlines()[0]
    assert "unsorted" in again.out
