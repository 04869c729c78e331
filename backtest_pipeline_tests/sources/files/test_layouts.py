"""Files as exchanges and tools write them, after their own descriptions, and what they hold."""

from __future__ import annotations

import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline.sources.files.layouts import LAYOUTS, layouts_table
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

KLINE_TAIL = "1050.5,7,50.5,530.5,0"


def zipped(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def klines(opens: list[int], length_ms: int, per_ms: int = 1) -> str:
    """Rows of Binance's klines, in milliseconds or finer."""
    return "".join(
        f"{at * per_ms},{ROW},{(at + length_ms) * per_ms - 1},{KLINE_TAIL}\n" for at in opens
    )


FUTURES_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)


@pytest.mark.parametrize("per_ms", [1, 1000])
@pytest.mark.parametrize("header", ["", FUTURES_HEADER])
@pytest.mark.parametrize("stem", ["BTCUSDT-1h-2024-01", "BTCUSDT-1h-2024-01-01"])
def test_binance_vision(tmp_path: Path, per_ms: int, header: str, stem: str) -> None:
    text = header + klines(HOUR_MS, 3_600_000, per_ms)
    write(tmp_path / f"{stem}.zip.CHECKSUM", "0" * 64 + f"  {stem}.zip\n")
    zipped(tmp_path / f"{stem}.zip", {f"{stem}.csv": text})
    require_bars(tmp_path, "BTCUSDT", "1H", HOURS)
    require_bars(tmp_path / f"{stem}.zip", "BTCUSDT", "1H", HOURS)


def test_binance_vision_of_futures_with_an_expiry_and_of_months_in_both_units(
    tmp_path: Path,
) -> None:
    zipped(
        tmp_path / "BTCUSD_PERP-1h-2024-01.zip",
        {"BTCUSD_PERP-1h-2024-01.csv": klines(HOUR_MS[:2], 3_600_000)},
    )
    zipped(
        tmp_path / "BTCUSD_PERP-1h-2024-02.zip",
        {"BTCUSD_PERP-1h-2024-02.csv": klines(HOUR_MS[2:], 3_600_000, 1000)},
    )
    require_bars(tmp_path, "BTCUSD_PERP", "1H", HOURS)


def test_an_archive_beside_the_file_of_another_month_is_read_too(tmp_path: Path) -> None:
    write(tmp_path / "BTCUSDT-1h-2024-01.csv", klines(HOUR_MS[:1], 3_600_000))
    zipped(
        tmp_path / "BTCUSDT-1h-2024-02.zip",
        {"BTCUSDT-1h-2024-02.csv": klines(HOUR_MS[1:], 3_600_000)},
    )
    require_bars(tmp_path, "BTCUSDT", "1H", HOURS)


CDD_HEADER = "Unix,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT,tradecount"
URL = "https://www.CryptoDataDownload.com\n"


@pytest.mark.parametrize("url", [URL, ""])
def test_cryptodatadownload(tmp_path: Path, url: str) -> None:
    rows = [
        f"{ms},{hour.replace('T', ' ')}:00,BTC/USDT,{ROW},1055.25,7"
        for ms, hour in zip(HOUR_MS, HOURS, strict=True)
    ]
    text = url + "\n".join([CDD_HEADER, *reversed(rows)]) + "\n"
    file = write(tmp_path / "Binance_BTCUSDT_1h.csv", text)
    bars = FileBars(file).read()
    panel = bars.panels["1H"]
    assert panel.ts.tolist() == [close_stamp(hour, "1H") for hour in HOURS]
    assert panel["volume"].tolist() == [VOLUME] * 3


def test_cryptodatadownload_of_the_years_without_an_epoch(tmp_path: Path) -> None:
    rows = [f"2024-01-01 {hour}-AM,BTCUSD,{ROW},1055.25" for hour in ("12", "01", "02")]
    header = "Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USD"
    file = write(tmp_path / "Coinbase_BTCUSD_1h.csv", URL + "\n".join([header, *rows]) + "\n")
    require_bars(file, "BTCUSD", "1H", HOURS)


def freqtrade_frame(freq: str) -> pd.DataFrame:
    stamps = pd.date_range("2024-01-01", periods=3, freq=freq, tz="UTC").as_unit("ms")
    return pd.DataFrame(
        {"date": stamps, "open": OPEN, "high": HIGH, "low": LOW, "close": CLOSE, "volume": VOLUME}
    )


def as_json_rows(frame: pd.DataFrame) -> str:
    ms = frame["date"].dt.tz_convert(None).astype("M8[ms]").astype("int64")
    return json.dumps([[int(at), OPEN, HIGH, LOW, CLOSE, VOLUME] for at in ms])


FREQTRADE_WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "feather": lambda frame, path: frame.to_feather(path, compression="lz4"),
    "parquet": lambda frame, path: frame.to_parquet(path),
    "json": lambda frame, path: write(path, as_json_rows(frame)),
    "json.gz": lambda frame, path: write(path, gzip.compress(as_json_rows(frame).encode())),
}


@pytest.mark.parametrize("ending", FREQTRADE_WRITERS)
def test_freqtrade(tmp_path: Path, ending: str) -> None:
    for interval, freq in {"1h": "h", "1d": "D"}.items():
        FREQTRADE_WRITERS[ending](freqtrade_frame(freq), tmp_path / f"BTC_USDT-{interval}.{ending}")
    bars = FileBars(tmp_path).read()
    assert {tf: panel.assets for tf, panel in bars.panels.items()} == {
        "1H": ("BTC_USDT",),
        "1D": ("BTC_USDT",),
    }
    assert bars.panels["1H"].ts.tolist() == [close_stamp(hour, "1H") for hour in HOURS]
    assert bars.panels["1D"].ts.tolist() == [close_stamp(day) for day in DAYS]
    assert (bars.issues, bars.unread) == ((), ())


def test_freqtrades_futures_are_read_and_what_is_no_traded_price_is_named(tmp_path: Path) -> None:
    for kind in ("futures", "mark", "funding_rate"):
        freqtrade_frame("h").to_feather(tmp_path / f"BTC_USDT_USDT-1h-{kind}.feather")
    bars = FileBars(tmp_path).read()
    assert bars.panels["1H"].assets == ("BTC_USDT_USDT",)
    assert len(bars.panels["1H"]) == 3
    assert [sentence.split(": ")[1][:29] for sentence in bars.unread] == [
        "by its name no bars of traded"
    ] * 2


@pytest.mark.parametrize(
    ("name", "symbol", "tf"),
    [
        ("BINANCE_BTCUSDT, 60.csv", "BINANCE_BTCUSDT", "1H"),
        ("BINANCE_BTCUSDT.P, 60_a1b2c.csv", "BINANCE_BTCUSDT.P", "1H"),
        ("BINANCE_BTCUSDT, 1D.csv", "BINANCE_BTCUSDT", "1D"),
        ("COINBASE_BTCUSD, 1D (1).csv", "COINBASE_BTCUSD", "1D"),
    ],
)
@pytest.mark.parametrize("stamps", ["epoch", "iso", "offset"])
def test_tradingview(tmp_path: Path, name: str, symbol: str, tf: str, stamps: str) -> None:
    starts = HOURS if tf == "1H" else DAYS
    ms = HOUR_MS if tf == "1H" else DAY_MS
    written = {
        "epoch": [str(at // 1000) for at in ms],
        "iso": [pd.Timestamp(at, unit="ms").strftime("%Y-%m-%dT%H:%M:%SZ") for at in ms],
        "offset": [
            pd.Timestamp(at, unit="ms", tz="UTC").tz_convert("Asia/Tokyo").isoformat() for at in ms
        ],
    }[stamps]
    rows = [f"{at},{ROW},99" for at in written]
    text = "\n".join(["time,open,high,low,close,Volume,Volume MA", *rows]) + "\n"
    require_bars(write(tmp_path / name, text), symbol, tf, starts)


def test_tradingview_without_a_volume(tmp_path: Path) -> None:
    rows = [f"{ms // 1000},10,12,9,11" for ms in DAY_MS]
    text = "\n".join(["time,open,high,low,close", *rows]) + "\n"
    require_bars(write(tmp_path / "FX_EURUSD, 1D.csv", text), "FX_EURUSD", "1D", DAYS, None)


YAHOO_ROWS = [f"{day},10,12,9,11,10.5,100.5" for day in DAYS]


def test_yahoo(tmp_path: Path) -> None:
    text = "\n".join(["Date,Open,High,Low,Close,Adj Close,Volume", *YAHOO_ROWS]) + "\n"
    require_bars(write(tmp_path / "BTC-USD.csv", text), "BTC-USD", "1D", DAYS)


@pytest.mark.parametrize(
    "header",
    [
        # 0.2.41 to 0.2.50 with one ticker, and today's
        "Price,Adj Close,Close,High,Low,Open,Volume\nTicker,{0},{0},{0},{0},{0},{0}\nDate,,,,,,",
        "Ticker,{0},{0},{0},{0},{0},{0}\nPrice,Adj Close,Close,High,Low,Open,Volume\nDate,,,,,,",
        ",Adj Close,Close,High,Low,Open,Volume\n,{0},{0},{0},{0},{0},{0}\nDate,,,,,,",
    ],
)
@pytest.mark.parametrize("stamps", [DAYS, [f"{day} 00:00:00+00:00" for day in DAYS]])
def test_yfinance(tmp_path: Path, header: str, stamps: list[str]) -> None:
    rows = [f"{at},10.5,11,12,9,10,100.5" for at in stamps]
    text = "\n".join([header.format("BTC-USD"), *rows]) + "\n"
    require_bars(write(tmp_path / "download.csv", text), "BTC-USD", "1D", DAYS)


def yfinance_frame() -> pd.DataFrame:
    fields = {"Close": CLOSE, "High": HIGH, "Low": LOW, "Open": OPEN, "Volume": VOLUME}
    pairs = [(field, ticker) for field in fields for ticker in ("BTC-USD", "ETH-USD")]
    return pd.DataFrame(
        {pair: fields[pair[0]] for pair in pairs},
        index=pd.DatetimeIndex(DAYS, name="Date"),
        columns=pd.MultiIndex.from_tuples(pairs, names=["Price", "Ticker"]),
    )


@pytest.mark.parametrize("group_by", ["Price", "Ticker"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_yfinance_of_several_tickers(tmp_path: Path, group_by: str, ending: str) -> None:
    frame = yfinance_frame()
    if group_by == "Ticker":
        frame = frame.swaplevel(axis=1).sort_index(axis=1)
    file = tmp_path / f"download.{ending}"
    frame.to_csv(file) if ending == "csv" else frame.to_parquet(file)
    bars = FileBars(file).read()
    assert bars.panels["1D"].assets == ("BTC-USD", "ETH-USD")
    assert bars.panels["1D"].ts.tolist() == [close_stamp(day) for day in DAYS] * 2
    assert bars.panels["1D"].frame("ETH-USD").iloc[1].tolist() == [OPEN, HIGH, LOW, CLOSE, VOLUME]


def test_kraken(tmp_path: Path) -> None:
    rows = "".join(f"{ms // 1000},{ROW},7\n" for ms in HOUR_MS)
    daily = "".join(f"{ms // 1000},{ROW},7\n" for ms in DAY_MS)
    require_bars(write(tmp_path / "one" / "XBTUSD_60.csv", rows), "XBTUSD", "1H", HOURS)
    both = zipped(tmp_path / "Kraken_OHLCVT.zip", {"XBTUSD_60.csv": rows, "XBTUSD_1440.csv": daily})
    bars = FileBars(both).read()
    assert {tf: (panel.assets, len(panel)) for tf, panel in bars.panels.items()} == {
        "1H": (("XBTUSD",), 3),
        "1D": (("XBTUSD",), 3),
    }


@pytest.mark.parametrize("name", [None, "Date"])
def test_an_index_with_or_without_a_name(tmp_path: Path, name: str | None) -> None:
    frame = freqtrade_frame("D").set_index("date").rename_axis(name)
    frame.to_parquet(tmp_path / "BTC.parquet")
    require_bars(tmp_path / "BTC.parquet", "BTC", "1D", DAYS)
    frame.to_csv(tmp_path / "ETH.csv")
    require_bars(tmp_path / "ETH.csv", "ETH", "1D", DAYS)
    frame.to_feather(tmp_path / "XRP.feather")
    require_bars(tmp_path / "XRP.feather", "XRP", "1D", DAYS)


def test_an_index_of_numbers_is_no_stamp(tmp_path: Path) -> None:
    frame = freqtrade_frame("D").assign(date=["a", "b", "c"]).rename(columns={"date": "when"})
    frame.to_csv(tmp_path / "BTC.csv")
    with pytest.raises(BarsError, match=r"0 is not a time since 1970"):
        FileBars(tmp_path / "BTC.csv").read()


def test_hive_folders(tmp_path: Path) -> None:
    for symbol in ("BTC%2FUSDT", "ETHUSDT"):
        for year in (2023, 2024):
            folder = tmp_path / f"symbol={symbol}" / "timeframe=1h" / f"year={year}"
            folder.mkdir(parents=True)
            frame = freqtrade_frame("h")
            frame["date"] -= pd.Timedelta(days=365 * (2024 - year))
            frame.to_parquet(folder / "part-0.parquet")
    bars = FileBars(tmp_path).read()
    assert len(bars.panels["1H"].assets) == 2
    assert bars.panels["1H"].lengths.tolist() == [6, 6]
    assert bars.unread == ()


def test_one_asset_of_two_venues_is_never_joined(tmp_path: Path) -> None:
    for venue in ("binance", "bybit"):
        folder = tmp_path / f"exchange={venue}" / "symbol=BTCUSDT"
        folder.mkdir(parents=True)
        freqtrade_frame("h").to_parquet(folder / "part-0.parquet")
    with pytest.raises(BarsError, match=r"BTCUSDT is there as exchange=binance and as exchange="):
        FileBars(tmp_path).read()
    require_bars(tmp_path / "exchange=bybit", "BTCUSDT", "1H", HOURS)


@pytest.mark.parametrize("ending", ["csv.xz", "csv.gz", "CSV.GZ", "csv.bz2", "csv.zst", "CSV"])
def test_compressed_files_and_endings_of_any_case(tmp_path: Path, ending: str) -> None:
    text = "\n".join(["ts,open,high,low,close,volume", *(f"{day},{ROW}" for day in DAYS)]) + "\n"
    compress: dict[str, Callable[[bytes], bytes]] = {
        "xz": lzma.compress,
        "gz": gzip.compress,
        "bz2": __import__("bz2").compress,
        "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    }
    pack = compress.get(ending.rpartition(".")[2].lower(), bytes)
    require_bars(write(tmp_path / f"BTC.{ending}", pack(text.encode())), "BTC", "1D", DAYS)


RECORDS = [
    {"ts": ms, "open": OPEN, "high": HIGH, "low": LOW, "close": CLOSE, "volume": VOLUME}
    for ms in DAY_MS
]
JSON_SHAPES = {
    "records": json.dumps(RECORDS),
    "lines": "\n".join(map(json.dumps, RECORDS)),
    "wrapped": json.dumps({"status": "ok", "data": RECORDS}),
    "columns": json.dumps({name: [r[name] for r in RECORDS] for name in RECORDS[0]}),
    "pandas columns": pd.DataFrame(RECORDS).to_json(),
    "pandas split": pd.DataFrame(RECORDS).to_json(orient="split"),
    "pandas index": pd.DataFrame(RECORDS).set_index("ts").to_json(orient="split"),
    "klines": json.dumps([[ms, "10", "12", "9", "11", "100.5", ms + 1, *"12345"] for ms in DAY_MS]),
    "ccxt": json.dumps([[ms, OPEN, HIGH, LOW, CLOSE, VOLUME] for ms in DAY_MS]),
}


@pytest.mark.parametrize("shape", JSON_SHAPES)
def test_json(tmp_path: Path, shape: str) -> None:
    require_bars(write(tmp_path / "BTC.json", JSON_SHAPES[shape]), "BTC", "1D", DAYS)


def test_columns_that_nobody_named_in_another_order_are_refused(tmp_path: Path) -> None:
    coinbase = [[ms // 1000, LOW, HIGH, OPEN, CLOSE, VOLUME] for ms in DAY_MS]
    with pytest.raises(BarsError, match=r'columns = \["ts", "low", "high", "open", "close"'):
        FileBars(write(tmp_path / "BTC.json", json.dumps(coinbase))).read()
    write(tmp_path / "bars.toml", 'columns = ["ts", "low", "high", "open", "close", "volume"]\n')
    require_bars(tmp_path / "BTC.json", "BTC", "1D", DAYS)


def test_two_columns_of_one_name_in_parquet(tmp_path: Path) -> None:
    frame = freqtrade_frame("D")
    arrays = {name: pa.array(frame[name]) for name in frame.columns}
    for other, message in [
        (arrays["close"], None),
        (pa.nulls(3), None),
        (pa.array([1.0, 2.0, 3.0]), "two columns are called 'close' and differ"),
    ]:
        file = tmp_path / "BTC.parquet"
        pq.write_table(
            pa.Table.from_arrays([*arrays.values(), other], names=[*arrays, "close"]), file
        )
        if message is None:
            require_bars(file, "BTC", "1D", DAYS)
        else:
            with pytest.raises(BarsError, match=message):
                FileBars(file).read()


def test_every_layout_is_in_the_documentation() -> None:
    docs = Path(__file__).parents[3] / "docs" / "bars.md"
    assert layouts_table() in docs.read_text()
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
