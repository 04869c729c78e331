"""What has changed in the user's own table since it was last told of, and what to do about it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.provenance import combined

MOST_EVENTS = 500
"""Events of one look: each costs Dagster about 10 ms, and a look has a minute."""


@dataclass(frozen=True)
class Changes:
    """The result of one look at the table.

    Attributes:
        news: version by partition, of those that changed since it was last told of.
        outdated: partitions whose rows are not those that were taken over.
        run_key: the same for the same rows, so that one refresh is asked for once.
        cursor: what the next look has to be given.
    """

    news: Mapping[Partition, str]
    outdated: tuple[Partition, ...]
    run_key: str
    cursor: str


def changes(
    seen: Mapping[Partition, str],
    taken: Mapping[Partition, str],
    cursor: str | None,
    most: int = MOST_EVENTS,
) -> Changes:
    """Compare what a look at the table shows with what was told and what was taken over.

    The cursor only keeps events from being told twice: without it, or with one that cannot be
    read, all partitions are told of again, and what is refreshed stays the same. Of more than
    `most` news the others follow with the next look.

    Args:
        seen: version of each partition of the table.
        taken: version of each that the store was last refreshed from.
        cursor: of the last look.
        most: news at once.
    """
    told = _told(cursor)
    changed = [p for p, version in sorted(seen.items()) if told.get(str(p)) != _short(version)]
    news = {partition: seen[partition] for partition in changed[:most]}
    outdated = tuple(p for p, version in sorted(seen.items()) if taken.get(p) != version)
    told = {str(p): told[str(p)] for p in seen if str(p) in told}
    told |= {str(p): _short(version) for p, version in news.items()}
    run_key = combined(*(f"{p}\0{seen[p]}" for p in outdated))
    return Changes(news, outdated, run_key, json.dumps(told, sort_keys=True))


def _told(cursor: str | None) -> dict[str, str]:
    try:
        found = json.loads(cursor or "{}")
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _short(version: str) -> str:
    return version[:12]  # thousands of them make a cursor


def by_timeframes(partitions: Sequence[Partition]) -> list[tuple[list[str], list[str]]]:
    """The partitions as rectangles: (assets, timeframes that all of these have in common)."""
    assets_of: dict[str, list[str]] = defaultdict(list)
    for partition in sorted(partitions):
        assets_of[partition.timeframe].append(partition.asset)
    rectangles: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for tf, assets in assets_of.items():
        rectangles[tuple(assets)].append(tf)
    return [(list(assets), timeframes) for assets, timeframes in rectangles.items()]
