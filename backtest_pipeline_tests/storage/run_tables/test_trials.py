"""The ledger of trials in the database: when something was first tried is moved by nobody."""

from __future__ import annotations

import pytest

from backtest_pipeline.market.errors import StoreError
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.run_tables.trials import read_families
from backtest_pipeline_tests.sql import column, count, execute_as, execute_sql, scalar

TRIAL = """
    INSERT INTO trials (trial_id, configuration_id, strategy, params, symbol, tf, config_hash,
        dataset_version, code_version, source, n_obs, first_week, weekly_returns, created_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 'ema_crossover', '{"fast": 9}', symbol, '1D', 'c',
        'd', 'k', 'run', 400, '2024-01-01', '{0.1}', now() + interval '5 years'
    FROM dim_assets"""


@pytest.fixture
def tried(database: Database) -> Database:
    """A trial of the real asset A, and one of the synthetic asset S."""
    execute_sql(
        database,
        "INSERT INTO dim_assets (id, symbol, is_synthetic) VALUES (1, 'A', FALSE), (2, 'S', TRUE)",
    )
    execute_sql(database, TRIAL)
    return database


def test_the_database_says_when_something_was_tried(tried: Database) -> None:
    assert scalar(tried, "SELECT max(created_at) <= now() FROM trials")


def test_a_row_that_is_there_keeps_its_stamp(tried: Database) -> None:
    first = column(tried, "SELECT created_at FROM trials ORDER BY symbol")
    again = """
        INSERT INTO trials (trial_id, configuration_id, strategy, params, symbol, tf, config_hash,
            dataset_version, code_version, source, n_obs, first_week, weekly_returns)
        SELECT trial_id, configuration_id, strategy, params, symbol, tf, config_hash,
            dataset_version, code_version, source, n_obs, first_week, weekly_returns
        FROM trials ON CONFLICT (trial_id) DO NOTHING"""
    assert execute_sql(tried, again) == 0
    assert column(tried, "SELECT created_at FROM trials ORDER BY symbol") == first


@pytest.mark.parametrize("role", ["backtest_writer", "backtest_owner", "NONE"])
@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE trials SET created_at = now() + interval '1 year'", "UPDATE of trials"),
        ("UPDATE trials SET symbol = 'B'", "UPDATE of trials"),
        ("UPDATE trials SET params = '{}'", "UPDATE of trials"),
        ("DELETE FROM trials WHERE symbol = 'A'", "DELETE of trials"),
        ("UPDATE dim_assets SET is_synthetic = TRUE", "asset A: the ledger has trials"),
        ("UPDATE dim_assets SET symbol = symbol || '2'", "asset A: the ledger has trials"),
        ("DELETE FROM dim_assets", "asset A: the ledger has trials"),
        (
            """CREATE TEMP TABLE dim_assets AS SELECT 'A' AS symbol, TRUE AS is_synthetic;
               DELETE FROM trials WHERE symbol = 'A'""",
            "DELETE of trials",
        ),
    ],
)
def test_no_role_makes_what_was_tried_younger(
    tried: Database, role: str, statement: str, message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        execute_as(tried, role, *statement.split(";"))


def test_the_ledger_is_never_emptied(tried: Database) -> None:
    with pytest.raises(StoreError, match="TRUNCATE of trials"):
        execute_sql(tried, "TRUNCATE trials CASCADE")


def test_trials_of_a_synthetic_asset_go_with_it(tried: Database) -> None:
    assert execute_sql(tried, "DELETE FROM trials WHERE symbol = 'S'") == 1
    assert execute_sql(tried, "DELETE FROM dim_assets WHERE symbol = 'S'") == 1
    assert count(tried, "trials") == 1


ON_A_WINDOW = """
    INSERT INTO trials (trial_id, configuration_id, strategy, params, symbol, tf, window_start,
        window_end, config_hash, dataset_version, code_version, source, n_obs, first_week,
        weekly_returns)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'ema_crossover', '{"fast": 5}', 'A', '1D', :since,
        :until, 'c', 'd', 'k', 'walk_forward', 90, '2024-01-01', ARRAY[:weekly])"""


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_window_that_ends_last_stands_for_a_set_in_whatever_order_they_were_tried(
    tried: Database, order: tuple[int, ...]
) -> None:
    windows = [("2024-01-01", "2024-06-01"), ("2024-03-01", "2024-09-01"), (None, "2024-05-01")]
    for i in order:
        since, end = windows[i]
        execute_sql(tried, ON_A_WINDOW, since=since, until=end, weekly=float(i))
    with tried.arrow() as connection, connection.cursor() as cursor:
        found = read_families(cursor, "1D", ["A"], [], 10)
    returns = sorted(found["weekly_returns"].to_pylist())
    assert returns[0] == pytest.approx([0.1])  # of the other set, on the whole history
    assert returns[1] == [1.0]
