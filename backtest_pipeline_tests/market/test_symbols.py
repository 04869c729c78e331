"""Keys of symbols: what they are stays what it is, and every symbol has one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.market.symbols import KEYS_VARIABLE, SYMBOL_PATTERN, key_of

KEYS = {
    "BTCUSDT": "BTCUSDT",
    "BTC-USD": "BTC-USD",
    "BTC_USDT": "BTC_USDT",
    "BTC/USDT": "BTC--USDT",
    "BTC/USDT:USDT": "BTC--USDT__USDT",
    "BTC/USD:BTC-240329": "BTC--USD__BTC-240329",
    "BTC/USDT:USDT-260327-100000-C": "BTC--USDT__USDT-260327-100000-C",
    "BINANCE:BTCUSDT.P": "BINANCE__BTCUSDT.P",
    "^GSPC": "GSPC-df302d10",
    "ES1!": "ES1-2be0971c",
    "币安人生USDT": "USDT-c5309282",
    "\U0001f680": "S-ebbc0b28",
    "A" * 33: "A" * 23 + "-5d873590",
}


@pytest.mark.parametrize("symbol", KEYS)
def test_the_key_of_a_symbol_never_changes(symbol: str) -> None:
    assert key_of(symbol) == KEYS[symbol]


@given(st.text(min_size=1, max_size=60))
def test_every_symbol_has_a_key_and_a_key_is_its_own(symbol: str) -> None:
    key = key_of(symbol)
    assert re.fullmatch(SYMBOL_PATTERN, key)
    assert key_of(key) == key


def test_a_file_goes_before_the_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.toml"
    monkeypatch.setenv(KEYS_VARIABLE, str(file))
    with pytest.raises(ConfigurationError, match="check the path"):
        key_of("BTC/USDT")
    for text, message in [
        ("BTC/USDT = 'X'", "cannot be read as TOML"),
        ('"BTC/USDT" = "a b"', "the key 'a b' of 'BTC/USDT' is not"),
        ('"BTC/USDT" = "X"\n"ETH/USDT" = "X"', "two symbols have the key 'X'"),
    ]:
        file.write_text(text)
        file.touch()
        with pytest.raises(ConfigurationError, match=message):
            key_of("BTC/USDT")
    file.write_text('"BTC/USDT" = "BTCPERP"\n"币安人生USDT" = "BIANRENSHENG"')
    assert key_of("BTC/USDT") == key_of("BTCPERP") == "BTCPERP"
    assert key_of("币安人生USDT") == "BIANRENSHENG"
    assert key_of("ETH/USDT") == "ETH--USDT"
