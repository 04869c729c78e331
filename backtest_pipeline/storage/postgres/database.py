"""A database: its connections, transactions and errors.

`Database.begin` is a transaction for statements, `Database.arrow` one for Arrow tables, and
`Database.writing` one of the few that write such tables in bulk at once. All use the schema in the
connection string's search path, in UTC, with timeouts on everything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from socket import gethostname
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from backtest_pipeline.market.errors import StoreUnavailable
from backtest_pipeline.storage.postgres.arrow_driver import ArrowDriver
from backtest_pipeline.storage.postgres.driver_errors import DSN, translated
from backtest_pipeline.storage.postgres.embedded import PORT, SUPERUSER, embedded_server
from backtest_pipeline.storage.postgres.retry import Retry, reviving
from backtest_pipeline.storage.postgres.sessions import (
    SESSION,
    STATEMENT_TIMEOUT_S,
    options_of,
    with_client_check,
)
from backtest_pipeline.storage.postgres.stalled_copies import StalledCopies, end_stalled
from backtest_pipeline.storage.postgres.writer_slots import take_slot
from backtest_pipeline.storage.settings import DEFAULT_WRITERS, Settings

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection as ArrowConnection

T = TypeVar("T")
Connection = sa.Connection
"""A transaction, as `Database.begin` gives it."""

EMBEDDED_DATABASE = "backtest"
DAGSTER_SCHEMA = "dagster"
_CANCEL = """
    SELECT pg_cancel_backend(pid) FROM pg_stat_activity
    WHERE application_name = current_setting('application_name') AND state = 'active'
        AND datname = current_database() AND pid <> pg_backend_pid()
"""
_CONNECTION = {
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_LONGEST_NAME = 63  # the server cuts longer names, and then they would not be found
# The server ends a longer statement: one that takes still longer has lost its response.
_ANSWER_S = STATEMENT_TIMEOUT_S + 60.0
_PING_S = 10.0


@dataclass(frozen=True)
class Database:
    """A database, checked to respond when it was opened.

    Attributes:
        conninfo: libpq connection string; contains the password and is not part of the repr.
        engine: SQLAlchemy engine on psycopg, for statements.
        where: host and database, for messages.
        variable: the setting that configures it, for messages.
        retry: how long to wait for it when the connection is lost.
        revive: restarts the server before a connection is given up, if it is the embedded one.
        writers: most transactions that write in bulk at once, over all processes of the store.
    """

    conninfo: str = field(repr=False)
    engine: sa.Engine = field(repr=False)
    where: str
    variable: str = DSN
    retry: Retry = field(default_factory=Retry, repr=False)
    revive: Callable[[], None] | None = field(default=None, repr=False)
    writers: int = DEFAULT_WRITERS
    _arrow: ArrowDriver = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_arrow", ArrowDriver(self.conninfo, self.revive))

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction: committed at the end of the block, rolled back on any error.

        Raises:
            StoreUnavailable, SchemaNotMigrated, StoreError: for errors of the database.
        """
        with self.errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def arrow(self) -> Iterator[ArrowConnection]:
        """A transaction that reads and writes Arrow tables; raises as `begin`."""
        with self.errors(), self._arrow.connection() as connection:
            yield connection
            connection.commit()

    @contextmanager
    def writing(self) -> Iterator[ArrowConnection]:
        """As `arrow`, for one of the few transactions that write in bulk at once; may wait.

        Read and compute before it, and open no other such transaction within it.

        Raises:
            StoreOutOfReach: also where the waiting was given up (`writer_slots.waiting_until`).
        """
        copies = StalledCopies(self)
        with self.arrow() as connection:
            with connection.cursor() as cursor:
                take_slot(cursor, self.writers, copies, self.retry.still_s)
            yield connection

    def retrying(self, what: str, work: Callable[[], T], given_up: Event | None = None) -> T:
        """Do some work that uses this database, repeating it if the connection is lost.

        Also where others hold its rows for long; those that stand still are ended then.

        Args:
            what: name of the work in the log.
            work: idempotent work, whether or not its last COMMIT took effect; see
                `storage.postgres.retry`.
            given_up: when set, stops the waiting.

        Raises:
            StoreOutOfReach: if the database did not come back in time, or refuses the connection.
            StoreLocked, StoreOvertaken: if others held or replaced the rows each time.
        """

        def unlock(until: Event) -> None:
            end_stalled(self, self.retry.still_s, until)

        return self.retry.outlast(what, work, self.ping, given_up, unlock)

    def ping(self) -> None:
        """Raise StoreUnavailable unless the server responds within seconds."""
        with self.errors(), closing(_connected(self.conninfo, self.revive)) as connection:
            connection.answer_s = _PING_S
            connection.execute("SELECT 1")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate driver errors into our own, for code that opens its own connection."""
        with _errors(self.where, self.variable):
            yield

    def cancel_statements(self) -> None:
        """Have the server cancel what the other connections of this process are waiting for."""
        with self.errors(), closing(_connected(self.conninfo, self.revive)) as connection:
            connection.answer_s = _PING_S
            connection.execute(_CANCEL)

    def dagster_url(self) -> str:
        """The SQLAlchemy URL of Dagster's own storage, password included.

        It is the schema `dagster` of the same database: one backup covers both, the database user
        needs no right to create databases, and a cloned database gets its own Dagster storage.
        Dagster needs psycopg2: SQLAlchemy's default driver breaks its event log.
        """
        words = _words(self.conninfo)
        words.pop("application_name")
        options = f"{words.pop('options')} -csearch_path={DAGSTER_SCHEMA}"
        url = sa.URL.create(
            "postgresql+psycopg2",
            username=words.pop("user", None),
            password=words.pop("password", None),
            database=words.pop("dbname", None),
            query=words | {"options": options},
        )
        return url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()
        self._arrow.close()


class _Connection(psycopg.Connection[Any]):
    """A connection with a timeout on every response; keepalives only prove the kernel is alive."""

    answer_s = _ANSWER_S

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            return super().wait(gen, interval, self.answer_s if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:
            if timeout is not None:
                raise  # the caller asked for this timeout and handles it
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"the server has not responded for {self.answer_s:g} s"
            ) from None


def open_database(settings: Settings) -> Database:
    """Open the database that the settings configure, starting the embedded server if needed.

    Raises:
        StoreUnavailable: where it does not respond, or refuses the connection; the message names
            host and database, never the password.
        ConfigurationError: where the embedded server cannot run below the home folder.
    """
    retry, writers = Retry(settings.store_retry_s), settings.writers
    if settings.run_store_mode == "embedded":
        server = embedded_server(settings.home)
        address = {"host": str(server.socket_folder), "port": PORT, "user": SUPERUSER}
        first = make_conninfo("", dbname="postgres", **address)
        reviving(lambda: _ensure_database(first, EMBEDDED_DATABASE), server.revive)
        own = make_conninfo("", dbname=EMBEDDED_DATABASE, **address)
        return connect_database(own, retry=retry, revive=server.revive, writers=writers)
    assert settings.postgres_dsn is not None  # noqa: S101  (a rule of Settings)
    return connect_database(settings.postgres_dsn.get_secret_value(), retry=retry, writers=writers)


def connect_database(
    dsn: str,
    *,
    variable: str = DSN,
    read_only: bool = False,
    retry: Retry | None = None,
    revive: Callable[[], None] | None = None,
    writers: int = DEFAULT_WRITERS,
) -> Database:
    """Open the database of a libpq connection string; raises as `open_database`.

    Args:
        dsn: URL or `key=value` words.
        variable: the setting that contains it, for messages.
        read_only: reject every statement that would write.
        retry: how long to wait when the connection is lost; opening never waits.
        revive: restarts the server if it is the embedded one; None for a server of the user's own.
        writers: most transactions that write in bulk at once.
    """
    words = _words(dsn)
    # The last option wins: nothing in the connection string can override it.
    guard = "-cdefault_transaction_read_only=on" if read_only else ""
    options = " ".join(filter(None, (options_of(SESSION), words.pop("options", ""), guard)))
    words["application_name"] = _session_name(words.get("application_name", "backtest_pipeline"))
    conninfo = make_conninfo("", **(_CONNECTION | words | {"options": options}))
    where = f"{words.get('host', 'localhost')}/{words.get('dbname') or words.get('user', '')}"
    with _errors(where, variable), closing(_connected(conninfo, revive)) as first:
        first.answer_s = _PING_S
        conninfo = with_client_check(first, conninfo)
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: _connected(conninfo, revive),
        pool_pre_ping=True,
        pool_size=4,
        max_overflow=8,
        hide_parameters=True,
    )
    return Database(conninfo, engine, where, variable, retry or Retry(), revive, writers)


def _session_name(given: str) -> str:
    """A name for the sessions of this process, by which their statements are told from others'.

    What is too long for the server is cut from what the user wrote, and from the start of the
    host's name: of pods, the end differs.
    """
    pid = f" {os.getpid()} "
    process = pid + gethostname()[-(_LONGEST_NAME - len(pid)) :]
    plain = given.encode("ascii", "replace").decode()  # the server writes other characters longer
    return plain[: _LONGEST_NAME - len(process)] + process


@contextmanager
def _errors(where: str, variable: str) -> Iterator[None]:
    from adbc_driver_manager import Error as ArrowError

    try:
        yield
    except DBAPIError as error:
        raise translated(error.orig, where, variable) from error
    except PoolTimeout as error:
        raise StoreUnavailable(
            f"{where}: all connections of this process are in use; try again later"
        ) from error
    except (psycopg.Error, ArrowError) as error:
        raise translated(error, where, variable) from error


def _connected(conninfo: str, revive: Callable[[], None] | None) -> _Connection:
    return reviving(lambda: _Connection.connect(conninfo), revive)


def _words(dsn: str) -> dict[str, str]:
    return {name: str(word) for name, word in conninfo_to_dict(dsn).items() if word is not None}


def _ensure_database(conninfo: str, name: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        known = "SELECT FROM pg_database WHERE datname = %s"
        if connection.execute(known, [name]).fetchone() is None:
            create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            try:
                connection.execute(create)
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                return  # another process was first
