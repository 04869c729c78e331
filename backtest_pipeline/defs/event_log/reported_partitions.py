"""Which partitions need no new event in Dagster, because what was reported last still holds.

A partition whose event names the same data, code and inputs looks the same with a second one. Of a
universe that is refreshed each day most partitions of longer timeframes are such; their events
would be most of the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg
from dagster import AssetKey, DagsterRunStatus

from backtest_pipeline.defs.event_log.partition_log import PartitionLog

BACKFILL_TAG = "dagster/backfill"
_VERSION = "dagster/data_version"
_POINTER = "dagster/input_event_pointer/"
_CODE = "dagster/code_version"
_BEFORE_ALL = -2  # as `stored_events.provenance` points to an input of which nothing was reported
_HARMLESS = (DagsterRunStatus.SUCCESS, DagsterRunStatus.CANCELED)


class ReportedPartitions:
    """What Dagster knows of the partitions of an asset when a step begins.

    Args:
        instance: where it is stored. Where it has another storage than the project's own, nothing
            counts as reported.
        asset: the asset.
        run: the run of the step. One of a backfill reports all: Dagster counts the events.
        tags: of the events that the step reports, see `stored_events.provenance`.
        keys: of the partitions.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        asset: AssetKey,
        run: dg.DagsterRun,
        tags: Mapping[str, str],
        keys: Sequence[str],
    ) -> None:
        log = instance.event_log_storage
        self._asset, self._run_id = asset, run.run_id
        self._log = log if isinstance(log, PartitionLog) and BACKFILL_TAG not in run.tags else None
        self._reported: dict[str, str] = {}
        if self._log is not None and keys:
            self._reported = _settled(instance, self._log, asset, run.run_id, tags, keys)

    def same(self, versions: Mapping[str, str]) -> list[str]:
        """Those of the partitions, with the version of their stored rows, to say nothing of."""
        return [key for key, version in versions.items() if self._reported.get(key) == version]

    def take_from_plan(self, keys: Sequence[str]) -> None:
        """Have these look as they did before the run: not in progress, and not to fail with it."""
        if self._log is not None and keys:
            self._log.take_from_plan(self._run_id, self._asset, keys)


def _settled(
    instance: dg.DagsterInstance,
    log: PartitionLog,
    asset: AssetKey,
    run_id: str,
    tags: Mapping[str, str],
    keys: Sequence[str],
) -> dict[str, str]:
    """The data version of each partition whose newest event is made from what `tags` name."""
    reported = log.reported(asset, keys)
    if not reported:
        return {}
    pointers = [name for name in tags if name.startswith(_POINTER)]
    inputs = {name: log.newest_ids(_asset_of(name), keys) for name in pointers}
    since = min(row.id for row in reported.values())
    others = [other for other in log.runs_with_plans(asset, since) if other != run_id]
    bad = _not_harmless(instance, others)
    planned = log.planned_by(asset, since, bad) if bad else {}
    found = {}
    for key, row in reported.items():
        own = [name for name in row.tags if name.startswith(_POINTER)]
        is_settled = (
            row.tags.get(_CODE) == tags.get(_CODE)
            and set(own) == set(pointers)
            # Dagster compares with what was reported of an input up to the pointer.
            and not any(inputs[name].get(key, _BEFORE_ALL) > int(row.tags[name]) for name in own)
            and planned.get(key, 0) < row.id
        )
        if is_settled and _VERSION in row.tags:
            found[key] = row.tags[_VERSION]
    return found


def _not_harmless(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> list[str]:
    """The runs by which a planned partition may count as failed, now or later."""
    if not run_ids:
        return []
    runs = instance.get_runs(dg.RunsFilter(run_ids=list(run_ids)))
    return [run.run_id for run in runs if run.status not in _HARMLESS]


def _asset_of(pointer: str) -> AssetKey:
    return AssetKey.from_user_string(pointer.removeprefix(_POINTER))
