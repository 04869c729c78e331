"""Dagster's storage in Postgres: connections kept, events of many partitions together, no secrets.

The only module that builds on how Dagster's storage works inside, as there is no public way:

- `SqlEventLogStorageTable`, `prepare_insert_event`, `prepare_insert_event_batch`,
  `index_transaction` and `_store_asset_event` of its event log in Postgres;
- `_engine` of each of its three storages in Postgres;
- `_get_event_batch_size` of its instance, which else only the environment of a whole process sets.

What is gained by it, and when it can go: docs/adr/0001-private-dagster.md.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData, serialize_value
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config

from backtest_pipeline.storage.logs import redacted

_BATCH = 500


class BatchingInstance(dg.DagsterInstance):
    """An instance that hands the events of a step's partitions to its storage in batches."""

    @classmethod
    def config_schema(cls) -> Mapping[str, Any]:
        """No settings beside those of every instance."""
        return {}

    @classmethod
    def config_defaults(cls, base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        """Those of every instance."""
        return InstanceRef.config_defaults(base_dir)

    def _get_event_batch_size(self) -> int:
        return _BATCH


class _KeptConnections:
    """A storage that keeps its connections open where Dagster's opens one for each statement."""

    _engine: Any

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Any:
        """The storage that the settings of an instance name."""
        url = pg_url_from_config(config_value)
        storage = cls(url, inst_data=inst_data)  # pyright: ignore[reportCallIssue]
        storage._engine = create_pg_engine(
            url,
            isolation_level="AUTOCOMMIT",  # as Dagster's
            pool_size=2,  # it asks for a second one while it holds the first
            pool_pre_ping=True,  # the server may have been restarted meanwhile
        )
        return storage

    def dispose(self) -> None:
        """Close the connections; Dagster calls it when the instance is left."""
        super().dispose()  # pyright: ignore[reportAttributeAccessIssue]
        self._engine.dispose()


class KeptRunStorage(_KeptConnections, PostgresRunStorage):
    """Dagster's runs in Postgres."""


class KeptScheduleStorage(_KeptConnections, PostgresScheduleStorage):
    """Dagster's ticks of schedules and sensors in Postgres."""


class BatchingEventLogStorage(_KeptConnections, PostgresEventLogStorage):
    """Dagster's Postgres event log that stores planned materializations as one batch.

    Before a run begins, Dagster plans one event for each asset and partition. It hands them over
    in batches, but its storage writes them one by one, on two new connections each: a range run
    over 894 partitions of four assets spent a quarter of a minute before its first step. They are
    the same rows here, in one statement and one transaction a batch.
    """

    def prepare_insert_event(self, event: dg.EventLogEntry) -> Any:
        """As Dagster does it, but that no log line, and no error with its causes, tells a secret.

        What merely states that something happened is stored as it is: Dagster works with it.
        """
        insert = super().prepare_insert_event(event)
        if event.is_dagster_event and int(event.level) < logging.WARNING:
            return insert
        return insert.values(event=redacted(serialize_value(event)))

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store planned materializations at once, and other events as Dagster does."""
        planned = [event for event in events if _is_planned(event)]
        others = [event for event in events if not _is_planned(event)]
        if planned:
            self._store_planned(planned)
        if others:
            super().store_event_batch(others)

    def _store_planned(self, events: Sequence[dg.EventLogEntry]) -> None:
        insert = self.prepare_insert_event_batch(events)
        with self.index_transaction() as connection:
            ids = connection.execute(insert.returning(SqlEventLogStorageTable.c.id)).scalars().all()
            # An asset's own row holds its last event only.
            last = {
                event.get_dagster_event().asset_key: (event, event_id)
                for event, event_id in zip(events, ids, strict=True)
            }
            for event, event_id in last.values():
                self._store_asset_event(connection, event, event_id)


def _is_planned(event: dg.EventLogEntry) -> bool:
    return event.dagster_event_type is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
