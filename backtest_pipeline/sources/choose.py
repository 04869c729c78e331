"""Which source a path means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backtest_pipeline.sources.base import BarSource

if TYPE_CHECKING:
    from backtest_pipeline.sources.cache import BarCache

_BINANCE = "binance"
_DEFAULT_INTERVAL = "1d"


@dataclass(frozen=True)
class ExchangeAccess:
    """How exchanges are asked.

    Attributes:
        binance_url: base address.
        cache_folder: where bars are kept; None to ask for all of them at every read.
        cache_bytes: kept bars beyond this are removed, those used longest ago first.
        cache_days: kept bars that were not used for so long are removed.
    """

    binance_url: str
    cache_folder: Path | None
    cache_bytes: int = 10**10
    cache_days: float = 365.0

    def cache(self) -> BarCache | None:
        """The kept bars."""
        from backtest_pipeline.sources.cache import BarCache

        if self.cache_folder is None:
            return None
        return BarCache(self.cache_folder, self.cache_bytes, self.cache_days)


def choose_source(
    path: str, access: Callable[[], ExchangeAccess], named: Sequence[str] = ()
) -> BarSource:
    """Binance for `binance` or `binance:INTERVAL[,INTERVAL]`, files for any other path, else the
    synthetic sample market.

    Args:
        path: what the user wrote.
        access: tells how exchanges are asked; called for an exchange only.
        named: the assets that are wanted by name; an exchange has more than anybody wants.

    Raises:
        UnknownName: for an interval that there is not.
    """
    _, _, intervals = path.partition(":")
    if exchange_of(path) == _BINANCE:
        return _binance(access(), intervals or _DEFAULT_INTERVAL, named)
    if path:
        from backtest_pipeline.sources.files import FileBars

        return FileBars(path)
    from backtest_pipeline.sources.sample import SampleMarket

    return SampleMarket()


def exchange_of(path: str) -> str:
    """What `choose_source` chooses for a path: `binance`, `files` or `sample`."""
    if path.partition(":")[0] == _BINANCE:
        return _BINANCE
    return "files" if path else "sample"


def _binance(access: ExchangeAccess, intervals: str, named: Sequence[str]) -> BarSource:
    from backtest_pipeline.sources.binance.client import BinanceClient
    from backtest_pipeline.sources.binance.klines import timeframe_of
    from backtest_pipeline.sources.binance.source import BinanceBars

    return BinanceBars(
        BinanceClient(access.binance_url),
        access.cache(),
        [timeframe_of(interval.strip()) for interval in intervals.split(",")],
        named,
    )
