from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.conninfo import make_conninfo

from backtest_pipeline.market.errors import ConfigurationError, SchemaNotMigrated, StoreError
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.postgres.migrations import (
    check,
    ensure,
    migrate,
    schema_files,
    sql_folder,
)
from backtest_pipeline.storage.tables.timeframes import declare_timeframes
from backtest_pipeline_tests.other_schemas import OtherSchema
from backtest_pipeline_tests.sql import rows, scalar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the SQL files, with a folder for migrations."""
    copy = tmp_path / "sql"
    shutil.copytree(sql_folder(), copy)
    (copy / "migrations").mkdir(exist_ok=True)
    return copy


def names(folder: Path | None = None) -> list[str]:
    return [file.name for file in schema_files(folder)]


def test_each_file_is_applied_once_the_baseline_first(
    empty_database: Database, folder: Path
) -> None:
    (folder / "migrations" / "9000_fine.sql").write_text("ALTER TABLE run_pins ADD x INTEGER;")
    assert names(folder) == sorted(names(folder))
    assert names(folder)[0] == "baseline/01_dimensions.sql"
    assert names(folder)[-1] == "migrations/9000_fine.sql"
    assert migrate(empty_database, folder) == names(folder)
    assert migrate(empty_database, folder) == []
    check(empty_database, folder)


def test_a_migration_is_applied_to_a_store_that_has_the_baseline(
    database: Database, folder: Path
) -> None:
    (folder / "migrations" / "9000_fine.sql").write_text("CREATE TABLE fine (x INTEGER);")
    assert migrate(database, folder) == ["migrations/9000_fine.sql"]
    check(database, folder)
    with psycopg.connect(database.conninfo) as connection:
        connection.execute("SET ROLE backtest_reader")
        connection.execute("SELECT * FROM fine")


def test_an_empty_database_is_told_to_migrate(empty_database: Database) -> None:
    with pytest.raises(SchemaNotMigrated, match=r"baseline/01_dimensions\.sql.*pipeline migrate"):
        check(empty_database)


def test_a_changed_file_refuses_the_whole_step(database: Database, folder: Path) -> None:
    with (folder / "baseline" / "02_datasets.sql").open("a") as file:
        file.write("-- one more thought\n")
    (folder / "migrations" / "9000_fine.sql").write_text("CREATE TABLE fine (x INTEGER);")
    for action in (check, migrate):
        with pytest.raises(SchemaNotMigrated, match=r"baseline/02_datasets\.sql has changed"):
            action(database, folder)
    assert scalar(database, "SELECT to_regclass('fine')") is None


def test_the_baseline_does_not_grow(database: Database, folder: Path) -> None:
    (folder / "baseline" / "99_more.sql").write_text("CREATE TABLE more (x INTEGER);")
    with pytest.raises(SchemaNotMigrated, match=r"99_more\.sql has changed .* new migration"):
        migrate(database, folder)


def test_a_store_of_another_schema_is_refused_and_stays_as_it_is(
    other_schema: OtherSchema, folder: Path
) -> None:
    (folder / "migrations" / "9000_fine.sql").write_text("CREATE TABLE fine (x INTEGER);")
    before = other_schema.contents()
    for action in (check, migrate):
        with pytest.raises(SchemaNotMigrated) as refused:
            action(other_schema.database, folder)
        assert str(refused.value) == other_schema.sentence
    assert other_schema.contents() == before


def test_where_a_file_fails_nothing_is_applied(database: Database, folder: Path) -> None:
    (folder / "migrations" / "9000_fine.sql").write_text("CREATE TABLE fine (x INTEGER);")
    (folder / "migrations" / "9001_bad.sql").write_text("CREATE TABLE bad (x INTEGER); SELECT 1/0;")
    with pytest.raises(StoreError, match=r"^migrations/9001_bad\.sql: .*division by zero"):
        migrate(database, folder)
    with database.begin() as connection:
        for table in ("fine", "bad"):
            assert connection.scalar(sa.text(f"SELECT to_regclass('{table}')")) is None
    with pytest.raises(
        SchemaNotMigrated, match=r"the schema is missing .*9000_fine\.sql, .*9001_bad"
    ):
        check(database, folder)
    check(database)


def test_percent_signs_and_colons_in_a_file_are_left_alone(
    database: Database, folder: Path
) -> None:
    signs = folder / "migrations" / "9000_signs.sql"
    signs.write_text("CREATE TABLE signs AS SELECT '%s :x %'::text AS t;")
    migrate(database, folder)
    assert scalar(database, "SELECT t FROM signs") == "%s :x %"


@pytest.mark.parametrize(
    "name",
    [
        *("notes.sql", "0024_more.sql", "migrations/12_short.sql", "migrations/0001-dash.sql"),
        *("baseline/0001_long.sql", "baseline/01_again.sql", "other/0001_x.sql"),
    ],
)
def test_a_misnamed_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("SELECT 1")
    with pytest.raises(ConfigurationError, match=r"migrations/NNNN_name\.sql.*number once"):
        schema_files(folder)


def test_many_may_migrate_at_once(empty_database: Database) -> None:
    databases = [connect_database(empty_database.conninfo) for _ in range(6)]
    with ThreadPoolExecutor(len(databases)) as pool:
        applied = list(pool.map(migrate, databases))
    assert sorted(chain.from_iterable(applied)) == names()
    for database in databases:
        database.close()


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


def test_an_embedded_store_is_set_up_by_whoever_opens_it_and_another_is_not(
    empty_database: Database,
) -> None:
    with pytest.raises(SchemaNotMigrated, match="run `backtest-pipeline migrate`"):
        ensure(empty_database, embedded=False)
    ensure(empty_database, embedded=True)
    ensure(empty_database, embedded=False)
    check(empty_database)


def test_trials_of_before_count_by_version_where_the_strategy_is_ones_own(
    empty_database: Database, folder: Path
) -> None:
    migration = folder / "migrations" / "0024_versions_of_own_strategies.sql"
    text = migration.read_text()
    for later in (f for f in folder.glob("migrations/*.sql") if f.name >= migration.name):
        later.unlink()
    migrate(empty_database, folder)
    one, other = "0123456789abcdef", "fedcba9876543210"
    versions = {"dip": (one, other), "ema_crossover": (one, other), "of_a_strategist": ("", "")}
    with empty_database.begin() as connection:
        declare_timeframes(connection, ["1D"])
        for strategy, hashes in versions.items():
            for own in hashes:
                code = f"engine 1, metrics 1, {strategy} {own}" if own else "engine 1, metrics 1"
                connection.execute(
                    sa.text(
                        "INSERT INTO trials (trial_id, configuration_id, strategy, params, symbol,"
                        " tf, source, config_hash, dataset_version, code_version, n_obs,"
                        " first_week, weekly_returns) VALUES (gen_random_uuid(),"
                        " gen_random_uuid(), :strategy, '{}', 'A', '1D', 'run', 'c', 'd', :code,"
                        " 1, '2024-01-01', '{}')"
                    ),
                    {"strategy": strategy, "code": code},
                )
    query = "SELECT strategy, count(DISTINCT set_id) AS n FROM trials GROUP BY 1 ORDER BY 1"
    sets = (
        "SELECT string_agg(set_id::text, ' ' ORDER BY set_id) FROM trials WHERE strategy <> 'dip'"
    )
    before = scalar(empty_database, sets)
    migration.write_text(text)
    assert migrate(empty_database, folder) == [f"migrations/{migration.name}"]
    found = {row["strategy"]: row["n"] for row in rows(empty_database, query)}
    assert found == {"dip": 2, "ema_crossover": 1, "of_a_strategist": 1}
    assert scalar(empty_database, sets) == before
    version = "SELECT string_agg(strategy_version, ' ' ORDER BY strategy_version) FROM trials"
    assert scalar(empty_database, version) == f"{one} {other}"
