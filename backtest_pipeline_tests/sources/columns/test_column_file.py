"""Files of columns: what is read of them, from when on it is known, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.errors import ColumnsError
from backtest_pipeline.sources.columns.column_file import Content, open_column_file

DAY_END = "2025-03-01 23:59:59.999"


def _frame(**columns: Any) -> pd.DataFrame:
    ts = pd.to_datetime(["2025-03-02 12:00", "2025-03-01 12:00", "2025-03-01 12:00"], utc=True)
    return pd.DataFrame({"symbol": ["A", "A", "B"], "ts": ts, "x": [1.0, 2.0, 3.0], **columns})


def _content(path: Path, frame: pd.DataFrame, **options: Any) -> Content:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return open_column_file(path, **options).content()


@pytest.mark.parametrize("name", ["f.csv", "f.parquet"])
def test_rows_are_sorted_and_flags_and_whole_numbers_become_numbers(
    tmp_path: Path, name: str
) -> None:
    frame = _frame(flag=[True, False, True], n=[1, 2, 3], gap=[1.5, None, np.inf])
    values = _content(tmp_path / name, frame).values
    assert (values.assets, values.offsets.tolist()) == (("A", "B"), [0, 2, 3])
    assert values.columns["x"].tolist() == [2.0, 1.0, 3.0]
    assert values.columns["flag"].tolist() == [0.0, 1.0, 1.0]
    assert values.columns["n"].tolist() == [2.0, 1.0, 3.0]
    np.testing.assert_array_equal(values.columns["gap"], [np.nan, 1.5, np.nan])


@pytest.mark.parametrize("name", ["f.csv", "f.parquet"])
def test_the_order_of_rows_and_columns_changes_nothing(tmp_path: Path, name: str) -> None:
    frame = _frame(y=[4.0, 5.0, 6.0])
    one = _content(tmp_path / name, frame).values
    other = _content(tmp_path / f"g{name}", frame.iloc[::-1][["y", "x", "ts", "symbol"]]).values
    assert one.assets == other.assets
    assert [*one.columns] == [*other.columns] == ["x", "y"]
    for column in one.columns:
        np.testing.assert_array_equal(one.columns[column], other.columns[column])


def test_a_date_is_known_when_its_day_ends(tmp_path: Path) -> None:
    end = np.datetime64(DAY_END, "us").astype(np.int64)
    (tmp_path / "f.csv").write_text("symbol,ts,x\nA,2025-03-01,1\n")
    assert open_column_file(tmp_path / "f.csv").content().values.known_at.tolist() == [end]
    day = pd.to_datetime(["2025-03-01"] * 3)
    for ts in (day, day.date):
        frame = _frame().assign(ts=ts).head(1)
        assert _content(tmp_path / "g.parquet", frame).values.known_at.tolist() == [end]
    midnight = _frame().assign(ts=day.tz_localize("UTC")).head(1)  # an instant, and no date
    known = _content(tmp_path / "h.parquet", midnight).values.known_at
    assert known.tolist() == [np.datetime64("2025-03-01", "us").astype(np.int64)]


def test_a_zone_is_stated_or_refused(tmp_path: Path) -> None:
    naive = _frame().assign(
        ts=pd.to_datetime(["2025-03-01 12:00", "2025-03-01 13:00", "2025-03-01 12:00"])
    )
    with pytest.raises(ColumnsError, match=r"without a time zone.*columns\.toml beside the file"):
        _content(tmp_path / "f.parquet", naive)
    known = _content(tmp_path / "g.parquet", naive, tz="America/New_York").values.known_at
    assert known[0] == np.datetime64("2025-03-01T17:00", "us").astype(np.int64)
    dates = naive.assign(ts=pd.to_datetime(["2025-03-01", "2025-03-02", "2025-03-01"]))
    with pytest.raises(ColumnsError, match="the stamps are dates, which end at another instant in"):
        _content(tmp_path / "h.parquet", dates, tz="America/New_York")


def test_the_latest_of_the_rows_that_are_known_counts(tmp_path: Path) -> None:
    """A row that arrives after one of a later time is read at no bar; a corrected one is."""
    frame = pd.DataFrame(
        {
            "symbol": "A",
            "ts": pd.to_datetime(["2025-03-01", "2025-03-02", "2025-03-02"], utc=True),
            "available_at": pd.to_datetime(["2025-03-05", "2025-03-03", "2025-03-04"], utc=True),
            "x": [1.0, 2.0, 3.0],
        }
    )
    values = _content(tmp_path / "f.parquet", frame).values
    assert values.columns["x"].tolist() == [2.0, 3.0]
    days = values.known_at.view("M8[us]").astype("M8[D]").astype(str).tolist()
    assert days == ["2025-03-03", "2025-03-04"]


def test_symbols_go_by_their_keys(tmp_path: Path) -> None:
    frame = _frame().assign(symbol=["BTC/USDT", "BTC/USDT", "ETH/USDT"])
    assert _content(tmp_path / "f.csv", frame).values.assets == ("BTC--USDT", "ETH--USDT")
    with pytest.raises(ColumnsError, match="BTC/USDT and BTC--USDT are all BTC--USDT; keep one"):
        _content(tmp_path / "g.csv", frame.assign(symbol=["BTC/USDT", "BTC--USDT", "X"]))


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (_frame().drop(columns="ts"), "there is no column ts"),
        (_frame().drop(columns=["ts", "symbol"]), "no column symbol and no column ts"),
        (_frame().drop(columns="x"), "it has no column beside symbol, ts"),
        (_frame(text=["a", "b", "c"]), "column text holds text, such as 'a' in row 1, and rules"),
        (_frame(close=1.0, rsi_5=2.0), "close, rsi_5 would hide what is computed from bars"),
        (_frame(**{"a b": 1.0}), "'a b' cannot name a column"),
        (_frame().assign(symbol=["A", None, "B"]), "some rows have no symbol"),
        (_frame().assign(symbol="A"), r"A has more than one row at 2025-03-01 12:00:00\+00:00"),
        (_frame().assign(ts=["2025-03-01T00:00Z", "x", "y"]), "ts|stamp"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_wrong_is_refused_with_its_place(
    tmp_path: Path, frame: pd.DataFrame, why: str, suffix: str
) -> None:
    path = tmp_path / f"f{suffix}"
    with pytest.raises(ColumnsError, match=why) as refused:
        _content(path, frame)
    assert str(path) in str(refused.value)


def test_what_is_no_file_of_its_kind_is_refused(tmp_path: Path) -> None:
    for name in ("f.parquet", "f.csv"):
        (tmp_path / name).write_bytes(b"\x00\x01")
        with pytest.raises(ColumnsError, match=rf"{name}: (it is no Parquet|there is no column)"):
            open_column_file(tmp_path / name)
    (tmp_path / "g.csv").write_text("symbol,ts,x\nA,2025-03-01T00:00Z,1,2\n")
    with pytest.raises(ColumnsError, match=r"g\.csv: cannot be read: .*Expected 3 columns, got 4"):
        open_column_file(tmp_path / "g.csv").content()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    one = _content(path, _frame())
    assert _content(path, _frame(x=[7.0, 8.0, 9.0])).values.columns["x"].tolist() == [8.0, 7.0, 9.0]
    assert one.digest != open_column_file(path).content().digest
