"""Dagster's event log in Postgres, with few and small rows for assets of many partitions.

- Planned materializations: one row for up to 500 partitions, where Dagster stores one for each.
- A materialization of a partition: without what its own columns, the run or its asset say already.
- No row for the data version of an event: the few queries of Dagster's that read it read the event.

It uses private parts of Dagster's storage, because no public API does this: its tables and queries
of partitions. For the reasons, and when this can be removed, see docs/adr/0001-private-dagster.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.events import AssetMaterializationPlannedData
from dagster._core.storage.event_log.base import PlannedMaterializationInfo
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster_postgres.event_log import PostgresEventLogStorage

from backtest_pipeline.storage.dagster_events import (
    PlannedRow,
    ReportedRow,
    newest_ids,
    newest_plan,
    newest_reported,
    planned_by,
    planned_rows,
    runs_with_plans,
    take_from_plans,
)

_MADE = dg.DagsterEventType.ASSET_MATERIALIZATION
_PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
_SEEN = dg.DagsterEventType.ASSET_OBSERVATION
_VERSION_TAG = "dagster/data_version"
_A_ROW = 500
_EMPTY: tuple[Any, ...] = (None, [], {})
# Of the step, which is known by its key, and of its process.
_OF_THE_STEP = ("logging_tags", "pid", "solid_handle", "step_handle", "step_kind_value")


class PartitionLog(PostgresEventLogStorage):
    """Stores and reads events of partitions; what it returns is what Dagster's own storage does."""

    @property
    def supports_partition_subset_in_asset_materialization_planned_events(self) -> bool:
        """Dagster then plans all partitions of an asset in one event."""
        return True

    def get_asset_tags_to_index(self, tag_keys: set[str]) -> set[str]:
        """Without the data version, which each event of a partition has: it is read from there."""
        return super().get_asset_tags_to_index(tag_keys) - {_VERSION_TAG}

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event; a planned one of many partitions as few rows."""
        if is_planned(event):
            self.store_planned([event])
        else:
            super().store_event(event)

    def store_planned(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store planned materializations in one statement and one transaction."""
        rows = [row for event in events for row in _rows_of(event)]
        insert = self.prepare_insert_event_batch(rows)
        with self.index_transaction() as connection:
            ids = connection.execute(insert.returning(SqlEventLogStorageTable.c.id)).scalars().all()
            # An asset's own row holds its latest event only.
            last = {
                row.get_dagster_event().asset_key: (row, event_id)
                for row, event_id in zip(rows, ids, strict=True)
            }
            for row, event_id in last.values():
                self._store_asset_event(connection, row, event_id)

    def take_from_plan(self, run_id: str, asset: dg.AssetKey, keys: Iterable[str]) -> None:
        """Take partitions out of what a run has planned: they are as they were reported before.

        They are no longer in progress then, and do not fail with the run.
        """
        with self.index_transaction() as connection:
            take_from_plans(connection, asset.to_string(), run_id, keys)

    def reported(self, asset: dg.AssetKey, keys: Sequence[str]) -> dict[str, ReportedRow]:
        """The newest materialization of each of these partitions that has one."""
        with self.index_connection() as connection:
            return newest_reported(connection, asset.to_string(), keys)

    def newest_ids(self, asset: dg.AssetKey, keys: Sequence[str]) -> dict[str, int]:
        """The newest event of each of these partitions that may have another data version."""
        with self.index_connection() as connection:
            return newest_ids(connection, asset.to_string(), keys, (_MADE.value, _SEEN.value))

    def runs_with_plans(self, asset: dg.AssetKey, after: int) -> list[str]:
        """The ids of the runs that have planned any partition of an asset after an event."""
        with self.index_connection() as connection:
            return runs_with_plans(connection, asset.to_string(), after)

    def planned_by(self, asset: dg.AssetKey, after: int, runs: Sequence[str]) -> dict[str, int]:
        """The newest event after one by which these runs planned a partition, by its key."""
        with self.index_connection() as connection:
            return planned_by(connection, asset.to_string(), after, runs)

    def get_latest_asset_partition_materialization_attempts_without_materializations(
        self, asset_key: dg.AssetKey, after_storage_id: int | None = None
    ) -> Mapping[str, tuple[str, int]]:
        """Dagster's, of the planned events of single and of many partitions."""
        single = (
            super().get_latest_asset_partition_materialization_attempts_without_materializations(
                asset_key, after_storage_id
            )
        )
        with self.index_connection() as connection:
            plans = planned_rows(connection, asset_key.to_string(), after_storage_id or 0)
        if not plans:
            return single
        return newest_attempts(plans, single, self._made(asset_key, plans[0].id))

    def get_latest_planned_materialization_info(
        self, asset_key: dg.AssetKey, partition: str | None = None
    ) -> PlannedMaterializationInfo | None:
        """Dagster's, of the planned events of single and of many partitions."""
        found = super().get_latest_planned_materialization_info(asset_key, partition)
        if partition is None:
            return found
        with self.index_connection() as connection:
            plan = newest_plan(connection, asset_key.to_string(), partition)
        if plan is None or (found is not None and found.storage_id > plan.id):
            return found
        return PlannedMaterializationInfo(storage_id=plan.id, run_id=plan.run_id)

    def get_latest_tags_by_partition(
        self,
        asset_key: dg.AssetKey,
        event_type: dg.DagsterEventType,
        tag_keys: Sequence[str],
        asset_partitions: Sequence[str] | None = None,
        before_cursor: int | None = None,
        after_cursor: int | None = None,
    ) -> Mapping[str, Mapping[str, str]]:
        """Dagster's, read from the events."""
        ids = self.get_latest_storage_id_by_partition(asset_key, event_type)
        keys = list(ids if asset_partitions is None else asset_partitions)
        reported = self._reported(asset_key, keys, [event_type], before_cursor, after_cursor)
        tags = {
            key: {name: row.tags[name] for name in tag_keys if name in row.tags}
            for key, row in reported.items()
        }
        return {key: found for key, found in tags.items() if found}

    def _get_partition_data_versions(
        self,
        asset_key: dg.AssetKey,
        partitions: Sequence[str],
        before_storage_id: int | None = None,
        after_storage_id: int | None = None,
    ) -> dict[str, str]:
        kinds = (_MADE, _SEEN)
        reported = self._reported(asset_key, partitions, kinds, before_storage_id, after_storage_id)
        return {
            k: row.tags[_VERSION_TAG] for k, row in reported.items() if _VERSION_TAG in row.tags
        }

    def _reported(
        self,
        asset: dg.AssetKey,
        keys: Sequence[str],
        kinds: Iterable[dg.DagsterEventType],
        before: int | None,
        after: int | None,
    ) -> dict[str, ReportedRow]:
        bounds = {"before": before, "after": after}
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        named = [kind.value for kind in kinds]
        with self.index_connection() as connection:
            return newest_reported(connection, asset.to_string(), keys, named, **given)

    def _made(self, asset: dg.AssetKey, after: int) -> Mapping[str, int]:
        return self.get_latest_storage_id_by_partition(asset, _MADE, after_cursor=after)

    def _event_to_row(self, event: dg.EventLogEntry) -> dict[str, Any]:
        row = super()._event_to_row(event)
        if row["dagster_event_type"] in (_MADE.value, _PLANNED.value):
            row["event"] = compacted(row["event"])
        return row


def is_planned(event: dg.EventLogEntry) -> bool:
    """Whether an event says that a run is to materialize something."""
    return event.dagster_event_type is _PLANNED


def newest_attempts(
    plans: Sequence[PlannedRow],
    single: Mapping[str, tuple[str, int]],
    made: Mapping[str, int],
) -> dict[str, tuple[str, int]]:
    """Run and event that planned each partition last, of those that are not materialized since.

    Args:
        plans: planned events of many partitions, oldest first.
        single: the same as is returned, by planned events of one partition each.
        made: the newest materialization of each partition.
    """
    found = dict(single)
    for plan in plans:
        for key in plan.keys:
            if plan.id > max(made.get(key, 0), found[key][1] if key in found else 0):
                found[key] = (plan.run_id, plan.id)
    return found


def compacted(event: str) -> str:
    """The JSON of an event of an asset without what Dagster reads as its defaults, or not at all.

    What is left out: empty fields of Dagster's own classes, texts that say no more than the type of
    the event, and the process and the parts of its step. Metadata and tags stay as they are.
    """
    entry = json.loads(event)
    inner = entry["dagster_event"]
    data = inner["event_specific_data"]
    made = data.get("materialization", {})
    inner.update(dict.fromkeys(_OF_THE_STEP), message=None)
    entry.update(message=None, user_message="")
    for part in (inner, data, made, *made.get("metadata_entries", ())):
        for name in [name for name, value in part.items() if value in _EMPTY]:
            del part[name]
    for name in [name for name, value in entry.items() if value is None and name != "error_info"]:
        del entry[name]
    return json.dumps(entry, separators=(",", ":"))


def _rows_of(event: dg.EventLogEntry) -> Iterator[dg.EventLogEntry]:
    """A planned event as rows: of many partitions, each row has up to 500."""
    inner = event.get_dagster_event()
    subset = inner.partitions_subset
    if subset is None:
        yield event
        return
    keys = sorted(subset.get_partition_keys())
    for first in range(0, len(keys), _A_ROW):
        chunk = keys[first : first + _A_ROW]
        some = None if len(chunk) == 1 else DefaultPartitionsSubset(set(chunk))
        data = AssetMaterializationPlannedData(
            inner.asset_materialization_planned_data.asset_key,
            partition=chunk[0] if some is None else None,
            partitions_subset=some,
        )
        yield event._replace(dagster_event=inner._replace(event_specific_data=data))
