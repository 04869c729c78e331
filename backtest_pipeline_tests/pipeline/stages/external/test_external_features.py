"""The chain on the user's own table of features."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.features import EMA_PERIODS
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.restatements import watch_history
from backtest_pipeline.pipeline.audits.stored_tables import check_dataset
from backtest_pipeline.pipeline.stages.features import SNAPSHOT_COLUMNS, load_batch
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline_tests.pipeline.external_chain import on, take
from backtest_pipeline_tests.pipeline.markets import PARTITIONS, contents, outcome, refresh, whole
from backtest_pipeline_tests.sql import rows
from backtest_pipeline_tests.theirs import Theirs

A = Partition("ID-1", "1D")
NewStore = Callable[[], Workspace]


def version_of(store: Workspace, partition: Partition) -> dict[str, object]:
    (found,) = rows(
        store,
        f"SELECT v.* FROM dataset_versions v JOIN dim_assets a USING (id) WHERE dataset ="
        f" 'features' AND a.symbol = '{partition.asset}' AND tf = '{partition.timeframe}'",
    )
    return found


def test_the_chain_runs_and_a_second_one_finds_nothing_to_do(
    fresh_store: NewStore, theirs: Theirs
) -> None:
    store, before = fresh_store(), theirs.content()
    first = take(store, theirs.open())
    assert {name: report.counts for name, report in first.items()} == {
        stage: {"stored": 6} for stage in ("features", "signals", "backtests")
    }
    again = take(store, theirs.open())
    assert all(report.counts == {"unchanged": 6} for report in again.values())
    assert theirs.content() == before
    assert rows(store, "SELECT count(*) AS n FROM cmc_features") == [{"n": 0}]
    with on(store, theirs.open()) as workspace:
        for dataset in ("feature_snapshots", "signals", "backtests"):
            assert not any(check_dataset(workspace, dataset).values()), dataset


@pytest.mark.parametrize("joined", [False, True])
def test_signals_hold_the_full_row_of_the_table(
    fresh_store: NewStore, theirs: Theirs, joined: bool
) -> None:
    theirs.run(
        "UPDATE theirs.features SET bb_ma_20 = 'NaN', macd_12_26 = '-Infinity';"
        "ALTER TABLE theirs.features ADD COLUMN mood TEXT DEFAULT 'calm'"
    )
    # Joined, the table lies in the store's own database.
    store = fresh_store()
    if joined:
        store = replace(store, database=connect_database(theirs.owner))
    take(store, theirs.open(joined=joined), (A,))
    (event,) = rows(
        store,
        "SELECT ts, close, feature_snapshot AS row FROM signals ORDER BY ts DESC, action LIMIT 1",
    )
    snapshot = event["row"]
    assert isinstance(snapshot, dict)
    text = "SELECT to_jsonb(f)::text FROM theirs.features f WHERE id = 1 AND tf = '1D' AND ts = %s"
    ((stored,),) = theirs.run(text, event["ts"])
    expected = json.loads(stored)
    del expected["updated_at"]
    expected |= {"bb_ma_20": None, "macd_12_26": None}
    emas = {f"ema_{period}" for period in EMA_PERIODS}
    assert {k: v for k, v in snapshot.items() if k not in emas} == expected
    assert snapshot["mood"] == "calm"
    assert len(snapshot) == 114 + 1 - 1 + len(emas)
    assert snapshot["close"] == event["close"]
    if joined:
        store.database.close()


def test_a_copy_of_what_is_built_here_gives_the_same_results(
    fresh_store: NewStore,
) -> None:
    built, taken = fresh_store(), fresh_store()
    refresh(built, whole())
    copy = Theirs(built.database.conninfo, built.database.conninfo)
    copy.run(
        "CREATE SCHEMA theirs;"
        "CREATE TABLE theirs.features AS SELECT *, 'multi_tf'::text AS alignment_source,"
        " 1 AS venue_id FROM cmc_features;"
        "CREATE TABLE theirs.emas AS SELECT *, 1 AS venue_id FROM cmc_ema_multi_tf_u;"
        "CREATE TABLE theirs.coins AS SELECT id, symbol FROM dim_assets"
    )
    for emas in ("", "theirs.emas"):
        reports = take(
            taken, copy.open(emas=emas, assets="theirs.coins"), PARTITIONS, rebuild=bool(emas)
        )
        assert not any(report.failed for report in reports.values())
        assert_same_results(built, taken)


def assert_same_results(built: Workspace, taken: Workspace) -> None:
    """Signals, trades, metrics and equity to the last bit; only names of versions differ."""
    one, other = contents(built), contents(taken)
    runs = ["symbol", "tf", "signal_name"]
    for found in (one, other):
        ids = found["backtest_runs"][["run_id", *runs]]
        for table in (
            "backtest_trades",
            "backtest_metrics",
            "equity.parquet",
            "monthly_returns.parquet",
        ):
            keyed = found[table].drop(columns="symbol", errors="ignore")
            keyed = keyed.assign(run_id=keyed["run_id"].astype(str))
            keyed = keyed.merge(ids.assign(run_id=ids["run_id"].astype(str)), on="run_id")
            order = [*runs, *(c for c in ("trade_no", "ts", "month") if c in keyed)]
            found[table] = keyed.drop(columns="run_id").sort_values(order, ignore_index=True)
        snapshots = found["signals"]["snapshot"].map(json.loads)
        added = ("alignment_source", "venue_id")
        bare = [{k: v for k, v in row.items() if k not in added} for row in snapshots]
        found["signals"] = found["signals"].assign(snapshot=bare)
    compared = {
        "signals": ["symbol", "tf", "ts", "signal_id", "direction", "action", "close", "snapshot"],
        "signal_state": ["symbol", "tf", "signal_id", "last_ts", "long_since", "short_since"],
        "backtest_runs": [
            *runs,
            "first_ts",
            "last_ts",
            "n_bars",
            "result_fingerprint",
            "results_text",
            "config_hash",
            "config_text",
        ],
        "backtest_trades": list(one["backtest_trades"].columns),
        "backtest_metrics": list(one["backtest_metrics"].columns),
        "equity.parquet": list(one["equity.parquet"].columns),
        "monthly_returns.parquet": list(one["monthly_returns.parquet"].columns),
        "benchmark.parquet": list(one["benchmark.parquet"].columns),
    }
    for table, columns in compared.items():
        frames = [pd.DataFrame(found[table][columns]) for found in (one, other)]
        assert len(frames[0]), table
        order = [c for c in (*runs, "signal_id", "ts", "direction", "action") if c in columns]
        if table in ("signals", "signal_state", "backtest_runs"):
            frames = [frame.sort_values(by=order, ignore_index=True) for frame in frames]
        pd.testing.assert_frame_equal(frames[0], frames[1], check_exact=True, obj=table)


def test_unsound_rows_are_left_out_and_counted(fresh_store: NewStore, theirs: Theirs) -> None:
    theirs.run(
        "UPDATE theirs.features SET close = NULL WHERE id = 1 AND tf = '1D' AND ts < '2016-01-04';"
        "UPDATE theirs.features SET open = 'NaN' WHERE id = 1 AND tf = '1D'"
        " AND ts BETWEEN '2016-02-01' AND '2016-02-03';"
        "UPDATE theirs.features SET low = 'Infinity' WHERE id = 1 AND tf = '1D'"
        " AND ts BETWEEN '2016-03-01' AND '2016-03-02';"
        "UPDATE theirs.features SET low = 0 WHERE id = 1 AND tf = '1D'"
        " AND ts BETWEEN '2016-04-01' AND '2016-04-02'"
    )
    store = fresh_store()
    assert take(store, theirs.open())["features"].counts == {"stored": 6}
    found = rows(
        store,
        "SELECT q.reason, q.n_rows FROM data_quality q JOIN dim_assets a USING (id)"
        " WHERE q.dataset = 'features' AND a.symbol = 'ID-1' AND q.tf = '1D' ORDER BY 1",
    )
    assert [tuple(row.values()) for row in found] == [
        ("infinite_price", 1),
        ("nan_price", 5),
        ("non_positive_price", 1),
    ]
    with on(store, theirs.open()) as workspace:
        block = load_batch(workspace, "features", "1D", ["ID-1"], SNAPSHOT_COLUMNS)
    assert len(block.panel) == 300 - 7
    assert np.isfinite(block.panel["close"]).all()


def test_a_partition_without_a_sound_row_is_named_and_says_why(
    fresh_store: NewStore, theirs: Theirs
) -> None:
    theirs.run("UPDATE theirs.features SET close = -1 WHERE id = 2 AND tf = '1D'")
    report = take(fresh_store(), theirs.open())["features"]
    status, detail = outcome(report, Partition("ID-2", "1D"))
    assert status == "no_input"
    assert "300 rows skipped as non_positive_price" in detail
    assert report.counts == {"stored": 5, "no_input": 1}


def test_a_key_that_is_there_twice_fails_its_partition_alone(
    fresh_store: NewStore, theirs: Theirs
) -> None:
    theirs.run(
        "ALTER TABLE theirs.features DROP CONSTRAINT features_pkey;"
        "INSERT INTO theirs.features SELECT * FROM theirs.features"
        " WHERE id = 2 AND tf = '1D' ORDER BY ts LIMIT 1"
    )
    report = take(fresh_store(), theirs.open())["features"]
    assert report.counts == {"stored": 5, "failed": 1}
    status, detail = outcome(report, Partition("ID-2", "1D"))
    assert status == "failed"
    assert "more than once" in detail


def test_what_the_table_does_not_have_is_named_and_what_was_taken_stays(
    fresh_store: NewStore, theirs: Theirs
) -> None:
    store = fresh_store()
    take(store, theirs.open(), (A, Partition("ID-9", "1D"), Partition("ID-1", "4H")))
    before = version_of(store, A)
    theirs.run("DELETE FROM theirs.features WHERE id = 1 AND tf = '1D'")
    report = take(store, theirs.open(), (A, Partition("ID-9", "1D")))["features"]
    assert outcome(report, Partition("ID-9", "1D")) == (
        "no_input",
        "theirs.features has no row of this asset and timeframe",
    )
    assert "the 300 rows copied earlier are kept" in outcome(report, A)[1]
    assert version_of(store, A) == before


@pytest.mark.parametrize("stamped", [True, False])
def test_an_old_row_that_is_restated_makes_new_results(
    fresh_store: NewStore, theirs: Theirs, stamped: bool
) -> None:
    if not stamped:
        theirs.run("ALTER TABLE theirs.features DROP COLUMN updated_at")
    store = fresh_store()
    take(store, theirs.open())
    before = version_of(store, A)
    when = ", updated_at = now()" if stamped else ""
    theirs.run(
        f"UPDATE theirs.features SET close = high{when} WHERE id = 1 AND tf = '1D'"
        " AND ts BETWEEN '2016-02-01' AND '2016-02-05'"
    )
    reports = take(store, theirs.open())
    longer = reports.pop("backtests")  # those of its weeks might be marked by these days
    assert longer.counts == {"stored": 2, "unchanged": 4}
    for report in reports.values():
        assert report.counts == {"stored": 1, "unchanged": 5}
    assert version_of(store, A)["version"] != before["version"]
    assert version_of(store, A)["generation"] != before["generation"]


@pytest.mark.parametrize("joined", [False, True])
def test_a_row_that_was_changed_without_telling_is_noticed_under_its_signal(
    fresh_store: NewStore, theirs: Theirs, joined: bool
) -> None:
    """By the watermark alone nobody would know: `updated_at` stays as it was."""
    store = fresh_store()
    if joined:
        store = replace(store, database=connect_database(theirs.owner))
    take(store, theirs.open(joined=joined))
    when = "SELECT max(s.ts) AS ts FROM signals s WHERE id = 1 AND tf = '1D'"
    ((signal_ts,),) = [tuple(row.values()) for row in rows(store, when)]
    with on(store, theirs.open(joined=joined)) as workspace:
        assert watch_history(workspace).silent == ()
    theirs.run(
        "UPDATE theirs.features SET close = high, rsi_14 = rsi_14 / 2"
        " WHERE id = 1 AND tf = '1D' AND ts = %s",
        signal_ts,
    )
    assert take(store, theirs.open(joined=joined))["features"].counts == {"unchanged": 6}
    with on(store, theirs.open(joined=joined)) as workspace:
        assert watch_history(workspace).silent == (A,)
    assert take(store, theirs.open(joined=joined))["features"].counts == {
        "stored": 1,
        "unchanged": 5,
    }
    with on(store, theirs.open(joined=joined)) as workspace:
        found = watch_history(workspace)
    assert found.silent == ()
    assert found.restated == 1
    assert found.effects > 0
    if joined:
        store.database.close()


def test_rows_written_again_with_the_same_content_change_nothing(
    fresh_store: NewStore, theirs: Theirs
) -> None:
    store = fresh_store()
    take(store, theirs.open())
    before = version_of(store, A)
    theirs.run("UPDATE theirs.features SET updated_at = now() WHERE id = 1")
    assert take(store, theirs.open())["features"].counts == {"unchanged": 6}
    same = ("version", "generation", "input_version", "uris")
    assert [version_of(store, A)[name] for name in same] == [before[name] for name in same]


def test_new_rows_are_appended_to_the_same_generation(
    fresh_store: NewStore, theirs: Theirs
) -> None:
    store = fresh_store()
    theirs.run(
        "CREATE TABLE theirs.later AS SELECT * FROM theirs.features WHERE ts > '2016-08-01';"
        "DELETE FROM theirs.features WHERE ts > '2016-08-01'"
    )
    take(store, theirs.open())
    generation = version_of(store, A)["generation"]
    theirs.run("INSERT INTO theirs.features SELECT * FROM theirs.later")
    take(store, theirs.open())
    assert version_of(store, A)["generation"] == generation
    direct = fresh_store()
    take(direct, theirs.open())
    assert version_of(direct, A)["version"] == version_of(store, A)["version"]
    fingerprints = (
        "SELECT symbol, tf, signal_name, result_fingerprint FROM backtest_runs WHERE is_current"
        " ORDER BY 1, 2, 3"
    )
    assert rows(store, fingerprints) == rows(direct, fingerprints)


def test_a_bar_that_has_not_ended_is_taken_when_it_has(
    fresh_store: NewStore, theirs: Theirs
) -> None:
    for seconds in (3, 15, 75):
        theirs.run(
            f"UPDATE theirs.features SET ts = now() + interval '{seconds} seconds'"
            " WHERE id = 1 AND tf = '1D' AND ts > '2016-10-26'"
        )
        store = fresh_store()
        take(store, theirs.open(), (A,))
        if version_of(store, A)["n_rows"] == 299:
            break  # or it had ended before it was read, on a busy machine
    assert version_of(store, A)["n_rows"] == 299
    theirs.run(f"SELECT pg_sleep({seconds})")
    take(store, theirs.open(), (A,))
    assert version_of(store, A)["n_rows"] == 300


def test_a_store_may_go_from_one_way_to_the_other_and_back(fresh_store: NewStore) -> None:
    ids = (("S-ALPHA", 1), ("S-MU", 2), ("S-ZETA", 3))
    source = replace(whole(), known_ids=ids)
    some = (Partition("S-ALPHA", "1D"), Partition("S-MU", "3D"))
    store, other = fresh_store(), fresh_store()
    refresh(store, source, some)
    built = contents(store)
    copy = Theirs(other.database.conninfo, other.database.conninfo)
    refresh(other, source, some)
    copy.run(
        "CREATE SCHEMA theirs; CREATE TABLE theirs.features AS SELECT * FROM cmc_features;"
        "UPDATE theirs.features SET close = high"
    )
    taken = take(store, copy.open(filters=""), some)
    assert all(r.counts == {"stored": len(some)} for r in taken.values())
    refresh(store, source, some)
    again = contents(store)
    for table in ("cmc_features", "signals", "backtest_trades", "backtest_metrics"):
        pd.testing.assert_frame_equal(built[table], again[table], check_exact=True, obj=table)
