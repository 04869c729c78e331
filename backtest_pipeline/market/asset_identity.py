"""Whether the bars of a ticker are those of one coin, and what kind of asset they show.

A ticker is not an asset: exchanges reuse it for another coin, stop trading it, or quote it by the
thousand. What stands under one ticker at price levels that no market connects are several series,
and never joined; all else is told and left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US

LARGEST_STEP = 100.0
"""From one bar's close to the next one's open, either way; beyond it is no market.

Of 735,000 bars of four real data sets the largest is x1.94, within a bar x4.56 (DOGE, 2021-01-28).
After a hole no less is asked for: within 30 days true prices moved by x99.7 (TRX, December 2017)
and by x106 (ANC, May 2022), so that a smaller step there would split true series.
"""
FEWEST_BARS = 30
"""Bars on another level that make a coin; fewer are damage, as far as anybody can tell yet."""
MOST_LEVELS = 100
"""Levels that are told apart; what has more is noise."""
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

STRAY = -1
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
            f"the price changes {LARGEST_STEP:g}-fold or more between two bars and stays: another "
            "coin or unit, whose bars are the asset SYMBOL.2 (SYMBOL.3 and so on)"
        ),
    )
    LATER_COIN = "later_coin", "the bars stood under the ticker of an earlier coin"
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


def jumps(panel: Panel) -> np.ndarray:
    """Logarithm of each bar's open over the close before it where that is a jump, else 0."""
    return np.where(_beyond(step := _step(panel, "open", "close")), step, 0.0)


def coins(panel: Panel) -> np.ndarray:
    """For each row to which coin of its ticker it belongs: 0, 1, ..., or STRAY.

    Bars between two jumps are a stretch; stretches on the same level, none of them a jump from
    the first, are one coin. A coin has FEWEST_BARS; the first to have so many keeps the ticker,
    so that more bars never rename one. What lies on other levels is stray. Where no level has so
    many bars the one with the most is the ticker's. A bar whose open or whose close alone is on
    another level is stray by itself.
    """
    coin = np.zeros(len(panel), np.int64)
    step = jumps(panel)
    if not step.any():
        return coin
    # A jump that the opens, or the closes, of both bars do not make is one odd price.
    by_open = _beyond(_step(panel, "open", "open"))
    by_close = _beyond(_step(panel, "close", "close"))
    odd_open = (step != 0) & ~by_close
    odd_close = (step != 0) & ~by_open & by_close
    stray = odd_open | np.append(odd_close[1:], False)
    step = np.where(odd_open | odd_close, 0.0, step)
    for i in np.unique(panel.segment_of_row[(step != 0) | stray]).tolist():
        rows = slice(int(panel.offsets[i]), int(panel.offsets[i + 1]))
        sound = ~stray[rows]
        of_rows = np.full(len(sound), STRAY)
        of_rows[sound] = _coins_of(np.cumsum(step[rows])[sound])
        coin[rows] = of_rows
    return coin


def _step(panel: Panel, here: str, before: str) -> np.ndarray:
    step = np.zeros(len(panel))
    step[1:] = np.log(panel[here][1:]) - np.log(panel[before][:-1])
    step[panel.offsets[:-1][panel.lengths > 0]] = 0.0
    return step


def _beyond(step: np.ndarray) -> np.ndarray:
    return np.abs(step) >= np.log(LARGEST_STEP)


def _coins_of(level: np.ndarray) -> np.ndarray:
    """Coins of one ticker from the level of each of its sound bars."""
    coin = np.full(len(level), STRAY)
    left = np.ones(len(level), bool)
    groups = []
    while left.any() and len(groups) < MOST_LEVELS:
        near = left & ~_beyond(level - level[left.argmax()])
        groups.append(np.flatnonzero(near))
        left &= ~near
    grown = [rows for rows in groups if len(rows) >= FEWEST_BARS]
    grown.sort(key=lambda rows: rows[FEWEST_BARS - 1])
    for i, rows in enumerate(grown or [max(groups, key=len, default=[])]):
        coin[rows] = i
    return coin


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
    return tuple(
        sorted(
            remark
            for panel in panels.values()
            for asset, n in zip(panel.assets, panel.lengths, strict=True)
            if n
            for remark in (
                *_of_bars(panel, asset, newest[panel.timeframe.name]),
                *_of_ticker(panel, asset, later),
                *_of_contract(panel, asset, contracts),
            )
        )
    )


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
        detail = f"under the ticker {ticker}, at another price level"
        yield Remark(asset, tf, Trait.LATER_COIN, first, last, detail, ticker)
    others = [other for other, of in later.items() if of == asset]
    if others:
        detail = f"the ticker's bars at other price levels are {', '.join(others)}"
        yield Remark(asset, tf, Trait.TICKER_REUSED, first, last, detail, others[0])


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
