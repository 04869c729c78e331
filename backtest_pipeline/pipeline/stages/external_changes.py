"""Changes of the external feature table since the sensor's last report, and what to refresh."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.provenance import combined

MOST_EVENTS = 500
"""Events per sensor tick: each costs Dagster about 10 ms, and a tick has one minute."""


@dataclass(frozen=True)
class Changes:
    """What one sensor tick found in the table.

    Attributes:
        news: new version of each partition that changed since it was last reported.
        outdated: partitions whose rows differ from those last copied into snapshots.
        run_key: the same for the same rows, so that a refresh is requested only once.
        cursor: cursor for the next tick.
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
    """Compare the table's versions with those last reported and those last refreshed from.

    The cursor only prevents duplicate events: without it, or if it cannot be read, all partitions
    are reported again, and the same ones are refreshed. Changes beyond `most` follow with the next
    tick.

    Args:
        seen: current version of each partition of the table.
        taken: version that each partition was last refreshed from.
        cursor: of the last tick.
        most: maximum number of changes to report at once.
    """
    reported = _reported(cursor)
    changed = [p for p, version in sorted(seen.items()) if reported.get(str(p)) != _short(version)]
    news = {partition: seen[partition] for partition in changed[:most]}
    outdated = tuple(p for p, version in sorted(seen.items()) if taken.get(p) != version)
    reported = {str(p): reported[str(p)] for p in seen if str(p) in reported}
    reported |= {str(p): _short(version) for p, version in news.items()}
    run_key = combined(*(f"{p}\0{seen[p]}" for p in outdated))
    return Changes(news, outdated, run_key, json.dumps(reported, sort_keys=True))


def _reported(cursor: str | None) -> dict[str, str]:
    """The shortened version of each partition in a cursor; none where it cannot be read."""
    try:
        versions = json.loads(cursor or "{}")
    except json.JSONDecodeError:
        return {}
    return versions if isinstance(versions, dict) else {}


def _short(version: str) -> str:
    return version[:12]  # a cursor holds thousands of them


def by_timeframes(partitions: Sequence[Partition]) -> list[tuple[list[str], list[str]]]:
    """The partitions as rectangles, each a pair (assets, timeframes)."""
    assets_of: dict[str, list[str]] = defaultdict(list)
    for partition in sorted(partitions):
        assets_of[partition.timeframe].append(partition.asset)
    rectangles: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for tf, assets in assets_of.items():
        rectangles[tuple(assets)].append(tf)
    return [(list(assets), timeframes) for assets, timeframes in rectangles.items()]
