"""An engine of a library that waits for its server as `Database` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from backtest_pipeline.market.errors import StoreUnavailable
from backtest_pipeline.storage.postgres.driver_errors import DSN, translated
from backtest_pipeline.storage.postgres.embedded import embedded_server
from backtest_pipeline.storage.postgres.retry import Retry, reviving
from backtest_pipeline.storage.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class RetriedEngine:
    """Waits whenever the engine connects, and repeats work whose connection is lost.

    Attributes:
        engine: the library's engine.
        retry: how long to wait.
        revive: restarts the server if it is the embedded one.
    """

    engine: sa.Engine
    retry: Retry
    revive: Callable[[], None] | None

    def __post_init__(self) -> None:
        event.listen(self.engine, "do_connect", self._connect)

    @staticmethod
    def of(settings: Settings, engine: sa.Engine, retry_s: float | None = None) -> RetriedEngine:
        """The engine, with the waiting time of the settings unless another one is given."""
        is_embedded = settings.run_store_mode == "embedded"
        seconds = settings.store_retry_s if retry_s is None else retry_s
        return RetriedEngine(
            engine,
            Retry(seconds),
            (lambda: embedded_server(settings.home).revive()) if is_embedded else None,
        )

    def retrying(self, what: str, work: Callable[[], T]) -> T:
        """Do some idempotent work, repeating it if the connection is lost in the middle.

        Raises:
            StoreOutOfReach: if the server did not come back in time.
        """

        def attempt() -> T:
            try:
                return work()
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                reason = str(error.orig).strip().split("\n", 1)[0]
                raise StoreUnavailable(f"{self._where}: {reason}") from error

        # Work that is repeated connects, and connecting waits: no ping is needed in between.
        return self.retry.outlast(what, attempt, lambda: None)

    def _connect(
        self, dialect: Any, _record: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        def attempt() -> Any:
            try:
                return reviving(lambda: dialect.connect(*arguments, **options), self.revive)
            except dialect.loaded_dbapi.OperationalError as error:
                raise translated(error, self._where, DSN) from error

        return self.retry.outlast(f"connecting to {self._where}", attempt, lambda: None)

    @property
    def _where(self) -> str:
        url = self.engine.url
        return f"{url.host or url.query.get('host', 'localhost')}/{url.database}"


def limit_statements(engine: sa.Engine, milliseconds: int) -> None:
    """End each statement of the engine's connections after so long."""

    def limit(connection: Any, _record: Any) -> None:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {int(milliseconds)}")

    event.listen(engine, "connect", limit)
