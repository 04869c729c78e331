from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import BarsError, InvalidInput, StoreError, UnknownName
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.tables.feature_writing import (
    ComputedFeatures,
    FeatureWrite,
    write_features,
)
from backtest_pipeline.storage.tables.features import read_features
from backtest_pipeline_tests.sql import count
from backtest_pipeline_tests.storage.panels import (
    assert_equal,
    ensure_assets,
    first_rows,
    random_panel,
)

LENGTHS = {"BTC": 40, "ETH": 25, "NEW": 1, "NONE": 0}


def write(database: Database, panel: Panel, *, replace: bool = False) -> FeatureWrite:
    ids = ensure_assets(database, panel.assets)
    inputs = dict.fromkeys(panel.assets, "bars-1")
    computed = ComputedFeatures(panel, input_versions=inputs, code_version="code-1")
    return write_features(database, computed, ids, replace=replace)


def read_all(database: Database, like: Panel) -> Panel:
    return read_features(database, like.timeframe, like.assets, list(like.columns))


def test_what_is_written_is_read_back_bit_for_bit(database: Database) -> None:
    panel = random_panel(database, LENGTHS)
    write(database, panel)
    assert_equal(read_all(database, panel), panel)


def test_assets_come_in_the_order_asked_and_only_the_columns_asked(database: Database) -> None:
    panel = random_panel(database, LENGTHS)
    write(database, panel)
    read = read_features(database, panel.timeframe, ("NEW", "ETH", "BTC"), ("ema_21", "close"))
    wanted = panel.select(("NEW", "ETH", "BTC"))
    assert read.assets == wanted.assets
    assert set(read.columns) == {"ema_21", "close"}
    np.testing.assert_array_equal(read["close"], wanted["close"])
    np.testing.assert_array_equal(read["ema_21"], wanted["ema_21"])


def test_values_that_are_not_finite_are_stored_as_null(database: Database) -> None:
    panel = random_panel(database, {"BTC": 3})
    values = np.array([np.nan, np.inf, -np.inf])
    write(database, panel.with_columns({"rsi_14": values, "ema_9": values}))
    with database.begin() as connection:
        nulls = sa.text("SELECT count(*) FROM cmc_features WHERE rsi_14 IS NULL")
        assert connection.scalar(nulls) == 3
        emas = sa.text("SELECT count(*) FROM cmc_ema_multi_tf_u WHERE period = 9")
        assert connection.scalar(emas) == 0


def test_writing_the_same_again_writes_nothing(database: Database) -> None:
    panel = random_panel(database, LENGTHS)
    assert write(database, panel).replaced == panel.assets
    again = write(database, panel)
    assert again.n_rows == 0
    assert set(again.unchanged) == {"BTC", "ETH", "NEW"}


def test_only_newer_rows_are_added_where_the_beginning_is_the_same(database: Database) -> None:
    panel = random_panel(database, {"BTC": 40, "ETH": 25})
    write(database, first_rows(panel, 25))
    before = row_places(database)
    done = write(database, panel)
    assert (done.appended, done.unchanged, done.replaced) == (("BTC",), ("ETH",), ())
    assert done.n_rows == 15
    assert before <= row_places(database)
    assert_equal(read_all(database, panel), panel)


def row_places(database: Database) -> set[str]:
    with database.begin() as connection:
        return set(connection.scalars(sa.text("SELECT ctid::text FROM cmc_features")))


def test_a_restated_row_replaces_its_asset_and_no_other(database: Database) -> None:
    panel = random_panel(database, {"BTC": 40, "ETH": 25})
    write(database, panel)
    restated = panel.with_columns({"close": panel["close"].copy()})
    restated["close"][3] += 1
    done = write(database, restated)
    assert (done.replaced, done.unchanged) == (("BTC",), ("ETH",))
    assert_equal(read_all(database, panel), restated)


def test_a_shorter_history_removes_the_rows_that_are_gone(database: Database) -> None:
    panel = random_panel(database, {"BTC": 40, "ETH": 25})
    write(database, panel)
    shorter = first_rows(panel, 10)
    write(database, shorter)
    assert_equal(read_all(database, panel), shorter)
    assert count(database, "cmc_features") == 20


def test_replace_writes_everything_again(database: Database) -> None:
    panel = random_panel(database, LENGTHS)
    write(database, panel)
    assert write(database, panel, replace=True).n_rows == len(panel)
    assert_equal(read_all(database, panel), panel)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(cuts=st.lists(st.integers(0, 12), min_size=1, max_size=4), restate=st.booleans())
def test_any_way_of_growing_ends_in_the_rows_of_a_full_rebuild(
    database: Database, cuts: list[int], restate: bool
) -> None:
    panel = random_panel(database, {"BTC": 12, "ETH": 7})
    for i, cut in enumerate(cuts):
        step = first_rows(panel, cut)
        if restate:
            step = step.with_columns({"rsi_7": step["rsi_7"] + i})
        write(database, step)
    write(database, panel)
    assert_equal(read_all(database, panel), panel)


def test_versions_are_recorded_with_the_rows(database: Database) -> None:
    panel = random_panel(database, {"BTC": 40, "NONE": 0})
    write(database, panel)
    query = sa.text(
        "SELECT symbol, n_rows, first_ts, last_ts, input_version, code_version"
        " FROM dataset_versions JOIN dim_assets USING (id)"
        " WHERE dataset = 'features' ORDER BY symbol"
    )
    with database.begin() as connection:
        btc, none = (tuple(row) for row in connection.execute(query))
    assert btc[1] == 40
    assert btc[2].isoformat() == "2020-01-01T00:00:00+00:00"
    assert btc[3].isoformat() == "2020-02-09T00:00:00+00:00"
    assert btc[4:] == ("bars-1", "code-1")
    assert none[1:4] == (0, None, None)


def test_a_refused_row_leaves_the_whole_block_as_it_was(database: Database) -> None:
    panel = random_panel(database, {"BTC": 40, "ETH": 25})
    write(database, panel)
    bad = panel.with_columns({"close": -panel["close"]})
    with pytest.raises(StoreError, match="check constraint"):
        write(database, bad)
    assert_equal(read_all(database, panel), panel)


def test_timeframes_do_not_touch_each_other(database: Database) -> None:
    daily = random_panel(database, {"BTC": 40})
    hourly = random_panel(database, {"BTC": 30}, seed=1)
    hourly = Panel(timeframe("1H"), hourly.assets, hourly.offsets, hourly.ts, hourly.columns)
    write(database, daily)
    write(database, hourly)
    write(database, daily, replace=True)
    assert_equal(read_all(database, hourly), hourly)


def test_writers_of_one_block_follow_each_other(database: Database) -> None:
    panels = [random_panel(database, {"BTC": 40, "ETH": 25}, seed) for seed in range(4)]
    databases = [connect_database(database.conninfo) for _ in panels]
    ensure_assets(database, panels[0].assets)
    with ThreadPoolExecutor(len(panels)) as pool:
        list(pool.map(write, databases, panels))
    read = read_all(database, panels[0])
    assert any(np.array_equal(read["close"], panel["close"]) for panel in panels)
    assert len(read) == len(panels[0])
    for other in databases:
        other.close()


def test_a_key_that_is_there_twice_is_refused(database: Database) -> None:
    panel = random_panel(database, {"BTC": 4})
    write(database, panel)
    with database.begin() as connection:
        connection.execute(sa.text("ALTER TABLE cmc_features DROP CONSTRAINT cmc_features_pkey"))
        connection.execute(sa.text("INSERT INTO cmc_features SELECT * FROM cmc_features LIMIT 2"))
    with pytest.raises(BarsError, match=r"BTC\|1D at 2020-01-01.*more than once \(2 duplicate"):
        read_features(database, panel.timeframe, ("BTC",), ("close",))


def test_emas_with_holes_and_strays_land_on_their_own_rows(database: Database) -> None:
    panel = random_panel(database, {"BTC": 10, "ETH": 10})
    write(database, panel)
    with database.begin() as connection:
        connection.execute(
            sa.text("DELETE FROM cmc_ema_multi_tf_u WHERE period = 9 AND ts = :ts"),
            {"ts": "2020-01-05T00:00:00Z"},
        )
        connection.execute(sa.text("DELETE FROM cmc_features WHERE ts >= '2020-01-09T00:00:00Z'"))
    read = read_features(database, panel.timeframe, ("BTC", "ETH"), ("ema_9",))
    expected = first_rows(panel, 8)
    hole = expected.ts == expected.ts[0] + 4 * DAY_US
    np.testing.assert_array_equal(read["ema_9"], np.where(hole, np.nan, expected["ema_9"]))


def test_unknown_names_are_refused_with_the_nearest(database: Database) -> None:
    write(database, random_panel(database, {"BTC": 3}))
    daily = timeframe("1D")
    with pytest.raises(UnknownName, match="unknown asset 'BTX'; did you mean BTC"):
        read_features(database, daily, ("BTX",), ("close",))
    with pytest.raises(UnknownName, match="unknown feature 'rsi_15'; did you mean"):
        read_features(database, daily, ("BTC",), ("rsi_15",))
    with pytest.raises(UnknownName, match="unknown feature"):
        read_features(database, daily, ("BTC",), ('close" FROM dim_assets --',))


def test_a_panel_with_other_columns_is_refused_by_name(database: Database) -> None:
    panel = random_panel(database, {"BTC": 3})
    columns = {name: values for name, values in panel.columns.items() if name != "rsi_7"}
    strange = Panel(panel.timeframe, panel.assets, panel.offsets, panel.ts, columns)
    with pytest.raises(InvalidInput, match="missing: rsi_7; not in the table: rsi_8"):
        write(database, strange.with_columns({"rsi_8": panel["rsi_7"]}))


def test_an_id_without_an_asset_is_refused(database: Database) -> None:
    panel = random_panel(database, {"BTC": 3})
    with pytest.raises(InvalidInput, match=r"no row for BTC \(77\)"):
        write_features(database, ComputedFeatures(panel, {"BTC": "i"}, "c"), {"BTC": 77})


def test_an_asset_without_rows_reads_as_an_empty_segment(database: Database) -> None:
    ensure_assets(database, ["BTC"])
    read = read_features(database, timeframe("1D"), ("BTC",), ("close", "ema_9", "ta_is_outlier"))
    assert len(read) == 0
    assert read.offsets.tolist() == [0, 0]
