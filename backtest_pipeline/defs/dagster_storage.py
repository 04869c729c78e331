"""Dagster's Postgres storage with pooled connections, batched events and secrets redacted.

The only module that uses private parts of Dagster's storage, because no public API does this:

- `prepare_insert_event` of its event log in Postgres, whose partitions are in `partition_log`;
- `_engine` of each of its three storages in Postgres;
- `_get_event_batch_size` of its instance, otherwise set for a whole process by its environment.

For the reasons, and when this can be removed, see docs/adr/0001-private-dagster.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import getmembers, isfunction
from typing import Any, ParamSpec, TypeVar

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import ConfigurableClassData, serialize_value
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config

from backtest_pipeline.defs.event_log.partition_log import PartitionLog, is_planned
from backtest_pipeline.storage.logs import redacted
from backtest_pipeline.storage.postgres.migrations import opened
from backtest_pipeline.storage.postgres.retried_engine import RetriedEngine, limit_statements
from backtest_pipeline.storage.postgres.retry import Retry
from backtest_pipeline.storage.settings import load_settings

P = ParamSpec("P")
T = TypeVar("T")

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


# What a storage is asked for that may be asked twice: the same rows, and at most a log line again.
_REPEATED = (
    *("add_", "all_", "fetch_", "free_", "get_", "handle_", "has_", "purge_", "set_", "store_"),
    "update_",
)
# Whatever it is called: what this package asks its log for may be asked twice as well.
_OWN = frozenset(name for name in vars(PartitionLog) if not name.startswith("_"))
_WEBSERVER_POOL = 5


def _repeated(method: Callable[P, T]) -> Callable[P, T]:
    @wraps(method)
    def done(*args: P.args, **kwargs: P.kwargs) -> T:
        retried = getattr(args[0], "_retried", None)
        if retried is None:  # a storage that is being made
            return method(*args, **kwargs)
        what = f"Dagster's {method.__name__}"
        return retried.retrying(what, lambda: method(*args, **kwargs))

    return done


class _KeptConnections:
    """Keeps a storage's connections open, and outlasts an outage of the server.

    Dagster's own opens a connection for each statement, and gives up after eleven seconds.
    """

    _engine: Any
    _retried: RetriedEngine

    def __init_subclass__(cls) -> None:
        """Have what Dagster asks of this storage repeated where its connection is lost."""
        for name, method in getmembers(cls, isfunction):
            if name in _OWN or name.startswith(_REPEATED):
                setattr(cls, name, _repeated(method))

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Any:
        """The storage that `dagster.yaml` names, by default in the store that is configured."""
        url = _url_in(config_value) or _url_of_store()
        storage = cls(url, inst_data=inst_data)  # pyright: ignore[reportCallIssue]
        # It takes a second connection while it holds the first.
        storage._keep_connections(url, pool_size=2)
        return storage

    def _keep_connections(
        self, url: str, pool_size: int, retry_s: float | None = None, **options: Any
    ) -> None:
        self._engine = create_pg_engine(
            url,
            isolation_level="AUTOCOMMIT",  # as Dagster's
            pool_size=pool_size,
            pool_pre_ping=True,  # the server may have been restarted in the meantime
            **options,
        )
        self._retried = RetriedEngine.of(load_settings(), self._engine, retry_s)

    def optimize_for_webserver(
        self, statement_timeout: int, pool_recycle: int, max_overflow: int
    ) -> None:
        """End statements of the webserver in time; a page says at once that the server is gone."""
        self._engine.dispose()
        self._keep_connections(
            self.postgres_url,  # pyright: ignore[reportAttributeAccessIssue]
            pool_size=_WEBSERVER_POOL,
            retry_s=0,
            pool_recycle=pool_recycle,
            max_overflow=max_overflow,
        )
        limit_statements(self._engine, statement_timeout)

    def dispose(self) -> None:
        """Close the connections; Dagster calls this when the instance is disposed."""
        super().dispose()  # pyright: ignore[reportAttributeAccessIssue]
        self._engine.dispose()


class KeptRunStorage(_KeptConnections, PostgresRunStorage):
    """Dagster's runs in Postgres."""


class KeptScheduleStorage(_KeptConnections, PostgresScheduleStorage):
    """Dagster's schedule and sensor ticks in Postgres."""


class BatchingEventLogStorage(_KeptConnections, PartitionLog):
    """Dagster's Postgres event log, with few rows for what is planned, and secrets redacted."""

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
        planned = [event for event in events if is_planned(event)]
        others = [event for event in events if not is_planned(event)]
        if planned:
            self.store_planned(planned)
        if others:
            super().store_event_batch(others)


def _url_in(config: Mapping[str, Any]) -> str | None:
    """The URL that a `dagster.yaml` names, which need not name one."""
    named = config.get("postgres_url") or config.get("postgres_db")
    return pg_url_from_config(config) if named else None


def _url_of_store() -> str:
    settings = load_settings()

    def find() -> str:
        with opened(settings) as database:
            return database.dagster_url()

    return Retry(settings.store_retry_s).outlast("opening the store", find, lambda: None)
