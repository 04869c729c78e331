"""Partition keys: one (asset, timeframe)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.symbols import SYMBOL_PATTERN
from backtest_pipeline.market.timeframes import timeframe


class Partition(NamedTuple):
    """One asset at one timeframe; `str()` gives the Dagster key `BTC|1D`."""

    asset: str
    timeframe: str

    def __str__(self) -> str:
        return f"{self.asset}|{self.timeframe}"

    @staticmethod
    def parse(key: str) -> Partition:
        """The partition of a key `ASSET|TIMEFRAME`; raises InvalidInput or UnknownName."""
        asset, bar, tf = key.partition("|")
        if not bar:
            raise InvalidInput(f"partition key {key!r} is not of the form ASSET|TIMEFRAME")
        return Partition(checked_symbol(asset), timeframe(tf).name)


def checked_symbol(symbol: str) -> str:
    """The symbol itself; raises InvalidInput where it cannot be part of a partition key."""
    if not re.fullmatch(SYMBOL_PATTERN, symbol):
        raise InvalidInput(
            f"symbol {symbol!r} cannot be a partition key: use 1 to 32 letters, digits, "
            "'.', '_' or '-', starting with a letter or digit"
        )
    return symbol


def usable_symbols(symbols: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The symbols that can be keys, and a sentence on each of the others."""
    usable, left_out = [], []
    for symbol in symbols:
        try:
            usable.append(checked_symbol(symbol))
        except InvalidInput as error:
            left_out.append(str(error))
    return tuple(usable), tuple(left_out)
