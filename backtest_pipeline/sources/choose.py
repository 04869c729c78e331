"""Which source a path means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import backtest_pipeline.sources as folder

if TYPE_CHECKING:
    from backtest_pipeline.sources.base import BarSource
    from backtest_pipeline.sources.cache import BarCache

EXCHANGES = tuple(found.name for found in iter_modules(folder.__path__) if found.ispkg)
"""Each is a folder of this one, whose `source.py` has an `open_source`."""


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
    """An exchange for `binance` or `binance:INTERVAL[,INTERVAL]`, files for any other path, else
    the synthetic sample market.

    Args:
        path: what the user wrote.
        access: tells how exchanges are asked; called for an exchange only.
        named: the assets that are wanted by name; an exchange has more than anybody wants.

    Raises:
        UnknownName: for an interval that there is not.
    """
    exchange, _, intervals = path.partition(":")
    if exchange in EXCHANGES:
        module = import_module(f"{folder.__name__}.{exchange}.source")
        return module.open_source(access(), intervals, named)
    if path:
        from backtest_pipeline.sources.files import FileBars

        return FileBars(path)
    from backtest_pipeline.sources.sample import SampleMarket

    return SampleMarket()


def require_source(path: str) -> None:
    """Raise for a path that `choose_source` can make no source of; no store and no exchange needed.

    Raises:
        UnknownName: for an interval that there is not.
        InvalidInput: for a setting behind the path that means nothing.
        BarsError: where no file or folder is there, or nothing in it can hold bars.
    """
    from backtest_pipeline.sources.files import FileBars
    from backtest_pipeline.sources.files.parts import parts_of

    source = choose_source(path, lambda: ExchangeAccess("https://", None))
    if isinstance(source, FileBars):
        parts_of(source.path)


def exchange_of(path: str) -> str:
    """What `choose_source` chooses for a path: the name of an exchange, `files` or `sample`."""
    exchange = path.partition(":")[0]
    if exchange in EXCHANGES:
        return exchange
    return "files" if path else "sample"
