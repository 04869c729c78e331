"""Assets told from others of the same ticker by their bars, see `market.asset_identity`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from backtest_pipeline.market.asset_identity import remarks_on
from backtest_pipeline.market.errors import BarsError
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.validation import Reason, RowIssue
from backtest_pipeline.sources.base import AssetInfo, SourceBars, require_known

_LATER = re.compile(r"\.[1-9]\d*$")


def ticker_of(symbol: str, tickers: Collection[str]) -> str:
    """What the source calls an asset: `LUNA` for `LUNA.2`, unless that is a ticker itself."""
    return symbol if symbol in tickers else _LATER.sub("", symbol)


def told_apart(
    panels: Mapping[str, Panel],
    issues: Sequence[RowIssue],
    infos: Mapping[str, AssetInfo],
    assets: Sequence[str] | None,
    newest: Mapping[str, int],
    where: str,
) -> SourceBars:
    """What a source read, each later coin of a ticker as an asset of its own, with all defects.

    Args:
        panels: validated bars by timeframe.
        issues: what was wrong with the raw rows.
        infos: the tickers that the source has.
        assets: those that were asked for, later coins among them; None for all.
        newest: the source's newest stamp by timeframe.
        where: the source, for messages.

    Raises:
        UnknownName: for an asset that was asked for and that there is not.
        BarsError: where a later coin would be called as another asset is.
    """
    later = {i.asset: _LATER.sub("", i.asset) for i in issues if i.reason is Reason.LATER_COIN}
    for symbol, ticker in later.items():
        if symbol in infos:
            raise BarsError(
                f"{where}: the bars of {ticker} are those of several coins, the later of which "
                f"would be called {symbol}, but there is an asset of that name; rename that one"
            )
    known = {
        **infos,
        **{
            symbol: AssetInfo(
                symbol,
                f"{infos[ticker].name}, later coin",
                infos[ticker].asset_class,
                None,
                infos[ticker].synthetic,
            )
            for symbol, ticker in later.items()
        },
    }
    wanted = sorted(known if assets is None else set(assets))
    require_known(wanted, list(known))
    chosen = set(wanted)
    asked = {
        name: panel.select([a for a in panel.assets if a in chosen])
        for name, panel in panels.items()
    }
    remarks = remarks_on(panels, list(known), later, newest)
    return SourceBars(
        {name: panel for name, panel in asked.items() if panel.assets},
        tuple(known[symbol] for symbol in wanted),
        tuple(issue for issue in issues if issue.asset in chosen),
        tuple(remark for remark in remarks if remark.asset in chosen),
    )
