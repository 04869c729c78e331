from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from backtest_pipeline.market.errors import SchemaNotMigrated, StoreError, StoreUnavailable
from backtest_pipeline.storage.postgres import database as module
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline_tests.sql import count, scalar


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_server_that_refuses_is_unavailable_naming_host_and_database() -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1/prices: .*refused") as caught:
        connect_database("postgresql://u:hunter2@127.0.0.1:1/prices")
    assert "hunter2" not in str(caught.value)


def test_a_server_that_does_not_answer_is_given_up(silent_port: int) -> None:
    dsn = f"postgresql://u:hunter2@127.0.0.1:{silent_port}/prices?connect_timeout=2"
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1/prices: ") as caught:
        connect_database(dsn)
    assert "hunter2" not in str(caught.value)


def test_an_unknown_database_is_named(template: Database) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere: no such database"):
        connect_database(make_conninfo(template.conninfo, dbname="nowhere"))


def test_a_wrong_password_is_told_and_never_shown(template: Database) -> None:
    folder = str(make_words(template)["host"])
    with psycopg.connect(template.conninfo, autocommit=True) as server:
        hba = server.execute("SHOW hba_file").fetchone()
        assert hba is not None
        server.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        with open(hba[0]) as rules:
            before = rules.read()
        try:
            with open(hba[0], "w") as rules:
                rules.write("local all guarded scram-sha-256\n" + before)
            server.execute("SELECT pg_reload_conf()")
            with pytest.raises(StoreUnavailable, match="password refused") as caught:
                wait_for_rules(folder)
        finally:
            with open(hba[0], "w") as rules:
                rules.write(before)
            server.execute("SELECT pg_reload_conf()")
            server.execute("DROP ROLE guarded")
    assert "hunter2" not in str(caught.value)


def wait_for_rules(folder: str) -> None:
    """Connect until the server has read its rules anew and refuses us."""
    for _ in range(200):
        connect_database(f"host={folder} user=guarded password=hunter2 dbname=backtest").close()


def make_words(database: Database) -> dict[str, object]:
    return dict(conninfo_to_dict(database.conninfo))


def test_neither_repr_nor_engine_shows_the_password(template: Database) -> None:
    database = connect_database(f"{template.conninfo} password=hunter2")
    assert "hunter2" not in f"{database!r} {database.engine!r}"
    database.close()


def test_a_missing_table_means_that_the_schema_is_not_migrated(empty_database: Database) -> None:
    with (
        pytest.raises(SchemaNotMigrated, match="backtest-pipeline migrate"),
        empty_database.begin() as connection,
    ):
        connection.execute(sa.text("SELECT * FROM signals"))
    with (
        pytest.raises(SchemaNotMigrated, match="backtest-pipeline migrate"),
        empty_database.arrow() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT * FROM signals")


def test_an_error_rolls_the_whole_transaction_back(database: Database) -> None:
    insert = "INSERT INTO dim_assets (symbol) VALUES ('KEPT')"

    def fail_after_a_statement() -> None:
        with database.begin() as connection:
            connection.execute(sa.text(insert))
            raise ZeroDivisionError

    def fail_after_a_statement_on_arrow() -> None:
        with database.arrow() as connection, connection.cursor() as cursor:
            cursor.execute(insert)
            raise ZeroDivisionError

    for fail in (fail_after_a_statement, fail_after_a_statement_on_arrow):
        with pytest.raises(ZeroDivisionError):
            fail()
    assert count(database, "dim_assets") == 0


def test_sessions_are_in_utc_and_nothing_waits_for_ever(database: Database) -> None:
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        assert scalar(database, f"SHOW {name}") != "0"
    assert scalar(database, "SHOW timezone") == "UTC"


def test_the_search_path_of_the_dsn_is_kept(database: Database) -> None:
    dsn = make_conninfo(database.conninfo, options="-csearch_path=elsewhere")
    other = connect_database(dsn)
    with other.begin() as connection:
        assert connection.scalar(sa.text("SHOW search_path")) == "elsewhere"
        assert connection.scalar(sa.text("SHOW timezone")) == "UTC"
    other.close()


def test_waiting_for_a_lock_ends_in_an_error_that_says_so(database: Database) -> None:
    impatient = connect_database(make_conninfo(database.conninfo, options="-clock_timeout=100ms"))
    with database.begin() as holder:
        holder.execute(sa.text("LOCK TABLE dim_assets"))
        with pytest.raises(StoreError, match="another writer"), impatient.begin() as connection:
            connection.execute(sa.text("SELECT * FROM dim_assets"))
    impatient.close()


def test_connections_that_the_server_dropped_are_replaced(database: Database) -> None:
    ours = scalar(database, "SELECT pg_backend_pid()")
    with psycopg.connect(database.conninfo, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [ours])
    assert scalar(database, "SELECT 1") == 1


def test_two_processes_may_create_the_embedded_database_at_once(template: Database) -> None:
    server = make_conninfo(template.conninfo, dbname="postgres")
    threads = [
        threading.Thread(target=module._ensure_database, args=(server, "at_once")) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE at_once")


def test_dagster_reaches_a_schema_of_its_own_by_psycopg2(database: Database) -> None:
    url = database.dagster_url()
    assert url.startswith("postgresql+psycopg2://")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE runs (id INTEGER)"))
        schema = sa.text("SELECT schemaname FROM pg_tables WHERE tablename = 'runs'")
        assert connection.scalar(schema) == "dagster"


def test_the_dagster_url_keeps_signs_in_a_password() -> None:
    odd = "p@s:/s %"
    words = {"host": "db.example", "port": "6543", "user": "me", "password": odd, "dbname": "d"}
    database = Database(
        make_conninfo("", application_name="x", options="-cjit=off", **words),
        sa.create_engine("postgresql+psycopg://"),
        "db.example/d",
    )
    url = sa.make_url(database.dagster_url())
    assert (url.username, url.password, url.database) == ("me", odd, "d")
    assert (url.query["host"], url.query["port"]) == ("db.example", "6543")
    assert url.query["options"] == "-cjit=off -csearch_path=dagster"


@pytest.mark.parametrize("name", ["desk " * 20, "désk " * 20, "x"])
@pytest.mark.parametrize("host", ["db", f"{'pod-' * 15}a1b2"])
def test_a_session_says_which_process_it_is_of_however_long_its_name_is(
    database: Database, monkeypatch: pytest.MonkeyPatch, name: str, host: str
) -> None:
    monkeypatch.setattr(module, "gethostname", lambda: host)
    opened = connect_database(make_conninfo(database.conninfo, application_name=name))
    with opened.begin() as connection:
        found = str(connection.scalar(sa.text("SHOW application_name")))
        query = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        assert connection.scalar(sa.text(query)) == found
    opened.close()
    assert f" {os.getpid()} " in found
    assert found.endswith(host[-20:])


def test_a_pool_without_a_connection_left_is_a_store_that_cannot_be_used(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as taken:
        for _ in range(12):
            taken.enter_context(database.begin())
        monkeypatch.setattr(database.engine.pool, "_timeout", 0.05)
        with pytest.raises(StoreUnavailable, match="all connections"), database.begin():
            pass
