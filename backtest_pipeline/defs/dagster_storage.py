"""Dagster's Postgres storage with pooled connections, batched events and secrets redacted.

The only module that uses private parts of Dagster's storage, because no public API does this:

- `SqlEventLogStorageTable`, `prepare_insert_event`, `prepare_insert_event_batch`,
  `index_transaction` and `_store_asset_event` of its event log in Postgres;
- `_engine` of each of its three storages in Postgres;
- `_get_event_batch_size` of its instance, otherwise set for a whole process by its environment.

For the reasons, and when this can be removed, see docs/adr/0001-private-dagster.md.
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
        """No settings of its own."""
        return {}

    @classmethod
    def config_defaults(cls, base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        """The defaults of any instance."""
        return InstanceRef.config_defaults(base_dir)

    def _get_event_batch_size(self) -> int:
        return _BATCH


class _KeptConnections:
    """Keeps a storage's connections open; Dagster's own opens a new one for each statement."""

    _engine: Any

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Any:
        """The storage that the instance's settings configure."""
        url = pg_url_from_config(config_value)
        storage = cls(url, inst_data=inst_data)  # pyright: ignore[reportCallIssue]
        storage._engine = create_pg_engine(
            url,
            isolation_level="AUTOCOMMIT",  # as Dagster's
            pool_size=2,  # it takes a second connection while it holds the first
            pool_pre_ping=True,  # the server may have been restarted in the meantime
        )
        return storage

    def dispose(self) -> None:
        """Close the connections; Dagster calls this when the instance is disposed."""
        super().dispose()  # pyright: ignore[reportAttributeAccessIssue]
        self._engine.dispose()


class KeptRunStorage(_KeptConnections, PostgresRunStorage):
    """Dagster's runs in Postgres."""


class KeptScheduleStorage(_KeptConnections, PostgresScheduleStorage):
    """Dagster's schedule and sensor ticks in Postgres."""


class BatchingEventLogStorage(_KeptConnections, PostgresEventLogStorage):
    """Dagster's Postgres event log, with planned materializations stored in batches.

    Before a run begins, Dagster plans one event per asset and partition. It passes them on in
    batches, but its storage writes them one by one, on two new connections each: a range run over
    894 partitions of four assets took a quarter of a minute before its first step. The same rows
    are written here with one statement and one transaction per batch.
    """

    def prepare_insert_event(self, event: dg.EventLogEntry) -> Any:
        """Dagster's insert, with secrets redacted from log lines and errors (with their causes).

        Events that only record that something happened are stored unchanged: Dagster reads them.
        """
        insert = super().prepare_insert_event(event)
        if event.is_dagster_event and int(event.level) < logging.WARNING:
            return insert
        return insert.values(event=redacted(serialize_value(event)))

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store planned materializations in one batch, and other events as Dagster does."""
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
            # An asset's own row holds its latest event only.
            last = {
                event.get_dagster_event().asset_key: (event, event_id)
                for event, event_id in zip(events, ids, strict=True)
            }
            for event, event_id in last.values():
                self._store_asset_event(connection, event, event_id)


def _is_planned(event: dg.EventLogEntry) -> bool:
    return event.dagster_event_type is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
