"""Which raw bars can be trusted, and what was wrong with the others.

Every row that goes in comes out or is counted as skipped under exactly one reason, so that
rows in = rows out + skipped rows. Other reasons only count what stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from backtest_pipeline.market.asset_identity import Trait, later_name
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.price_levels import (
    LASTING_STEP,
    STRAY,
    StepRule,
    coins,
    split_applied,
)
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, Timeframe

BARS_VERSION = 2
"""Raise it when the same source, or table of the user's own, is read, validated or resampled to
other bars."""
LEAST_PRICE, LARGEST_PRICE = 1e-30, 1e30
"""Of any asset in any unit; beyond them products of prices soon are no numbers any more."""
LARGEST_VOLUME = 1e30
"""In coins; the largest of a day in four real data sets is below 1e16."""


class Reason(StrEnum):
    """What can be wrong with bars, in the order of precedence for a row with several defects.

    Attributes:
        skips: whether the rows are left out; the others stay and are only counted.
        explanation: one line for people.
    """

    skips: bool
    explanation: str

    def __new__(cls, value: str, skips: bool, explanation: str) -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.skips = skips
        member.explanation = explanation
        return member

    NAN_PRICE = "nan_price", True, "a price is missing"
    INFINITE_PRICE = "infinite_price", True, "a price is infinite"
    NON_POSITIVE_PRICE = "non_positive_price", True, "a price is zero or negative"
    ABSURD_PRICE = (
        "absurd_price",
        True,
        f"a price is below {LEAST_PRICE:g} or above {LARGEST_PRICE:g}, as no asset's is",
    )
    HIGH_BELOW_LOW = "high_below_low", True, "the high is below the low"
    PRICE_OUTSIDE_RANGE = (
        "price_outside_range",
        True,
        # No row of 735,000 of four real data sets does this: it is damage, never the market.
        "the open or the close lies outside low..high, so nobody can say which price is wrong",
    )
    NEGATIVE_VOLUME = "negative_volume", True, "the volume is negative"
    MISALIGNED_STAMP = (
        "misaligned_stamp",
        True,
        "the stamp is not the close of a UTC period of this timeframe",
    )
    UNFINISHED_BAR = "unfinished_bar", True, "the bar's period was not over when it was read"
    DUPLICATE_CONFLICTING = (
        "duplicate_conflicting",
        True,
        "rows of one stamp differ; all are skipped, for nobody can say which is right",
    )
    DUPLICATE_EQUAL = "duplicate_equal", True, "a row is repeated unchanged; one of them is kept"
    PRICE_JUMP = (
        "price_jump",
        True,
        (
            f"a price is {LASTING_STEP:g}-fold or more off the bars before and after it, which "
            "agree; or a step of that size, and too few bars to tell another coin from damage"
        ),
    )
    TICKER_REUSED = Trait.TICKER_REUSED.value, True, Trait.TICKER_REUSED.explanation
    UNSORTED = "unsorted", False, "a row stood after a later one; the rows were sorted"
    GAP = "gap", False, "bars are missing between two bars, those skipped above included"
    MISSING_VOLUME = (
        "missing_volume",
        False,
        f"the volume is no number up to {LARGEST_VOLUME:g}; kept as NaN",
    )
    LATER_COIN = Trait.LATER_COIN.value, False, Trait.LATER_COIN.explanation
    ZERO_VOLUME = "zero_volume", False, "the volume is zero; the bar is kept"
    NOT_FETCHED = (
        "not_fetched",
        False,
        "the exchange could not be asked, and the cache does not have these bars",
    )


def reasons_table() -> str:
    """The reasons as a Markdown table, as docs/data-quality.md shows it."""
    rows = [
        f"| `{reason.value}` | {'skipped' if reason.skips else 'kept and counted'} |"
        f" {reason.explanation} |"
        for reason in Reason
    ]
    return "\n".join(["| reason | the rows are | because |", "| --- | --- | --- |", *rows]) + "\n"


@dataclass(frozen=True)
class RowIssue:
    """All rows of one asset and timeframe that share one reason.

    Attributes:
        asset: symbol.
        timeframe: name of the timeframe.
        reason: what is wrong.
        rows: how many rows; for `gap` how many bars are missing.
        first_ts: stamp of the first of them, microseconds since 1970 UTC.
        last_ts: stamp of the last of them.
    """

    asset: str
    timeframe: str
    reason: Reason
    rows: int
    first_ts: int
    last_ts: int


def validate_bars(
    raw: Panel, now_us: int, step_rules: Mapping[str, StepRule] | None = None
) -> tuple[Panel, tuple[RowIssue, ...]]:
    """The bars that can be trusted, sorted and unique, and what was found wrong.

    Args:
        raw: OHLCV columns; an asset's rows may be unsorted and hold duplicates.
        now_us: when the bars were read, microseconds since 1970 UTC; a bar that closes later is
            unfinished.
        step_rules: by asset what the user says of lasting steps, see `market.price_levels`.

    Returns:
        The panel of the same assets (some maybe empty now), each followed by the later coins of
        its ticker, see `market.asset_identity`; and the issues by asset and reason.

    Raises:
        InvalidInput: for a timeframe whose length follows the calendar.
    """
    length = base_length_us(raw.timeframe)
    segment = raw.segment_of_row
    order = np.lexsort((raw.ts, segment))
    verdict = _verdicts(raw, now_us, segment, order)
    issues = [
        *_unsorted(raw, segment),
        *(
            issue
            for code, reason in enumerate(_SKIPPING, start=1)
            for issue in tally(raw, reason, segment[verdict == code], raw.ts[verdict == code])
        ),
    ]
    columns = {name: column[order] for name, column in raw.columns.items()}
    ordered = Panel(raw.timeframe, raw.assets, raw.offsets, raw.ts[order], columns)
    sound = ordered.take(verdict[order] == 0)
    sound, found = _one_coin_each(sound, dict(step_rules or {}))
    issues += found
    clean, found = _inspect_kept(sound, length)
    issues += found
    positions = {asset: i for i, asset in enumerate(clean.assets)}
    issues.sort(key=lambda issue: (positions[issue.asset], _PRECEDENCE[issue.reason]))
    return clean, tuple(issues)


def base_length_us(timeframe: Timeframe) -> int:
    """Length in microseconds of a timeframe that bars can come in.

    Raises:
        InvalidInput: where the length follows the calendar.
    """
    if timeframe.length_us is None:
        raise InvalidInput(
            f"{timeframe.name} cannot be a base timeframe: its length follows the calendar; "
            "bring finer bars (1D or 1H) and resample them"
        )
    return timeframe.length_us


_SKIPPING = tuple(reason for reason in Reason if reason.skips)
_PRECEDENCE = {reason: i for i, reason in enumerate(Reason)}


def _verdicts(raw: Panel, now_us: int, segment: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For each row 0 (kept) or 1 + the position of its reason in `_SKIPPING`."""
    verdict = np.zeros(len(raw), np.int8)
    for reason, defective in _defects(raw, now_us):
        verdict[defective & (verdict == 0)] = 1 + _SKIPPING.index(reason)
    # Only sound rows vie for a stamp: a damaged twin does not cost the sound one.
    sound = order[verdict[order] == 0]
    repeated, conflicting = _duplicates(raw, segment, sound)
    verdict[sound[conflicting]] = 1 + _SKIPPING.index(Reason.DUPLICATE_CONFLICTING)
    verdict[sound[repeated & ~conflicting]] = 1 + _SKIPPING.index(Reason.DUPLICATE_EQUAL)
    return verdict


def bar_defects(raw: Panel) -> Iterator[tuple[Reason, np.ndarray]]:
    """What can be wrong with a bar by itself, and the rows where it is; the first one counts."""
    prices = np.stack([raw["open"], raw["high"], raw["low"], raw["close"]])
    open_, high, low, close = prices
    yield Reason.NAN_PRICE, np.logical_or.reduce(np.isnan(prices))
    yield Reason.INFINITE_PRICE, np.logical_or.reduce(np.isinf(prices))
    yield Reason.NON_POSITIVE_PRICE, np.logical_or.reduce(prices <= 0)
    yield (
        Reason.ABSURD_PRICE,
        np.logical_or.reduce((prices < LEAST_PRICE) | (prices > LARGEST_PRICE)),
    )
    yield Reason.HIGH_BELOW_LOW, high < low
    yield (
        Reason.PRICE_OUTSIDE_RANGE,
        (np.maximum(open_, close) > high) | (np.minimum(open_, close) < low),
    )
    yield Reason.NEGATIVE_VOLUME, raw["volume"] < 0


def _defects(raw: Panel, now_us: int) -> Iterator[tuple[Reason, np.ndarray]]:
    yield from bar_defects(raw)
    period_end = raw.timeframe.period_bounds(raw.ts)[1]
    yield Reason.MISALIGNED_STAMP, raw.ts != period_end - CLOSE_STAMP_US
    yield Reason.UNFINISHED_BAR, period_end > now_us


def _duplicates(raw: Panel, segment: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of `rows` (sorted by asset and stamp) repeat a stamp, and which are in conflict."""
    asset, ts = segment[rows], raw.ts[rows]
    repeated = np.zeros(len(rows), bool)
    repeated[1:] = (asset[1:] == asset[:-1]) & (ts[1:] == ts[:-1])
    stamp = np.cumsum(~repeated) - 1
    first = np.flatnonzero(~repeated)[stamp]
    differs = np.zeros(len(rows), bool)
    for column in raw.columns.values():
        here, there = column[rows], column[rows][first]
        differs |= (here != there) & ~(np.isnan(here) & np.isnan(there))
    conflicting = np.bincount(stamp, weights=differs) > 0
    return repeated, conflicting[stamp]


def _one_coin_each(panel: Panel, rules: dict[str, StepRule]) -> tuple[Panel, list[RowIssue]]:
    """The panel with an asset for each coin, and what became of the others' rows."""
    panel = split_applied(panel, rules)
    coin, segment = coins(panel, rules), panel.segment_of_row
    stray, later = coin == STRAY, coin > 0
    issues = [
        *tally(panel, Reason.PRICE_JUMP, segment[stray], panel.ts[stray]),
        *tally(panel, Reason.TICKER_REUSED, segment[later], panel.ts[later]),
    ]
    if not later.any():
        return panel.take(~stray), issues
    # Each asset, then the later coins of its ticker.
    order = np.lexsort((panel.ts, coin, segment))
    order = order[coin[order] != STRAY]
    named = {(i, 0): asset for i, asset in enumerate(panel.assets)} | {
        (i, k): later_name(panel.assets[i], k)
        for i, k in zip(segment[later].tolist(), coin[later].tolist(), strict=True)
    }
    keys = sorted(named)
    position = {key: n for n, key in enumerate(keys)}
    of_row = [position[k] for k in zip(segment[order].tolist(), coin[order].tolist(), strict=True)]
    split = Panel(
        panel.timeframe,
        tuple(named[key] for key in keys),
        np.searchsorted(of_row, np.arange(len(keys) + 1)).astype(np.int64),
        panel.ts[order],
        {name: column[order] for name, column in panel.columns.items()},
    )
    moved = np.array([k > 0 for _, k in keys])[split.segment_of_row]
    issues += tally(split, Reason.LATER_COIN, split.segment_of_row[moved], split.ts[moved])
    return split, issues


def _unsorted(raw: Panel, segment: np.ndarray) -> Iterator[RowIssue]:
    back = np.zeros(len(raw), bool)
    back[1:] = (raw.ts[1:] < raw.ts[:-1]) & (segment[1:] == segment[:-1])
    return tally(raw, Reason.UNSORTED, segment[back], raw.ts[back])


def _inspect_kept(kept: Panel, length_us: int) -> tuple[Panel, list[RowIssue]]:
    """The kept bars with every unknown volume as NaN, and what is odd about them."""
    segment, ts, volume = kept.segment_of_row, kept.ts, kept["volume"]
    unknown, zero = ~(volume <= LARGEST_VOLUME), volume == 0
    missing = np.zeros(len(kept), np.int64)
    missing[1:] = np.where(segment[1:] == segment[:-1], np.diff(ts) // length_us - 1, 0)
    after = np.flatnonzero(missing)
    issues = [
        *tally(
            kept,
            Reason.GAP,
            segment[after],
            ts[after - 1] + length_us,
            ts[after] - length_us,
            missing[after],
        ),
        *tally(kept, Reason.MISSING_VOLUME, segment[unknown], ts[unknown]),
        *tally(kept, Reason.ZERO_VOLUME, segment[zero], ts[zero]),
    ]
    return kept.with_columns({"volume": np.where(unknown, np.nan, volume)}), issues


def tally(
    panel: Panel,
    reason: Reason,
    segment: np.ndarray,
    first_ts: np.ndarray,
    last_ts: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> Iterator[RowIssue]:
    """One issue for each asset that `segment` names, over the rows given with it.

    Args:
        panel: the assets and their timeframe.
        reason: of all issues.
        segment: int, position of the asset in the panel, one for each row that counts.
        first_ts, last_ts: stamps that a row covers; the same where `last_ts` is not given.
        rows: how many each stands for; one where not given.
    """
    if len(segment) == 0:
        return
    order = np.argsort(segment, kind="stable")
    assets, starts = np.unique(segment[order], return_index=True)
    first = np.minimum.reduceat(first_ts[order], starts)
    last = np.maximum.reduceat((first_ts if last_ts is None else last_ts)[order], starts)
    count = np.add.reduceat((np.ones_like(segment) if rows is None else rows)[order], starts)
    for i, n, since, until in zip(assets, count, first, last, strict=True):
        yield RowIssue(
            panel.assets[i], panel.timeframe.name, reason, int(n), int(since), int(until)
        )
