from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.conninfo import make_conninfo

from backtest_pipeline.market.errors import ConfigurationError, SchemaNotMigrated, StoreError
from backtest_pipeline.market.timeframes import TIMEFRAMES
from backtest_pipeline.storage.database import Database, connect_database
from backtest_pipeline.storage.migrations import check, load_migrations, migrate, sql_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in sql_folder().glob("*.sql"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_each_file_is_applied_once_in_order(empty_database: Database) -> None:
    names = [migration.name for migration in load_migrations()]
    assert names == sorted(names)
    assert migrate(empty_database) == names
    assert migrate(empty_database) == []
    check(empty_database)


def test_an_empty_database_is_told_to_migrate(empty_database: Database) -> None:
    with pytest.raises(SchemaNotMigrated, match=r"0001_dimensions\.sql.*pipeline migrate"):
        check(empty_database)


def test_a_changed_file_is_refused_by_name(database: Database, folder: Path) -> None:
    with (folder / "0002_features.sql").open("a") as file:
        file.write("-- one more thought\n")
    for action in (check, migrate):
        with pytest.raises(SchemaNotMigrated, match=r"0002_features\.sql changed after"):
            action(database, folder)


def test_a_schema_newer_than_the_code_is_refused(database: Database, folder: Path) -> None:
    (folder / "0002_features.sql").unlink()
    with pytest.raises(SchemaNotMigrated, match=r"0002_features\.sql, which this release"):
        check(database, folder)


def test_a_file_that_fails_leaves_nothing_behind(database: Database, folder: Path) -> None:
    (folder / "9000_fine.sql").write_text("CREATE TABLE fine (x INTEGER);")
    (folder / "9001_bad.sql").write_text("CREATE TABLE bad (x INTEGER); SELECT 1 / 0;")
    with pytest.raises(StoreError, match=r"9001_bad\.sql.*division by zero"):
        migrate(database, folder)
    with database.begin() as connection:
        assert connection.scalar(sa.text("SELECT to_regclass('fine')")) is not None
        assert connection.scalar(sa.text("SELECT to_regclass('bad')")) is None
    with pytest.raises(SchemaNotMigrated, match=r"not applied yet: 9001_bad\.sql"):
        check(database, folder)


def test_percent_signs_and_colons_in_a_file_are_left_alone(
    database: Database, folder: Path
) -> None:
    (folder / "9000_signs.sql").write_text("CREATE TABLE signs AS SELECT '%s :x %'::text AS t;")
    migrate(database, folder)
    with database.begin() as connection:
        assert connection.scalar(sa.text("SELECT t FROM signs")) == "%s :x %"


@pytest.mark.parametrize("name", ["notes.sql", "12_short.sql", "0001_again.sql"])
def test_a_misnamed_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("SELECT 1")
    with pytest.raises(ConfigurationError, match=r"NNNN_name\.sql, each once"):
        load_migrations(folder)


def test_many_may_migrate_at_once(empty_database: Database) -> None:
    databases = [connect_database(empty_database.conninfo) for _ in range(6)]
    with ThreadPoolExecutor(len(databases)) as pool:
        applied = list(pool.map(migrate, databases))
    assert sorted(chain.from_iterable(applied)) == [
        migration.name for migration in load_migrations()
    ]
    for database in databases:
        database.close()


def test_the_timeframes_of_the_code_are_the_rows_of_the_table(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("DELETE FROM dim_timeframe WHERE tf = '1D'"))
        connection.execute(sa.text("UPDATE dim_timeframe SET sort_order = sort_order + 7"))
    migrate(database)
    with database.begin() as connection:
        stored = connection.scalars(sa.text("SELECT tf FROM dim_timeframe ORDER BY sort_order"))
        assert list(stored) == list(TIMEFRAMES)


def test_lengths_of_calendar_timeframes_have_a_range(database: Database) -> None:
    query = sa.text("SELECT tf_days_min, tf_days_max FROM dim_timeframe WHERE tf = :tf")
    with database.begin() as connection:
        for tf, expected in {"1M_CAL": (28, 31), "1W": (7, 7), "1H": (1 / 24, 1 / 24)}.items():
            assert tuple(connection.execute(query, {"tf": tf}).one()) == expected


def test_the_feature_table_has_the_contracted_columns_and_key(database: Database) -> None:
    with database.begin() as connection:
        inspector = sa.inspect(connection)
        columns = {c["name"]: c for c in inspector.get_columns("cmc_features")}
        assert len(columns) == 112
        assert inspector.get_pk_constraint("cmc_features")["constrained_columns"] == [
            *("id", "ts", "tf")
        ]
        kinds = [str(column["type"]) for column in columns.values()]
    assert kinds.count("DOUBLE PRECISION") == 88
    assert kinds.count("BOOLEAN") == 17


def test_six_signals_are_registered(database: Database) -> None:
    query = sa.text("SELECT name, params FROM dim_signals ORDER BY signal_id")
    with database.begin() as connection:
        signals = dict(tuple(row) for row in connection.execute(query))
    assert list(signals) == [
        *("ema_9_21", "ema_21_50", "ema_50_200", "rsi_14_30_70", "rsi_14_25_75", "atr_20_14_2")
    ]
    assert signals["ema_9_21"] == {"fast": 9, "slow": 21}
    assert signals["rsi_14_25_75"] == {"period": 14, "lower": 25, "upper": 75}
    assert signals["atr_20_14_2"] == {"lookback": 20, "atr_period": 14, "trail_mult": 2.0}


@pytest.mark.parametrize("close", ["'NaN'", "'Infinity'", "-1"])
def test_prices_that_are_no_prices_are_refused(database: Database, close: str) -> None:
    with pytest.raises(StoreError, match="check constraint"), database.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO cmc_features (id, ts, tf, tf_days, close)"
                f" VALUES (1, now(), '1D', 1, {close})"
            )
        )


@pytest.mark.parametrize(
    ("role", "statement", "allowed"),
    [
        ("backtest_reader", "SELECT count(*) FROM signals", True),
        ("backtest_reader", "SELECT count(*) FROM schema_migrations", True),
        ("backtest_reader", "DELETE FROM signals", False),
        ("backtest_reader", "INSERT INTO dim_assets (symbol) VALUES ('X')", False),
        ("backtest_writer", "INSERT INTO dim_assets (symbol) VALUES ('X')", True),
        ("backtest_writer", "DELETE FROM cmc_features", True),
        ("backtest_writer", "DELETE FROM schema_migrations", False),
        ("backtest_writer", "DROP TABLE signals", False),
        ("backtest_writer", "CREATE TABLE more (x INTEGER)", False),
        ("backtest_owner", "CREATE TABLE more (x INTEGER)", True),
    ],
)
def test_a_role_may_do_its_work_and_no_more(
    database: Database, role: str, statement: str, allowed: bool
) -> None:
    with psycopg.connect(database.conninfo) as connection:
        connection.execute(f"SET ROLE {role}")  # pyright: ignore[reportArgumentType, reportCallIssue]
        if allowed:
            connection.execute(statement)  # pyright: ignore[reportArgumentType, reportCallIssue]
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)  # pyright: ignore[reportArgumentType, reportCallIssue]
        connection.rollback()


def test_a_user_who_may_not_create_roles_can_migrate(empty_database: Database) -> None:
    with psycopg.connect(empty_database.conninfo, autocommit=True) as server:
        server.execute("DROP ROLE IF EXISTS plain")
        server.execute("CREATE ROLE plain LOGIN")
        server.execute("GRANT ALL ON SCHEMA public TO plain")
        name = server.info.dbname
        server.execute(f"GRANT CREATE ON DATABASE {name} TO plain")  # pyright: ignore[reportArgumentType, reportCallIssue]
    plain = connect_database(make_conninfo(empty_database.conninfo, user="plain"))
    migrate(plain)
    check(plain)
    plain.close()
    with psycopg.connect(empty_database.conninfo, autocommit=True) as server:
        server.execute("DROP OWNED BY plain CASCADE")
        server.execute("DROP ROLE plain")


def test_portfolios_without_provenance_become_history(
    empty_database: Database, folder: Path
) -> None:
    later = [path for path in folder.glob("0*.sql") if path.name >= "0007"]
    kept = {path: path.read_bytes() for path in later}
    for path in later:
        path.unlink()
    migrate(empty_database, folder)
    with empty_database.begin() as connection:
        connection.execute(
            sa.text("""
                INSERT INTO portfolio_runs (
                    run_id, tf, signal_id, signal_name, scheme, n_assets, first_ts, last_ts,
                    completed_at, is_current, config, metrics, member_run_ids, code_version,
                    result_fingerprint, artifact_uri)
                VALUES (gen_random_uuid(), '1D', 1, 'ema_9_21', 'equal_weight', 3, now(), now(),
                        now(), TRUE, '{}', '{}', '{}', '', '', '')
            """)
        )
    for path, data in kept.items():
        path.write_bytes(data)
    assert "0007_portfolios.sql" in migrate(empty_database, folder)
    with empty_database.begin() as connection:
        (row,) = connection.execute(sa.text("SELECT * FROM portfolio_runs")).mappings()
    assert row["n_members"] == 3
    assert not row["is_current"]
