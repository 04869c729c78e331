"""Folders as they lie about: what is read, and what is left out and named."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.files import FileBars

ROWS = "ts,open,high,low,close,volume\n" + "".join(
    f"2024-01-0{day},10,12,9,11,1\n" for day in (1, 2, 3)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bars").mkdir()
    (tmp_path / "bars" / "AAA.csv").write_text(ROWS)
    return tmp_path / "bars"


def put(folder: Path, name: str, content: str | bytes) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


IGNORED: dict[str, Callable[[Path], object]] = {
    "macOS": lambda d: put(d, ".DS_Store", b"\0\0\0\1Bud1"),
    "AppleDouble": lambda d: put(d, "._AAA.csv", b"\0\5\x16\7Mac OS X"),
    "checksum": lambda d: put(d, "AAA.zip.CHECKSUM", "0" * 64),
    "success": lambda d: put(d, "_SUCCESS", ""),
}
NAMED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda d: put(d, "B.csv", ""), "B.csv: the file is empty"),
    "damaged": (lambda d: put(d, "B.parquet", "x"), "B.parquet: cannot be read"),
    "cut": (lambda d: put(d, "B.csv.gz", b"\x1f\x8b\x08\0"), "B.csv.gz: cannot be read"),
    "damaged archive": (lambda d: put(d, "B.zip", "x"), "B.zip: cannot be read"),
    "all missing": (
        lambda d: put(d, "B.csv", ROWS.replace(",11,", ",,")),
        "B.csv: column 'close' is empty in all rows",
    ),
    "other data": (lambda d: put(d, "B.csv", "a,b\n1,2\n"), "B.csv: no column for a stamp"),
    "another ending": (lambda d: put(d, "B.pdf", "x"), "B.pdf: not one of .parquet"),
    "workbook": (lambda d: put(d, "B.XLSX", "x"), "B.XLSX: a workbook, which is not read; save"),
    "HDF5": (lambda d: put(d, "B.h5", "x"), "B.h5: HDF5, which is not read; write its"),
    "text": (
        lambda d: put(d, "README.txt", "Bars of 2024.\n\nOpen, high, low and close, in dollars.\n"),
        "README.txt: ",
    ),
    "text that is empty": (lambda d: put(d, "B.txt", ""), "B.txt: the file is empty"),
    "text of bytes": (lambda d: put(d, "B.txt", bytes(range(256))), "B.txt: "),
    "folder": (lambda d: (d / "sub").mkdir(), "sub: a sub-folder, which is not read"),
    "folder like a file": (lambda d: (d / "B.csv").mkdir(), "B.csv: a sub-folder"),
    "dangling link": (
        lambda d: os.symlink(d / "nowhere", d / "B.csv"),
        "B.csv: links to a file that is not there",
    ),
    "pipe": (lambda d: os.mkfifo(d / "B.csv"), "B.csv: is no file"),
}


@pytest.mark.parametrize("what", IGNORED)
def test_what_nobody_put_there_is_passed_over(folder: Path, what: str) -> None:
    IGNORED[what](folder)
    bars = FileBars(folder).read()
    assert (bars.panels["1D"].assets, bars.unread) == (("AAA",), ())


@pytest.mark.parametrize("what", NAMED)
def test_what_cannot_be_read_is_left_out_and_named(
    folder: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, message = NAMED[what]
    make(folder)
    bars = FileBars(folder).read()
    assert bars.panels["1D"].assets == ("AAA",)
    (sentence,) = bars.unread
    assert message in sentence
    assert message in caplog.text


def test_where_nothing_can_be_read_the_first_reason_is_told(folder: Path) -> None:
    put(folder, "AAA.csv", "")
    put(folder, "B.csv", "")
    with pytest.raises(BarsError, match=r"AAA\.csv: the file is empty.*\(and 1 more\)"):
        FileBars(folder).read()


def test_a_link_to_a_file_and_an_ending_of_any_case_are_read(folder: Path, tmp_path: Path) -> None:
    put(tmp_path, "real.csv", ROWS)
    os.symlink(tmp_path / "real.csv", folder / "LINK.csv")
    put(folder, "UP.CSV", ROWS)
    bars = FileBars(folder).read()
    assert (bars.panels["1D"].assets, bars.unread) == (("AAA", "LINK", "UP"), ())


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_text_that_is_csv_is_read_as_csv(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "AAA.csv").write_text(ROWS)
    (tmp_path / "BBB.txt").write_text(ROWS.replace(",", delimiter))
    (tmp_path / "CCC.TXT.gz").write_bytes(gzip.compress(ROWS.encode()))
    bars = FileBars(tmp_path).read()
    panel = bars.panels["1D"]
    assert (panel.assets, bars.unread) == (("AAA", "BBB", "CCC"), ())
    for name, column in panel.columns.items():
        csv, *texts = (column[panel.rows_of(asset)] for asset in panel.assets)
        for text in texts:
            np.testing.assert_array_equal(text, csv, err_msg=name)


def test_text_that_is_ambiguous_is_refused_as_csv_is(tmp_path: Path) -> None:
    rows = ROWS.replace("2024-01-0", "0").replace(",10,", "/01/2024,10,")
    refused = []
    for name in ("AAA.csv", "AAA.txt"):
        file = tmp_path / name
        file.write_text(rows)
        with pytest.raises(BarsError, match="may be 2024-02-01 or") as caught:
            FileBars(file).read()
        refused.append(str(caught.value).replace(name, "AAA"))
    assert refused[0] == refused[1]


def test_what_lies_in_an_archive_is_treated_as_in_a_folder(folder: Path) -> None:
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("bars/BBB.csv", ROWS)
        archive.writestr("__MACOSX/bars/._BBB.csv", b"\0\5\x16\7")
        archive.writestr("readme.pdf", "x")
    bars = FileBars(folder).read()
    assert bars.panels["1D"].assets == ("AAA", "BBB")
    assert [sentence.rpartition("/")[2][:30] for sentence in bars.unread] == [
        "more.zip!readme.pdf: not one of"[:30]
    ]


def test_an_asset_whose_timeframe_nobody_can_tell_does_not_stop_the_others(folder: Path) -> None:
    hours = pd.date_range("2024-01-01", periods=40, freq="2h", tz="UTC")
    frame = pd.DataFrame({"ts": hours, "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0})
    frame.assign(volume=np.nan).to_parquet(folder / "TWO.parquet")
    bars = FileBars(folder).read()
    assert bars.panels["1D"].assets == ("AAA",)
    (sentence,) = bars.unread
    assert "TWO: bars are 120 minutes apart, which is no base timeframe" in sentence


def symbols_file(path: Path, *symbols: str) -> Path:
    rows = [f"{s},2024-01-0{day},10,12,9,11,1\n" for s in symbols for day in (1, 2, 3)]
    path.write_text("symbol,ts,open,high,low,close,volume\n" + "".join(rows))
    return path


def test_symbols_as_ccxt_freqtrade_and_exchanges_write_them_are_assets_each(tmp_path: Path) -> None:
    written = ("BTC/USDT", "BTC/USDT:USDT", "BTC_USDT", "BTC-USDT", "BTCUSDT", "BTC USDT")
    source = FileBars(symbols_file(tmp_path / "x.csv", *written))
    assert len(set(source.symbols())) == len(written)
    bars = source.read(["BTC/USDT:USDT"])
    assert bars.panels["1D"].assets == ("BTC--USDT__USDT",)
    assert [info.name for info in bars.assets] == ["BTC/USDT:USDT"]


def test_of_two_symbols_with_one_key_none_is_joined_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = symbols_file(tmp_path / "x.csv", "BTC/USDT", "BTC--USDT", "ETH")
    bars = FileBars(file).read()
    assert bars.panels["1D"].assets == ("BTC--USDT", "ETH")
    assert bars.panels["1D"].lengths.tolist() == [3, 3]
    (sentence,) = bars.unread
    assert "'BTC/USDT' has the key BTC--USDT, as 'BTC--USDT' has" in sentence
    (tmp_path / "keys.toml").write_text('"BTC/USDT" = "BTC-SPOT"\n')
    monkeypatch.setenv("BACKTEST_SYMBOL_KEYS", str(tmp_path / "keys.toml"))
    assert FileBars(file).symbols() == ("BTC--USDT", "BTC-SPOT", "ETH")
