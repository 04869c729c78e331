"""Whether the bars of a ticker are those of one coin, and what kind of asset they show.

A ticker is not an asset: exchanges reuse it for another coin, stop trading it, or quote it by the
thousand. What stands under one ticker at price levels that no market connects (see
`market.price_levels`) are several series, and never joined; all else is told and left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.price_levels import (
    FEWEST_BARS,
    LASTING_STEP,
    REMARKED_STEP,
    in_words,
    steps,
)
from backtest_pipeline.market.timeframes import DAY_US

LONG_HOLE_DAYS = 30
"""Of 213 real series none was away for longer than a day and a half and came back, but for one
that was for 166 days (USDC on Binance, delisted and listed again)."""
ENDED_DAYS = 30
"""Behind the newest bar of the source; no series of those that go on is a whole day behind."""
STABLE_BAND = 0.05
"""From 1, of the closes of a coin that is pinned to one unit of its quote currency."""
STABLE_SHARE = 0.95
"""Of a pinned coin's closes that lie in the band; the others are a depeg."""
STABLE_MOVE = 0.005
"""Median move of a pinned coin in a day at the most: of real ones 0.0001 to 0.0039, of other coins
0.0116 and more (of gold, PAXG, 0.0038, but its price is not near 1)."""

_PRICES = ("open", "high", "low", "close")
_MULTIPLE = re.compile(
    r"(?P<many>10{3,6})(?P<coin>[A-Za-z].*)"
    r"|(?P<name>[A-Za-z]+?)(?P<times>10{3,6})(?P<quote>USDT|USDC|USD|BUSD|PERP)"
)


class Trait(StrEnum):
    """What an asset is besides a series of bars.

    Attributes:
        explanation: one line for people.
    """

    explanation: str

    def __new__(cls, value: str, explanation: str) -> Trait:
        member = str.__new__(cls, value)
        member._value_ = value
        member.explanation = explanation
        return member

    TICKER_REUSED = (
        "ticker_reused",
        (
            f"the price changes {LASTING_STEP:g}-fold or more between two bars and stays: a split "
            "that the source did not apply, another unit or another coin, whose bars are the asset "
            "SYMBOL.2 (SYMBOL.3 and so on)"
        ),
    )
    LATER_COIN = (
        "later_coin",
        "the bars stood under a ticker of other prices before: another coin, unit, or a split",
    )
    PRICE_STEP = (
        "price_step",
        f"the price changes {REMARKED_STEP:g}-fold or more between two bars of the series",
    )
    IDENTICAL = "identical", "the prices are, bit for bit, those of another asset of the source"
    LONG_HOLE = "long_hole", f"no bars for {LONG_HOLE_DAYS} days or more, and the price goes on"
    ENDED = (
        "ended",
        (
            f"the last bar is more than {ENDED_DAYS} days before the source's newest: delisted, or "
            "not continued there"
        ),
    )
    STABLE = (
        "stable",
        (
            f"{STABLE_SHARE:.0%} of the closes within {STABLE_BAND:.0%} of 1, and a median move of "
            f"{STABLE_MOVE:.1%} a day at the most: pinned to its quote currency"
        ),
    )
    MULTIPLE = "multiple", "priced per 1,000 (or another power of ten) coins, as the symbol says"
    SAME_COIN = "same_coin", "another contract of the source is on the same coin; never merged"


def traits_table() -> str:
    """The traits as a Markdown table, as docs/data-quality.md shows it."""
    rows = [f"| `{trait.value}` | {trait.explanation} |" for trait in Trait]
    return "\n".join(["| trait | meaning |", "| --- | --- |", *rows]) + "\n"


@dataclass(frozen=True, order=True)
class Remark:
    """A trait of one asset.

    Attributes:
        asset: symbol.
        timeframe: of the bars that show it.
        trait: which.
        first_ts, last_ts: of the bars (or the hole) that show it, microseconds since 1970 UTC.
        detail: the figures, for people.
        related: the other symbol, where there is one.
    """

    asset: str
    timeframe: str
    trait: Trait
    first_ts: int
    last_ts: int
    detail: str
    related: str | None = None


def later_name(asset: str, coin: int) -> str:
    """What a later coin of a ticker is called: `LUNA.2` for coin 1 of LUNA."""
    return f"{asset}.{coin + 1}"


def coin_of_contract(symbol: str) -> tuple[str, int] | None:
    """The symbol of the single coin and how many of it `symbol` is priced per; else None."""
    match = _MULTIPLE.fullmatch(symbol)
    if match is None:
        return None
    if match["many"]:
        return match["coin"], int(match["many"])
    return match["name"] + match["quote"], int(match["times"])


def remarks_on(
    panels: Mapping[str, Panel],
    symbols: Collection[str],
    later: Mapping[str, str],
    newest: Mapping[str, int],
) -> tuple[Remark, ...]:
    """What the bars and the symbols of a source tell about its assets, sorted.

    Args:
        panels: validated bars by timeframe.
        symbols: all that the source has, also those without bars here.
        later: the ticker of each later coin.
        newest: the source's newest stamp by timeframe, microseconds since 1970 UTC.
    """
    contracts: dict[str, list[str]] = {}
    for symbol in sorted(symbols):
        contracts.setdefault((coin_of_contract(symbol) or (symbol,))[0], []).append(symbol)
    of_assets = [
        remark
        for panel in panels.values()
        for asset, n in zip(panel.assets, panel.lengths, strict=True)
        if n
        for remark in (
            *_of_bars(panel, asset, newest[panel.timeframe.name]),
            *_of_ticker(panel, asset, later),
            *_of_contract(panel, asset, contracts),
        )
    ]
    return tuple(sorted(of_assets + [r for panel in panels.values() for r in _identical(panel)]))


def _of_bars(panel: Panel, asset: str, newest_us: int) -> Iterator[Remark]:
    rows = panel.rows_of(asset)
    ts, close = panel.ts[rows], panel["close"][rows]
    first, last, tf = int(ts[0]), int(ts[-1]), panel.timeframe.name
    distance = np.diff(ts)
    if len(distance) and distance.max() >= LONG_HOLE_DAYS * DAY_US:
        at = int(distance.argmax())
        factor = panel["open"][rows][at + 1] / close[at]
        detail = f"no bars for {distance[at] // DAY_US} days, then {factor:.3g} times the price"
        yield Remark(asset, tf, Trait.LONG_HOLE, int(ts[at]), int(ts[at + 1]), detail)
    step = steps(panel)[rows]
    far = np.flatnonzero(np.abs(step) >= np.log(REMARKED_STEP))
    # A long hole tells its own.
    far = far[distance[far - 1] < LONG_HOLE_DAYS * DAY_US]
    if len(far):
        at, more = int(far[0]), f", and {len(far) - 1} more" if len(far) > 1 else ""
        detail = f"step of {in_words(step[at])} between two bars{more}"
        yield Remark(asset, tf, Trait.PRICE_STEP, int(ts[at - 1]), int(ts[far[-1]]), detail)
    behind = (newest_us - last) // DAY_US
    if behind > ENDED_DAYS:
        detail = f"{behind} days before the newest bar of the source"
        yield Remark(asset, tf, Trait.ENDED, last, last, detail)
    pinned = float(np.mean(np.abs(close - 1.0) <= STABLE_BAND))
    if pinned >= STABLE_SHARE and len(ts) >= FEWEST_BARS:
        move = float(np.median(np.abs(np.diff(np.log(close))) / np.sqrt(distance / DAY_US)))
        if move <= STABLE_MOVE:
            detail = f"{pinned:.1%} of the closes near 1, median move {move:.3%} a day"
            yield Remark(asset, tf, Trait.STABLE, first, last, detail)


def _of_ticker(panel: Panel, asset: str, later: Mapping[str, str]) -> Iterator[Remark]:
    ts, tf = panel.ts[panel.rows_of(asset)], panel.timeframe.name
    first, last = int(ts[0]), int(ts[-1])
    ticker = later.get(asset)
    if ticker is not None:
        detail = f"under the ticker {ticker}, after a {_step_before(panel, asset, ticker, later)}"
        yield Remark(asset, tf, Trait.LATER_COIN, first, last, detail, ticker)
    others = [other for other, of in later.items() if of == asset]
    if others:
        step = _step_before(panel, others[0], asset, later)
        detail = f"{step}; the bars after it are {', '.join(others)}"
        yield Remark(asset, tf, Trait.TICKER_REUSED, first, last, detail, others[0])


def _step_before(panel: Panel, asset: str, ticker: str, later: Mapping[str, str]) -> str:
    """The step from the asset that had the ticker before this one, in words."""
    ts = panel.ts[panel.rows_of(asset)]
    past = [
        panel.rows_of(other).stop - 1
        for other in panel.assets
        if other in (ticker, *(symbol for symbol, of in later.items() if of == ticker))
        and panel.rows_of(other).stop > panel.rows_of(other).start
        and panel.ts[panel.rows_of(other).stop - 1] < ts[0]
    ]
    if not past:
        return "step between two bars"
    before = max(past, key=lambda row: int(panel.ts[row]))
    step = np.log(panel["open"][panel.rows_of(asset).start]) - np.log(panel["close"][before])
    day = panel.ts[panel.rows_of(asset).start : panel.rows_of(asset).start + 1].view("M8[us]")
    if abs(step) < np.log(LASTING_STEP):
        return (
            f"stretch of fewer than {FEWEST_BARS} bars on another level, which are left out, "
            f"before {day[0].astype('M8[D]')}"
        )
    return f"step of {in_words(float(step))} between two bars, before {day[0].astype('M8[D]')}"


def _identical(panel: Panel) -> Iterator[Remark]:
    """Assets whose prices are those of others in FEWEST_BARS bars or more, at the same stamps.

    Bars of one price tell nothing: many series stand still at the same number. Of more than two
    assets with the same bars, each names its neighbours in the panel.
    """
    moving = np.flatnonzero(panel["high"] > panel["low"])
    bits = [panel.ts[moving], *(panel[n][moving].view(np.int64) for n in _PRICES)]
    order = np.lexsort(bits)
    same = np.logical_and.reduce([b[order[1:]] == b[order[:-1]] for b in bits])
    segment = panel.segment_of_row[moving][order]
    pairs = np.sort(np.stack([segment[:-1][same], segment[1:][same]]), axis=0)
    found, counts = np.unique(pairs, axis=1, return_counts=True)
    others: dict[str, dict[str, int]] = {}
    for (i, j), n in zip(found.T.tolist(), counts.tolist(), strict=True):
        if n >= FEWEST_BARS:
            for one, other in ((i, j), (j, i)):
                others.setdefault(panel.assets[one], {})[panel.assets[other]] = n
    for asset, same_bars in others.items():
        ts = panel.ts[panel.rows_of(asset)]
        detail = "; ".join(
            f"{n:,} of {len(ts):,} bars have the prices of {other}"
            for other, n in same_bars.items()
        )
        yield Remark(
            asset,
            panel.timeframe.name,
            Trait.IDENTICAL,
            int(ts[0]),
            int(ts[-1]),
            detail,
            next(iter(same_bars)),
        )


def _of_contract(panel: Panel, asset: str, contracts: Mapping[str, list[str]]) -> Iterator[Remark]:
    ts, tf = panel.ts[panel.rows_of(asset)], panel.timeframe.name
    first, last = int(ts[0]), int(ts[-1])
    contract = coin_of_contract(asset)
    if contract is not None:
        coin, many = contract
        yield Remark(asset, tf, Trait.MULTIPLE, first, last, f"priced per {many:,} of {coin}", coin)
    together = contracts.get(contract[0] if contract else asset, [])
    if len(together) > 1:
        detail = f"contracts on one coin: {', '.join(together)}"
        related = next(symbol for symbol in together if symbol != asset)
        yield Remark(asset, tf, Trait.SAME_COIN, first, last, detail, related)
