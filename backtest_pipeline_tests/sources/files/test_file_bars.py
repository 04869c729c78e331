from __future__ import annotations

import gzip
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import BarsError, InvalidInput, UnknownName
from backtest_pipeline.sources.base import BarSource, SourceBars
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline_tests.market.bars import close_stamp

HEADER = "timestamp,open,high,low,close,volume"
DAYS = [close_stamp(f"2024-01-0{day}") for day in (1, 2, 3)]
HOURS = [close_stamp(f"2024-01-01T0{hour}:00", "1H") for hour in range(3)]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def three_bars(folder: Path, stamps: list[str], header: str = HEADER) -> Path:
    rows = [f"{stamp},10,12,9,11,{100 + i}" for i, stamp in enumerate(stamps)]
    return write(folder / "BTC.csv", "\n".join([header, *rows]) + "\n")


def counts(bars: SourceBars) -> dict[str, int]:
    total: Counter[str] = Counter()
    for issue in bars.issues:
        total[issue.reason.value] += issue.rows
    return dict(total)


def test_a_file_is_a_bar_source(tmp_path: Path) -> None:
    source: BarSource = FileBars(tmp_path / "BTC.csv")
    assert (source.name, source.synthetic) == ("files:BTC.csv", False)


@pytest.mark.parametrize(
    ("file", "timeframe", "rows", "assets", "defects"),
    [
        ("cmc_daily", "1D", 28_597, 19, {"zero_volume": 398, "gap": 1}),
        ("binance_daily", "1D", 50_164, 32, {}),
        ("binance_hourly", "1H", 445_851, 13, {"gap": 4_718, "zero_volume": 392}),
        ("bybit_perp_daily", "1D", 210_460, 149, {"duplicate_equal": 149}),
    ],
)
def test_real_files_load_with_their_defects_counted(
    test_data: Path, file: str, timeframe: str, rows: int, assets: int, defects: dict[str, int]
) -> None:
    source = FileBars(test_data / f"{file}.parquet")
    bars = source.read()
    assert {tf: (len(p), len(p.assets)) for tf, p in bars.panels.items()} == {
        timeframe: (rows, assets)
    }
    assert counts(bars) == defects
    assert source.symbols() == bars.panels[timeframe].assets
    assert tuple(info.symbol for info in bars.assets) == source.symbols()


def test_the_known_holes_of_the_real_files_are_found(test_data: Path) -> None:
    hourly = FileBars(test_data / "binance_hourly.parquet").read(["BTCUSDT"])
    assert counts(hourly) == {"gap": 128, "zero_volume": 4}
    monero = FileBars(test_data / "cmc_daily.parquet").read(["XMR"])
    missing = [(i.reason.value, i.first_ts, i.last_ts) for i in monero.issues]
    assert missing == [("gap", close_stamp("2014-06-05"), close_stamp("2014-06-05"))]
    assert monero.assets[0].name == "Monero"


def test_coinmarketcaps_own_download_is_read(test_data: Path) -> None:
    bars = FileBars(test_data / "raw" / "cmc_native_btcusd.csv.gz").read()
    frame = bars.panels["1D"].frame("cmc_native_btcusd")
    assert (len(frame), counts(bars)) == (3952, {"unsorted": 3951})
    assert frame.index[0] == pd.Timestamp("2015-01-01T23:59:59.999", tz="UTC")
    assert frame.iloc[-1].tolist() == [
        111639.0527,
        115260.9051,
        111268.4876,
        114472.4434,
        41708524143.0,
    ]


def test_columns_in_another_order_keep_their_meaning(test_data: Path) -> None:
    bars = FileBars(test_data / "raw" / "kaggle_cmc_coin_Solana.csv.gz").read()
    frame = bars.panels["1D"].frame("SOL")
    assert bars.assets[0].name == "Solana"
    assert frame.index[0] == pd.Timestamp("2020-04-11T23:59:59.999", tz="UTC")
    assert frame.iloc[0].tolist() == [
        0.95105395758,
        1.04907270025,
        0.765020356128,
        0.776818582977,
        43862443.7931816,
    ]


def test_stray_empty_columns_of_the_same_name_are_ignored(test_data: Path) -> None:
    bars = FileBars(test_data / "raw" / "hurst_SOLUSDT_1d_stray_columns.csv.gz").read()
    frame = bars.panels["1D"].frame("hurst_SOLUSDT_1d_stray_columns")
    assert (len(frame), bars.issues) == (1971, ())
    assert frame.index[0] == pd.Timestamp("2020-08-11T23:59:59.999", tz="UTC")
    assert frame["close"].to_numpy()[0] == 3.2985


@pytest.mark.parametrize(
    "stamps",
    [
        ["2024-01-01", "2024-01-02", "2024-01-03"],
        ["2024-01-01 00:00:00", "2024-01-02 00:00:00", "2024-01-03 00:00:00"],
        ["2024-01-01 23:59:59", "2024-01-02 23:59:59", "2024-01-03 23:59:59"],
        ["2024-01-01T23:59:59.999Z", "2024-01-02T23:59:59.999Z", "2024-01-03T23:59:59.999Z"],
        ["2024-01-01T09:00:00+09:00", "2024-01-02T09:00:00+09:00", "2024-01-03T09:00:00+09:00"],
        ["2023-12-31T19:00:00-05:00", "2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z"],
        ["1704067200", "1704153600", "1704240000"],
        ["1704067200000", "1704153600000", "1704240000000"],
        ["1704067200000", "1704153600000000", "1704240000000000000"],
    ],
)
def test_every_spelling_of_a_day_becomes_its_close_stamp(tmp_path: Path, stamps: list[str]) -> None:
    bars = FileBars(three_bars(tmp_path, stamps)).read()
    assert bars.panels["1D"].ts.tolist() == DAYS
    assert bars.issues == ()


@pytest.mark.parametrize(
    ("header", "first_hour"),
    [("Open time", "00"), ("timeOpen", "00"), ("close_time", "01"), ("timestamp", "00")],
)
def test_a_column_that_names_its_convention_wins(
    tmp_path: Path, header: str, first_hour: str
) -> None:
    stamps = [f"2024-01-01T{int(first_hour) + i:02}:00:00Z" for i in range(3)]
    file = three_bars(tmp_path, stamps, HEADER.replace("timestamp", header))
    assert FileBars(file).read().panels["1H"].ts.tolist() == HOURS


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_a_zone_in_parquet_is_converted(tmp_path: Path, zone: str) -> None:
    index = pd.date_range("2024-01-01", periods=3, freq="h", tz="UTC").tz_convert(zone)
    bar = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 1}
    pd.DataFrame({"ts": index, **bar}).to_parquet(tmp_path / "BTC.parquet")
    assert FileBars(tmp_path / "BTC.parquet").read().panels["1H"].ts.tolist() == HOURS


def test_intraday_stamps_without_a_zone_are_refused_with_a_way_out(tmp_path: Path) -> None:
    stamps = ["2024-01-01 00:00:00", "2024-01-01 01:00:00", "2024-01-01 02:00:00"]
    with pytest.raises(BarsError, match=r"BTC\.csv: stamps without a time zone.*append Z"):
        FileBars(three_bars(tmp_path, stamps)).read()
    table = pa.table(
        {
            "ts": pa.array(np.array(stamps, "M8[us]")),
            **{name: [10.0] * 3 for name in ("open", "high", "low", "close", "volume")},
        }
    )
    pq.write_table(table, tmp_path / "ETH.parquet")
    with pytest.raises(BarsError, match=r"ETH\.parquet: .*01:00:00.*tz_localize"):
        FileBars(tmp_path / "ETH.parquet").read()


def test_monthly_dumps_without_a_header_are_joined_to_one_asset(tmp_path: Path) -> None:
    tail = "1000.0,5,50.0,500.0,0"
    for month, stamps in {
        "2024-12": [1735682400000, 1735686000000],
        "2025-01": [1735689600000000, 1735693200000000],
    }.items():
        lines = [f"{ts},10,12,9,11,100,{ts + 1},{tail}\n" for ts in stamps]
        with gzip.open(tmp_path / f"BTCUSDT-1h-{month}.csv.gz", "wt") as file:
            file.writelines(lines)
    bars = FileBars(tmp_path).read()
    assert [info.symbol for info in bars.assets] == ["BTCUSDT"]
    assert bars.panels["1H"].ts.tolist() == [
        close_stamp(start, "1H")
        for start in ("2024-12-31T22", "2024-12-31T23", "2025-01-01T00", "2025-01-01T01")
    ]
    assert bars.issues == ()


def test_the_name_of_a_dump_tells_the_timeframe_of_a_single_bar(tmp_path: Path) -> None:
    row = "1704067200000,10,12,9,11,100,1704153599999,1,1,1,1,0\n"
    file = write(tmp_path / "BTCUSDT-1d-2024-01-01.csv", row)
    assert FileBars(file).read().panels["1D"].ts.tolist() == DAYS[:1]
    with pytest.raises(BarsError, match=r"bars of 1s are no base timeframe"):
        FileBars(write(tmp_path / "BTCUSDT-1s-2024-01.csv", row)).read()


def test_assets_of_several_timeframes_in_one_file_are_split(tmp_path: Path) -> None:
    hourly = [f"H,2024-01-01T0{i}:00:00Z,10,12,9,11,1" for i in range(3)]
    daily = [f"D,2024-01-0{i}T00:00:00Z,10,12,9,11,1" for i in (1, 2, 3)]
    fresh = [f"NEW,2024-01-01T05:0{i}:00Z,10,12,9,11,1" for i in (0, 3)]
    minute = [f"M,2024-01-01T00:0{i}:00Z,10,12,9,11,1" for i in range(9)]
    late = [f"M,2024-01-01T03:0{i}:00Z,10,12,9,11,1" for i in range(9)]
    rows = [*hourly, *daily, *fresh, *minute, *late]
    file = write(tmp_path / "all.csv", "\n".join([f"symbol,{HEADER}", *rows]) + "\n")
    bars = FileBars(file).read()
    assert {tf: p.assets for tf, p in bars.panels.items()} == {
        "1m": ("M", "NEW"),
        "1H": ("H",),
        "1D": ("D",),
    }
    assert bars.panels["1D"].ts.tolist() == DAYS
    assert counts(bars) == {"gap": (3 * 60 - 9) + 2}


def test_semicolons_padding_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    header = "\ufeff Date ; High ;Low; Open ; Close ;Volume"
    rows = [f"2024-01-0{day}; 12 ;9;1.0E+1; 11 ; 7" for day in (1, 2, 3)]
    bars = FileBars(write(tmp_path / "BTC.csv", "\n".join([header, *rows]) + "\n")).read()
    assert bars.panels["1D"].frame("BTC").iloc[0].tolist() == [10.0, 12.0, 9.0, 11.0, 7.0]


def test_missing_cells_are_counted_and_not_refused(tmp_path: Path) -> None:
    rows = ["2024-01-01,10,12,9,11,1", "2024-01-02,,12,9,11,1", "2024-01-03,10,12,9,11,"]
    bars = FileBars(write(tmp_path / "BTC.csv", "\n".join([HEADER, *rows]) + "\n")).read()
    assert counts(bars) == {"nan_price": 1, "gap": 1, "missing_volume": 1}


@pytest.mark.parametrize(
    "symbol", ["NULL", "None", "NA", "NaN", "TRUE", "INF", "000001", "1E5", "N-A", "1000PEPE"]
)
@pytest.mark.parametrize("around", ["{}", "{}   ", " {}", "\u200b{}\u00a0"])
def test_tickers_stay_as_they_are_written(tmp_path: Path, symbol: str, around: str) -> None:
    rows = [f"{around.format(symbol)},2024-01-0{d},10,12,9,11,1" for d in (1, 2)]
    rows.append(f"{symbol},2024-01-03,10,12,9,11,1")
    file = write(tmp_path / "x.csv", "\n".join([f"Symbol,{HEADER}", *rows]) + "\n")
    bars = FileBars(file).read()
    assert bars.panels["1D"].assets == (symbol,)
    assert bars.panels["1D"].ts.tolist() == DAYS


def test_a_bar_that_closes_after_the_export_is_unfinished(tmp_path: Path) -> None:
    file = three_bars(tmp_path, ["2024-01-01", "2024-01-02", "2024-01-03"])
    exported = datetime(2024, 1, 3, 12, tzinfo=UTC)
    bars = FileBars(file, as_of=exported).read()
    assert bars.panels["1D"].ts.tolist() == DAYS[:2]
    assert counts(bars) == {"unfinished_bar": 1}
    assert counts(FileBars(file, as_of=exported + timedelta(hours=12)).read()) == {}


def test_an_export_time_without_a_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no time zone"):
        FileBars(tmp_path, as_of=datetime(2024, 1, 1))  # noqa: DTZ001 - it is what is refused


def test_only_the_named_assets_are_read_and_unknown_ones_refused(test_data: Path) -> None:
    source = FileBars(test_data / "binance_daily.parquet")
    bars = source.read(["ETHUSDT", "BTCUSDT"])
    assert bars.panels["1D"].assets == ("BTCUSDT", "ETHUSDT")
    everything = source.read().panels["1D"]
    assert bars.panels["1D"].frame("ETHUSDT").equals(everything.frame("ETHUSDT"))
    with pytest.raises(UnknownName, match="'BTCUSD'; did you mean BTCUSDT"):
        source.read(["BTCUSD"])


GOOD_ROWS = "2024-01-01,10,12,9,11,1\n2024-01-02,10,12,9,11,1\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"a\.csv: the file is empty"),
        ("a.csv", HEADER + "\n", r"a\.csv: a header and no rows"),
        ("a.csv", HEADER.replace("close", "clse") + "\n" + GOOD_ROWS, "did you mean 'clse'"),
        ("a.csv", HEADER.replace("timestamp", "when") + "\n" + GOOD_ROWS, "for a stamp"),
        ("a.csv", HEADER + "\n" + GOOD_ROWS.replace("11", "eleven"), "invalid value 'eleven'"),
        (
            "a.csv",
            HEADER + "\n" + GOOD_ROWS + "2024-01-03,10\n",
            r"a\.csv, line 4: 2 cells in a table of 6 columns",
        ),
        ("a.csv", HEADER + "\n" + GOOD_ROWS[:24], "one stamp does not tell"),
        ("a.csv", HEADER + "\n" + GOOD_ROWS.replace("2024-01-02", ""), "1 of 2 rows have no stamp"),
        ("a.csv", HEADER + "\n" + GOOD_ROWS.replace("-", ""), "20240101 is not a time since"),
        (
            "a.csv",
            HEADER + "\n" + GOOD_ROWS.replace("2024-", "Jan "),
            "the stamp Jan 01-01 in line 2 cannot",
        ),
        (
            "a.csv",
            HEADER + ",close\n" + GOOD_ROWS.replace(",1\n", ",1,5\n"),
            "two columns are called 'close'",
        ),
        ("a.csv.gz", "no gzip", r"a\.csv\.gz: cannot be read"),
        ("a.parquet", "no parquet", r"a\.parquet: cannot be read"),
        ("a.doc", GOOD_ROWS, r"a\.doc: not one of \.parquet"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_and_reason(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(BarsError, match=message):
        FileBars(write(tmp_path / name, content)).read()


def test_a_distance_that_is_no_timeframe_is_refused(tmp_path: Path) -> None:
    stamps = [f"2024-01-01T0{hour}:00:00Z" for hour in (0, 2, 4)]
    with pytest.raises(BarsError, match=r"BTC: bars are 120 minutes apart"):
        FileBars(three_bars(tmp_path, stamps)).read()


def test_a_missing_path_and_a_folder_without_bars_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BarsError, match="no such file or folder"):
        FileBars(tmp_path / "gone.csv").read()
    with pytest.raises(BarsError, match=r"no \.parquet.* file in it"):
        FileBars(tmp_path).symbols()


@settings(max_examples=20, deadline=None)
@given(
    holes=st.sets(st.integers(1, 28), max_size=5),
    ending=st.sampled_from([".csv", ".csv.gz", ".csv.zst", ".parquet"]),
    convention=st.sampled_from(["open", "close"]),
)
def test_what_is_written_is_read_back_whatever_the_format(
    tmp_path_factory: pytest.TempPathFactory, holes: set[int], ending: str, convention: str
) -> None:
    days = sorted(set(range(30)) - holes)
    start = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(days, unit="D")
    close = np.random.default_rng(len(days)).lognormal(0, 0.1, len(days))
    written = pd.DataFrame(
        {
            "symbol": "BTC",
            "ts": start + pd.Timedelta(days=1, seconds=-1) if convention == "close" else start,
            "open": close,
            "high": 2 * close,
            "low": close / 2,
            "close": close,
            "volume": close,
        }
    )
    file = tmp_path_factory.mktemp("written") / f"bars{ending}"
    if ending == ".parquet":
        written.to_parquet(file)
    else:
        with pa.output_stream(str(file), compression="detect") as stream:
            stream.write(written.to_csv(index=False).encode())
    panel = FileBars(file).read().panels["1D"]
    assert panel.ts.tolist() == [close_stamp(int(s.timestamp() * 1e6)) for s in start]
    assert panel["close"].tolist() == close.tolist()
