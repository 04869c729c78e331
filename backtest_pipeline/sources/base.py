"""What every source of bars offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from backtest_pipeline.market.asset_identity import Remark
from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.validation import RowIssue


@dataclass(frozen=True)
class AssetInfo:
    """Who an asset is.

    Attributes:
        symbol: the name in partition keys.
        name: for people; the symbol where the source tells nothing better.
        asset_class: for example `crypto`.
        asset_id: CoinMarketCap id, or None where the source knows none.
        synthetic: whether the bars are invented.
    """

    symbol: str
    name: str
    asset_class: str
    asset_id: int | None
    synthetic: bool


@dataclass(frozen=True)
class SourceBars:
    """What one read brought.

    Attributes:
        panels: validated bars (sorted, unique, complete) by the name of their timeframe.
        assets: the assets in the panels, by symbol.
        issues: what was wrong with the raw rows, skipped or only counted.
        remarks: what the bars and symbols tell about who the assets are.
        unread: a sentence on each file, or asset of one, that was left out, and why.
        hits, misses: series that a cache had all of, or not; 0 of a source without one.
    """

    panels: Mapping[str, Panel]
    assets: tuple[AssetInfo, ...]
    issues: tuple[RowIssue, ...]
    remarks: tuple[Remark, ...] = ()
    unread: tuple[str, ...] = ()
    hits: int = 0
    misses: int = 0


class BarSource(Protocol):
    """A place that bars come from."""

    @property
    def name(self) -> str:
        """For messages and provenance."""
        ...

    @property
    def synthetic(self) -> bool:
        """Whether the bars are invented."""
        ...

    def symbols(self) -> tuple[str, ...]:
        """The assets it has, sorted."""
        ...

    def states(self, assets: Sequence[str]) -> Mapping[str, str]:
        """What tells, without reading, whether the bars of each asset are what they were.

        The same text means the same bars, as long as no bar ends in between that was unfinished.
        An asset of which only a read tells is left out.
        """
        ...

    def read(self, assets: Sequence[str] | None = None) -> SourceBars:
        """The bars of the named assets, or of all.

        Raises:
            UnknownName: for an asset it does not have, with the nearest names.
            BarsError: where the bars cannot be read.
        """
        ...


def require_known(assets: Sequence[str], known: Sequence[str]) -> None:
    """Raises UnknownName for the first of `assets` that is not among `known`."""
    present = set(known)
    for asset in assets:
        if asset not in present:
            raise UnknownName("asset", asset, known)
