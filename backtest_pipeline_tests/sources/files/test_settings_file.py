"""`bars.toml`: what the user states of files of bars."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from backtest_pipeline.market.errors import BarsError, InvalidInput
from backtest_pipeline.sources.files import FileBars
from backtest_pipeline.sources.files.inspection import inspect_bars
from backtest_pipeline_tests.market.bars import close_stamp
from backtest_pipeline_tests.sources.files.three_bars import (
    DAYS,
    HIGH,
    HOURS,
    LOW,
    OPEN,
    ROW,
    VOLUME,
    require_bars,
    write,
)


def put(folder: Path, name: str, closes: list[float], start: str = "2024-01-01") -> None:
    days = pd.date_range(start, periods=len(closes))
    rows = [f"{day:%Y-%m-%d},{p},{p},{p},{p},10" for day, p in zip(days, closes, strict=True)]
    (folder / name).write_text("\n".join(["ts,open,high,low,close,volume", *rows]) + "\n")


def stepped(before: float, after: float) -> list[float]:
    return [before] * 40 + [after] * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path, "AAA.csv", stepped(100.0, 10.0))
    put(tmp_path, "BBB.csv", stepped(100.0, 10.0))
    return tmp_path


def closes(source: FileBars) -> dict[str, list[float]]:
    panel = source.read().panels["1D"]
    return {asset: panel["close"][panel.rows_of(asset)].tolist() for asset in panel.assets}


def test_without_a_setting_a_lasting_step_parts_assets(folder: Path) -> None:
    assert set(closes(FileBars(folder))) == {"AAA", "AAA.2", "BBB", "BBB.2"}


def test_the_settings_beside_files_say_what_their_steps_are(folder: Path) -> None:
    (folder / "bars.toml").write_text('steps = "same"\n[files."AAA.csv"]\nsteps = "split"\n')
    source = FileBars(folder)
    assert closes(source) == {"AAA": [10.0] * 80, "BBB": stepped(100.0, 10.0)}
    (panel,) = source.read().panels.values()
    assert panel["volume"][panel.rows_of("AAA")].tolist() == stepped(100.0, 10.0)
    (folder / "bars.toml").unlink()
    assert set(closes(source)) == {"AAA", "AAA.2", "BBB", "BBB.2"}


def test_the_setting_may_follow_the_path_and_goes_before_the_files(folder: Path) -> None:
    (folder / "bars.toml").write_text('steps = "same"\n')
    assert closes(FileBars(f"{folder}/AAA.csv?steps=split")) == {"AAA": [10.0] * 80}


def test_the_rows_of_an_asset_in_several_files_go_by_one_rule(folder: Path) -> None:
    for name in ("AAA.csv", "BBB.csv"):
        (folder / name).unlink()
    for part, closes_of_part, start in (
        ("a", [100.0] * 40, "2024-01-01"),
        ("b", [10.0] * 40, "2024-02-10"),
    ):
        put(folder, f"{part}.csv", closes_of_part, start)
    settings = folder / "bars.toml"
    settings.write_text('symbol = "CCC"\n[files."b.csv"]\nsteps = "split"\n')
    assert closes(FileBars(folder)) == {"CCC": [10.0] * 80}
    settings.write_text(settings.read_text() + '[files."a.csv"]\nsteps = "same"\n')
    with pytest.raises(BarsError, match=r"CCC: steps = '\w+' here and '\w+' in another of its"):
        FileBars(folder).read()


def test_one_asset_of_a_file_may_have_rules_of_its_own(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=80)
    rows = [
        f"{symbol},{day:%Y-%m-%d},{price},{price},{price},{price},10"
        for symbol in ("BTC/USDT", "ETH", "SOL")
        for day, price in zip(days, stepped(100.0, 10.0), strict=True)
    ]
    header = "symbol,ts,open,high,low,close,volume"
    (tmp_path / "all.csv").write_text("\n".join([header, *rows]) + "\n")
    settings = tmp_path / "bars.toml"
    settings.write_text('[symbols."BTC/USDT"]\nsteps = "split"\n[symbols.SOL]\nsteps = "same"\n')
    assert closes(FileBars(tmp_path)) == {
        "BTC--USDT": [10.0] * 80,
        "ETH": [100.0] * 40,
        "ETH.2": [10.0] * 40,
        "SOL": stepped(100.0, 10.0),
    }
    settings.write_text(f'steps = "same"\n{settings.read_text()}')
    assert closes(FileBars(tmp_path))["BTC--USDT"] == [10.0] * 80
    assert closes(FileBars(tmp_path))["ETH"] == stepped(100.0, 10.0)
    in_file = '[files."all.csv".symbols.ETH]\nsteps = "split"\n'
    settings.write_text(settings.read_text() + in_file)
    assert closes(FileBars(tmp_path))["ETH"] == [10.0] * 80
    assert closes(FileBars(tmp_path))["BTC--USDT"] == [10.0] * 80
    assert closes(FileBars(f"{tmp_path}/all.csv?steps=same"))["ETH"] == stepped(100.0, 10.0)


def test_one_asset_of_a_file_may_have_a_timeframe_of_its_own(tmp_path: Path) -> None:
    stamps = pd.date_range("2024-01-01", periods=6, freq="2D")
    rows = [f"{s},{at:%Y-%m-%d},1,1,1,1,1" for s in ("AAA", "BBB") for at in stamps]
    header = "symbol,ts,open,high,low,close,volume"
    (tmp_path / "all.csv").write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "bars.toml").write_text(
        'timeframe = "2D"\n[symbols.AAA]\ntimeframe = "1D"\nsteps = "same"\n'
    )
    read = FileBars(tmp_path).read()
    assert {tf: panel.assets for tf, panel in read.panels.items()} == {
        "1D": ("AAA",),
        "2D": ("BBB",),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('symbols = "BTC"', r'below \[symbols."SYMBOL"\]'),
        ("[symbols]\nBTC = 1", r'\[symbols."BTC"\]: not a table of settings; known: timeframe'),
        ('[symbols.BTC]\nstep = "same"', r'\[symbols."BTC"\]: .*did you mean steps'),
        ('[symbols.BTC]\nsteps = "joined"', "it is 'split' or 'same'"),
        ('[symbols.BTC]\ntz = "UTC"', "unknown setting 'tz'"),
    ],
)
def test_what_cannot_be_said_of_an_asset_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "bars.toml").write_text(text + "\n")
    with pytest.raises(BarsError, match=message):
        FileBars(folder).read()


def test_settings_of_what_is_not_there_are_told(folder: Path) -> None:
    settings = folder / "bars.toml"
    settings.write_text('[symbols.AAB]\nsteps = "same"\n[files."bbbb*.csv"]\nsteps = "same"\n')
    told = FileBars(folder).looked_at().unread
    assert told == (
        f'{settings}, [files."bbbb*.csv"]: no such file; it has no effect',
        f"{settings}, [symbols.\"AAB\"] has no effect: unknown symbol 'AAB'; did you mean AAA?",
    )
    assert FileBars(folder).read().unread == told
    # Beside one file they may be those of its neighbours.
    assert FileBars(next(folder.glob("*.csv"))).looked_at().unread == ()


def test_other_words_are_refused_with_those_that_there_are(folder: Path) -> None:
    (folder / "bars.toml").write_text('steps = "joined"\n')
    with pytest.raises(BarsError, match="steps = 'joined'; it is 'split' or 'same'"):
        FileBars(folder).read()
    with pytest.raises(InvalidInput, match="steps = 'joined'; it is 'split' or 'same'"):
        FileBars(f"{folder}/AAA.csv?steps=joined")


def test_inspecting_offers_the_setting(folder: Path) -> None:
    assert '# steps = "split"' in inspect_bars(FileBars(folder)).settings


def test_a_decimal_comma_is_declared_and_never_guessed(tmp_path: Path) -> None:
    rows = [f"{day};10,0;12,0;9,0;11,0;1.100,5" for day in DAYS]
    header = "Datum;Eröffnung;Hoch;Tief;Schluss;Volumen"
    file = write(tmp_path / "BTC.csv", "\n".join([header, *rows]) + "\n")
    with pytest.raises(BarsError, match=r"no column for .*Datum.*bars\.toml beside the file"):
        FileBars(file).read()
    columns = (
        '[columns]\nts = "Datum"\nopen = "Eröffnung"\nhigh = "Hoch"\nlow = "Tief"\n'
        'close = "Schluss"\nvolume = "Volumen"\n'
    )
    write(tmp_path / "bars.toml", columns)
    with pytest.raises(
        BarsError, match=r"line 2: column 'Eröffnung': .*'10,0', which may be 10\.0 .* or 100 "
    ):
        FileBars(file).read()
    write(tmp_path / "bars.toml", 'decimal = ","\n' + columns)
    require_bars(file, "BTC", "1D", DAYS, 1100.5)


def test_a_day_and_a_month_that_may_change_places(tmp_path: Path) -> None:
    def file(stamps: list[str]) -> Path:
        rows = [f"{at},{ROW}" for at in stamps]
        head = "Date,Open,High,Low,Close,Volume"
        return write(tmp_path / "BTC.csv", "\n".join([head, *rows]) + "\n")

    with pytest.raises(BarsError, match=r"02/01/2024 in line 3 may be 2024-02-01 or 2024-01-02"):
        FileBars(file(["01/01/2024", "02/01/2024", "03/01/2024"])).read()
    write(tmp_path / "bars.toml", 'stamp_format = "%d/%m/%Y"\n')
    require_bars(tmp_path / "BTC.csv", "BTC", "1D", DAYS)
    (tmp_path / "bars.toml").unlink()
    # The thirteenth is no month.
    bars = FileBars(file([f"{day}/01/2024" for day in range(1, 14)])).read()
    assert len(bars.panels["1D"]) == 13


@pytest.mark.parametrize(
    ("tz", "stamp", "first"),
    [("America/New_York", "open", "05"), ("UTC", "close", "23"), ("Europe/Berlin", "open", "23")],
)
def test_the_zone_and_the_end_that_a_stamp_stands_for_are_stated(
    tmp_path: Path, tz: str, stamp: str, first: str
) -> None:
    rows = [f"2024-01-01 0{hour}:00:00,{ROW}" for hour in range(3)]
    write(tmp_path / "BTC.csv", "\n".join(["time,open,high,low,close,volume", *rows]) + "\n")
    write(tmp_path / "bars.toml", f'tz = "{tz}"\nstamp = "{stamp}"\n')
    panel = FileBars(tmp_path).read().panels["1H"]
    day = "2024-01-01" if first == "05" else "2023-12-31"
    assert int(panel.ts[0]) == close_stamp(f"{day}T{first}:00", "1H")
    query = FileBars(f"{tmp_path / 'BTC.csv'}?tz=UTC&stamp=open").read().panels["1H"]
    assert query.ts.tolist() == [close_stamp(hour, "1H") for hour in HOURS]


def test_columns_without_a_header_are_listed(tmp_path: Path) -> None:
    rows = [f"AAA,{day.replace('-', '')} 000000,11,{OPEN},{LOW},{HIGH},{VOLUME}" for day in DAYS]
    file = write(tmp_path / "x.csv", "\n".join(rows) + "\n")
    with pytest.raises(BarsError, match=r"the stamp AAA in line 1 cannot be read"):
        FileBars(file).read()
    listed = '["symbol", "ts", "close", "open", "low", "high", "volume"]'
    write(tmp_path / "bars.toml", f"columns = {listed}\n")
    require_bars(file, "AAA", "1D", DAYS)


def test_settings_of_one_file_go_before_those_of_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [f"{day} 00:00,{ROW}" for day in DAYS]
        text = "\n".join(["time,open,high,low,close,volume", *rows]) + "\n"
        write(tmp_path / f"{name}.csv", text)
    write(tmp_path / "bars.toml", 'symbol = "AAA"\n[files."b*"]\nsymbol = "BBB"\n')
    assert FileBars(tmp_path).symbols() == ("AAA", "BBB")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("zone = 'UTC'", r"bars\.toml: unknown setting 'zone'"),
        ("tz = 'Berlin'", r"no time zone 'Berlin'"),
        ("timeframe = '7X'", r"unknown timeframe '7X'"),
        ("timeframe = '1M_CAL'", r"follow the calendar"),
        ("stamp = 'begin'", r"it is 'open' or 'close'"),
        ("decimal = ';'", r"it is '\.' or ','"),
        ("columns = { price = 'x' }", r"unknown column 'price'"),
        ("columns = { close = 'Last' }", r"no column 'Last', which bars\.toml gives for close"),
        ("columns = 3", r"columns is a table"),
        ("tz = ", r"cannot be read as TOML"),
        ("symbol = 3", r"symbol is a text"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, toml: str, message: str) -> None:
    text = "\n".join(["ts,open,high,low,close,volume", *(f"{day},{ROW}" for day in DAYS)]) + "\n"
    write(tmp_path / "BTC.csv", text)
    write(tmp_path / "bars.toml", toml + "\n")
    with pytest.raises(BarsError, match=message):
        FileBars(tmp_path / "BTC.csv").read()
