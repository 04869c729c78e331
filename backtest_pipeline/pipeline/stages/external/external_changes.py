"""Changes of the external feature table since the sensor's last report, and what to refresh."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.provenance import combined

MOST_EVENTS = 500
"""Events per sensor tick: each costs Dagster about 10 ms, and a tick has one minute."""


_LONGEST_WAIT_S = 3600.0


@dataclass(frozen=True)
class Changes:
    """What one sensor tick found in the table.

    Attributes:
        news: new version of each partition that changed since it was last reported.
        outdated: partitions whose rows differ from those last copied into snapshots.
        run_key: of the refresh to request now, another one each time; None where none is due.
        cursor: cursor for the next tick, as long for many partitions as for one.
    """

    news: Mapping[Partition, str]
    outdated: tuple[Partition, ...]
    run_key: str | None
    cursor: str


def changes(
    seen: Mapping[Partition, str],
    taken: Mapping[Partition, str],
    reported: Callable[[], Mapping[Partition, str]],
    cursor: str | None,
    now_s: float,
    *,
    is_idle: bool = True,
    most: int = MOST_EVENTS,
) -> Changes:
    """Compare the table's versions with those last reported and those last refreshed from.

    A refresh of the outdated partitions is due at once, and while the same rows remain outdated, as
    after a refresh that failed, again after 1, 2, 4, ... minutes, at most an hour.

    The cursor spares the look at what was reported while the table is the same, and keeps requests
    from being repeated. Changes beyond `most` follow with the next tick.

    Args:
        seen: current version of each partition of the table.
        taken: version that each partition was last refreshed from.
        reported: finds the version of each partition that was last reported.
        cursor: of the last tick.
        now_s: seconds since 1970.
        is_idle: whether no refresh is under way; otherwise none is requested.
        most: maximum number of changes to report at once.
    """
    before = _parsed(cursor)
    whole = combined(*(f"{p}\0{version}" for p, version in sorted(seen.items())))
    news: dict[Partition, str] = {}
    if seen and before.get("reported") != whole:
        known = reported()
        changed = [p for p, version in sorted(seen.items()) if known.get(p) != version]
        news = {partition: seen[partition] for partition in changed[:most]}
    outdated = tuple(p for p, version in sorted(seen.items()) if taken.get(p) != version)
    rows = combined(*(f"{p}\0{seen[p]}" for p in outdated))
    before_asked = before.get("asked")
    asked = before_asked if outdated and isinstance(before_asked, dict) else {}
    if asked.get("rows") != rows:
        asked = {}
    run_key = None
    if outdated and is_idle and now_s >= asked.get("again_at", now_s):
        times = asked.get("times", 0) + 1
        wait_s = min(60.0 * 2 ** (times - 1), _LONGEST_WAIT_S)
        asked = {"rows": rows, "times": times, "again_at": now_s + wait_s}
        run_key = f"{rows}/{now_s:.3f}"
    # Only a look that finds no news says that all were stored.
    after = json.dumps({"reported": "" if news else whole, "asked": asked}, sort_keys=True)
    return Changes(news, outdated, run_key, after)


def _parsed(cursor: str | None) -> dict[str, Any]:
    """What a cursor says was reported and asked for; nothing where it cannot be read."""
    try:
        told = json.loads(cursor or "{}")
    except json.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}


def by_timeframes(partitions: Sequence[Partition]) -> list[tuple[list[str], list[str]]]:
    """The partitions as rectangles, each a pair (assets, timeframes)."""
    assets_of: dict[str, list[str]] = defaultdict(list)
    for partition in sorted(partitions):
        assets_of[partition.timeframe].append(partition.asset)
    rectangles: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for tf, assets in assets_of.items():
        rectangles[tuple(assets)].append(tf)
    return [(list(assets), timeframes) for assets, timeframes in rectangles.items()]
