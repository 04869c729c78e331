"""Files of funding rates: symbols stay text, and formats are those of bars."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.sources.funding import read_funding

SYMBOLS = ["NULL", "None", "NA", "NaN", "TRUE", "INF", "000001", "1E5", "BTC/USDT:USDT", "nan"]


@pytest.mark.parametrize("ending", ["csv", "parquet", "feather", "json", "csv.gz"])
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_symbols_are_text_as_written(tmp_path: Path, ending: str, symbol: str) -> None:
    frame = pd.DataFrame(
        {"symbol": [symbol, f" {symbol} "], "fundingTime": [1704067200000, 1704096000000]}
    ).assign(fundingRate=[0.0001, -0.0002])
    file = tmp_path / f"rates.{ending}"
    writers = {"parquet": frame.to_parquet, "feather": frame.to_feather}
    if ending == "json":
        frame.to_json(file, orient="records")
    elif ending in writers:
        writers[ending](file)
    else:
        frame.to_csv(file, index=False)
    (found,) = read_funding(file).items()
    assert found[0] == symbol
    assert found[1].tolist() == [0.0001, -0.0002]
    assert list(found[1].index) == list(pd.date_range("2024-01-01", periods=2, freq="8h", tz="UTC"))


def test_binances_dump_names_the_symbol_in_its_name(tmp_path: Path) -> None:
    file = tmp_path / "BTCUSDT-fundingRate-2024-01.csv"
    file.write_text("calc_time,funding_interval_hours,last_funding_rate\n1704067200000,8,0.0001\n")
    assert list(read_funding(file)) == ["BTCUSDT"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symbol,ts\nBTC,2024-01-01\n", "no column 'rate'; there are symbol, ts"),
        ("symbol,ts,rate\n,2024-01-01,0\n", "1 rows have no symbol"),
        ("symbol,ts,rate\nBTC,2024-01-01,x\n", "line 2: column 'rate': invalid value 'x'"),
        ("symbol,ts,rate\nBTC,then,0\n", "the stamp then in line 2 cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rates.csv").write_text(text)
    with pytest.raises(BarsError, match=message):
        read_funding(tmp_path / "rates.csv")
