"""Stamps, numbers and text as files write them, whatever the layout."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline_tests.market.bars import close_stamp
from backtest_pipeline_tests.sources.files.three_bars import (
    CLOSE,
    DAY_MS,
    DAYS,
    HIGH,
    HOUR_MS,
    HOURS,
    LOW,
    OPEN,
    ROW,
    VOLUME,
    require_bars,
    write,
)


@pytest.mark.parametrize(
    "stamps",
    [
        [f"{ms}.0" for ms in DAY_MS],
        [f"{ms // 1000}.0" for ms in DAY_MS],
        [f"{ms // 1000}.000000" for ms in DAY_MS],
        [f"{ms:.7E}" for ms in DAY_MS],
        [f"{ms:.5E}" for ms in DAY_MS],
        [f"{day} 00:00:00 UTC" for day in DAYS],
        [f"{day} 00:00:00.000000 UTC" for day in DAYS],
        [f"{day}T00:00:00 GMT" for day in DAYS],
        [f"{day} 00:00:00 +0000 UTC" for day in DAYS],
        [f"{day} 00:00:00+00" for day in DAYS],
        [f"{day} 09:00:00 +0900" for day in DAYS],
        [day.replace("-", "/") for day in DAYS],
        [day.replace("-", ".") for day in DAYS],
        ['"Jan 01, 2024"', '"Jan 02, 2024"', '"Jan 03, 2024"'],
        ["01-Jan-2024", "02-Jan-2024", "03-Jan-2024"],
        ["01.01.2024", "02.01.2024", "03.01.2024"],
    ],
)
def test_days_as_they_are_written(tmp_path: Path, stamps: list[str]) -> None:
    text = "\n".join(["ts,open,high,low,close,volume", *(f"{at},{ROW}" for at in stamps)]) + "\n"
    require_bars(write(tmp_path / "BTC.csv", text), "BTC", "1D", DAYS)


def test_a_rounded_epoch_of_hours_is_refused(tmp_path: Path) -> None:
    rows = [f"{HOUR_MS[0] + hour * 3_600_000:.5E},{ROW}" for hour in range(12)]
    file = write(tmp_path / "BTC.csv", "\n".join(["ts,open,high,low,close,volume", *rows]) + "\n")
    with pytest.raises(BarsError, match=r"1\.70408E\+12 in line \d was rounded"):
        FileBars(file).read()


def test_a_date_and_a_time_in_two_columns(tmp_path: Path) -> None:
    rows = [f"2024.01.01\t{hour[-5:]}:00\t{ROW.replace(',', chr(9))}" for hour in HOURS]
    header = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>"
    file = write(tmp_path / "BTCUSD.csv", "\n".join([header, *rows]) + "\n")
    with pytest.raises(BarsError, match=r"line 3, which may be .*01:00:00Z or local time"):
        FileBars(file).read()
    write(tmp_path / "bars.toml", 'tz = "UTC"\n')
    require_bars(file, "BTCUSD", "1H", HOURS)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_text_of_any_arrow_type(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table(
        {
            "symbol": pa.array(["AAA"] * 3).cast(kind),
            "ts": pa.array([f"{day}T00:00:00Z" for day in DAYS]).cast(kind),
            **{
                name: pa.array([str(value)] * 3).cast(kind)
                for name, value in zip(
                    ("open", "high", "low", "close", "volume"),
                    (OPEN, HIGH, LOW, CLOSE, VOLUME),
                    strict=True,
                )
            },
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    require_bars(tmp_path / "x.parquet", "AAA", "1D", DAYS)
    feather.write_feather(table, str(tmp_path / "x.feather"))
    require_bars(tmp_path / "x.feather", "AAA", "1D", DAYS)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "\n".join(["Time (Zürich),open,high,low,close,volume", *(f"{d},{ROW}" for d in DAYS)])
    write(tmp_path / "BTC.csv", (text + "\n").encode(encoding))
    write(tmp_path / "bars.toml", '[columns]\nts = "Time (Zürich)"\n')
    require_bars(tmp_path / "BTC.csv", "BTC", "1D", DAYS)


def test_a_volume_of_two_coins_of_which_neither_is_the_symbols_is_refused(tmp_path: Path) -> None:
    rows = [f"{day},{ROW},5" for day in DAYS]
    head = "Date,Open,High,Low,Close,Volume AAA,Volume BBB"
    file = write(tmp_path / "x.csv", "\n".join([head, *rows]) + "\n")
    with pytest.raises(BarsError, match=r"may be 'Volume AAA' or 'Volume BBB'; say which"):
        FileBars(file).read()


def test_local_days_are_refused_until_their_zone_is_stated(tmp_path: Path) -> None:
    stamps = pd.date_range("2024-01-01", periods=120, freq="D", tz="America/New_York")
    frame = pd.DataFrame({"Date": stamps.astype(str), "Open": OPEN, "High": HIGH, "Low": LOW})
    frame = frame.assign(Close=CLOSE, Volume=VOLUME)
    frame.to_csv(tmp_path / "AAPL.csv", index=False)
    with pytest.raises(BarsError, match=r"AAPL"):
        FileBars(tmp_path / "AAPL.csv").read()
    write(tmp_path / "bars.toml", 'tz = "America/New_York"\ntimeframe = "1D"\n')
    panel = FileBars(tmp_path / "AAPL.csv").read().panels["1D"]
    assert np.diff(panel.ts).tolist() == [86_400_000_000] * 119
    assert panel.ts[0] == close_stamp("2024-01-01")


def test_what_a_spreadsheet_leaves_at_the_end_of_rows_does_no_harm(tmp_path: Path) -> None:
    out = io.StringIO("ts,open,high,low,close,volume\n" + "".join(f"{d},{ROW},\n" for d in DAYS))
    require_bars(write(tmp_path / "BTC.csv", out.getvalue()), "BTC", "1D", DAYS)
