"""Old results go, all of them and nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.pipeline.runs.query import list_runs, pin
from backtest_pipeline.pipeline.runs.retention import retain
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.run_tables.retention import KINDS
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.processes import MARKET, PARTITIONS
from backtest_pipeline_tests.pipeline.runs.old_runs import (
    DAYS,
    add_job,
    add_portfolio,
    clear,
    files,
    fill,
    filled,
    put,
    retained,
    run_id,
    state,
)
from backtest_pipeline_tests.sql import distinct, execute_sql
from backtest_pipeline_tests.stored_runs import NEWEST


def test_of_ten_thousand_runs_exactly_the_right_rows_and_files_stay(shared: Workspace) -> None:
    clear(shared)
    n = 10_000
    fill(shared, n)
    # The runs that ended 90 days ago or less: run `i` ended (i + 1) * 200 / n days ago.
    young = set(range(n * DAYS // 200))
    pinned, of_job, of_portfolio, of_refresh = {9_990, 5_000}, {7_003}, {6_001, 8_002}, 9_100
    pin(shared, [run_id(i) for i in pinned], "ann", "for the paper")
    add_job(shared, "running", None, *map(run_id, of_job))
    add_job(shared, "completed", NEWEST - timedelta(days=120), run_id(9_500))
    add_job(shared, "completed", NEWEST - timedelta(days=120), run_id(9_990))
    add_portfolio(shared, "young", 10, *map(run_id, of_portfolio))
    add_portfolio(shared, "old", 100, run_id(9_000))
    execute_sql(
        shared,
        """
        INSERT INTO dataset_versions (dataset, id, tf, version, input_version, code_version,
            generation, n_rows, uris)
        SELECT 'backtests', id, tf, 'v', '', '', '', 1, ARRAY[artifact_uri]
        FROM backtest_runs WHERE run_id = :run_id
        """,
        run_id=run_id(of_refresh),
    )
    execute_sql(
        shared,
        """
        UPDATE backtest_runs SET code_archive = CASE WHEN completed_at < :cutoff
            THEN 'code/old.zip' ELSE 'code/young.zip' END,
            config = config || jsonb_build_object('funding', CASE WHEN completed_at < :cutoff
            THEN 'old' ELSE 'young' END)
        """,
        cutoff=NEWEST - timedelta(days=DAYS),
    )
    execute_sql(
        shared,
        "UPDATE backtest_runs SET code_archive = NULL, config = '{}' WHERE run_id = ANY(:ids)",
        ids=[
            run_id(i)
            for i in (*pinned, *of_job, *of_portfolio, *range(of_refresh, of_refresh + 20))
        ],
    )
    for age in ("old", "young"):
        put(shared, f"code/{age}.zip")
        put(shared, f"code/{age}/market/panel.py")
        put(shared, f"code/{age}/manifest.json")
        put(shared, f"funding/{age}/rates.parquet")
        put(shared, f"funding/{age}/manifest.json")
    put(shared, "features/1D/nobody.parquet")
    put(shared, "of-the-user/precious.parquet")
    put(shared, "precious.txt")
    fresh = shared.artifacts.root / "features/1D/just-written.parquet"
    fresh.write_bytes(b"fresh")
    os.utime(fresh, (NEWEST.timestamp(), NEWEST.timestamp()))

    report = retained(shared)

    stay = young | pinned | of_job | of_portfolio | set(range(of_refresh, of_refresh + 20))
    assert distinct(shared, "SELECT run_id FROM backtest_runs") == set(map(run_id, stay))
    assert distinct(shared, "SELECT run_id FROM backtest_trades") == set(map(run_id, stay))
    assert distinct(shared, "SELECT run_id FROM backtest_metrics") == set(map(run_id, stay))
    asked = {run_id(i) for i in stay if i % 3 == 0}
    assert distinct(shared, "SELECT run_id FROM run_requests") == asked
    assert report.rows["runs"] == n - len(stay)
    uris = distinct(shared, "SELECT artifact_uri FROM backtest_runs") | {
        *("portfolios/1D/young", "code/young", "funding/young"),
    }
    found = files(shared)
    assert {str(Path(uri).parent) for uri in found if uri.endswith("manifest.json")} == uris
    assert {uri for uri in found if not uri.endswith(("manifest.json", "equity.parquet"))} == {
        *("code/young.zip", "code/young/market/panel.py", "funding/young/rates.parquet"),
        *("features/1D/just-written.parquet", "of-the-user/precious.parquet", "precious.txt"),
    }
    assert distinct(shared, "SELECT status FROM backtest_jobs") == {"running", "completed"}
    assert {kind: report.rows[kind] for kind in ("jobs", "portfolios")} == {
        "jobs": 1,
        "portfolios": 1,
    }
    assert report.files["code"].files == 3
    assert report.files["runs"].bytes == 8 * (500 - len(uris) + 3)
    assert not report.left
    assert not any(retained(shared).rows.values())


@dataclass(frozen=True)
class Case:
    """A run of the property test; its folder is one of few."""

    age: int
    folder: int
    status: str
    held_by: str


_CASES = st.lists(
    st.builds(
        Case,
        age=st.sampled_from([1, 89, 91, 150]),
        folder=st.integers(0, 4),
        status=st.sampled_from(["completed", "completed", "failed", "cancelled", "running"]),
        held_by=st.sampled_from(["", "", "", "pin", "refresh", "job", "unit", "portfolio"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=20)
@given(_CASES)
def test_what_is_needed_is_never_touched_and_no_run_is_without_artifacts(
    shared: Workspace, cases: list[Case]
) -> None:
    clear(shared)
    fill(shared, len(cases), per_folder=1)
    for uri in files(shared):
        (shared.artifacts.root / uri).unlink()
    for i, case in enumerate(cases):
        uri = f"runs/1D/{case.folder}"
        put(shared, f"{uri}/manifest.json")
        execute_sql(
            shared,
            "UPDATE backtest_runs SET status = :status, artifact_uri = :uri, completed_at ="
            " CASE WHEN :status <> 'running' THEN CAST(:ended AS timestamptz) END"
            " WHERE run_id = :run_id",
            status=case.status,
            uri=uri,
            ended=NEWEST - timedelta(days=case.age),
            run_id=run_id(i),
        )
        _hold(shared, case.held_by, i, uri)
    # Others of the asset and timeframe in the same directory are of the last refresh as well.
    of_refresh = distinct(
        shared,
        "SELECT r.run_id FROM backtest_runs r JOIN dataset_versions v"
        " ON (v.id, v.tf, v.uris[1]) = (r.id, r.tf, r.artifact_uri)",
    )
    retained(shared)
    stay = {
        i
        for i, case in enumerate(cases)
        if case.age < DAYS
        or case.status == "running"
        or case.held_by not in ("", "refresh")
        or run_id(i) in of_refresh
    }
    assert distinct(shared, "SELECT run_id FROM backtest_runs") == set(map(run_id, stay))
    folders = {f"runs/1D/{cases[i].folder}/manifest.json" for i in stay}
    referred = distinct(shared, "SELECT unnest(uris) || '/manifest.json' FROM dataset_versions")
    assert {uri for uri in files(shared) if uri.startswith("runs")} == folders | referred


def _hold(workspace: Workspace, by: str, i: int, uri: str) -> None:
    match by:
        case "pin":
            execute_sql(
                workspace,
                "INSERT INTO run_pins (run_id, pinned_by) VALUES (:id, 'ann')",
                id=run_id(i),
            )
        case "job":
            add_job(workspace, "running", None, run_id(i))
        case "unit":
            add_job(workspace, "pending", None)
            execute_sql(
                workspace,
                "INSERT INTO backtest_job_units (job_id, unit, run_ids, result, attempt)"
                " SELECT job_id, :unit, ARRAY[CAST(:id AS uuid)], '{}', 1 FROM backtest_jobs"
                " WHERE status = 'pending' LIMIT 1",
                unit=str(i),
                id=run_id(i),
            )
        case "portfolio":
            add_portfolio(workspace, f"p{i}", 1, run_id(i))
        case "refresh":
            execute_sql(
                workspace,
                "INSERT INTO dataset_versions (dataset, id, tf, version, input_version,"
                " code_version, generation, n_rows, uris) SELECT 'backtests', id, tf, 'v', '', '',"
                " '', 1, ARRAY[:uri] FROM backtest_runs WHERE run_id = :id"
                " ON CONFLICT DO NOTHING",
                uri=uri,
                id=run_id(i),
            )


def test_a_dry_run_reports_the_same_and_changes_nothing(shared: Workspace) -> None:
    filled(shared)
    before = state(shared), list_runs(shared, limit=1000)
    rehearsed = retained(shared, dry_run=True)
    assert (state(shared), list_runs(shared, limit=1000)) == before
    done = retained(shared)
    assert rehearsed.rows["runs"] > 50
    assert rehearsed == replace(done, dry_run=True)


@pytest.mark.parametrize("days", [0, -1, float("nan")])
def test_days_are_above_0(shared: Workspace, days: float) -> None:
    with pytest.raises(InvalidInput, match="days must be above 0"):
        retain(shared, days=days)


def test_versions_go_when_nothing_was_made_from_them(shared: Workspace) -> None:
    clear(shared)
    fill(shared, 20)
    used = distinct(shared, "SELECT value FROM backtest_runs, jsonb_each_text(dataset_version_ids)")
    (partition,) = distinct(
        shared, "SELECT key FROM backtest_runs, jsonb_each_text(dataset_version_ids)"
    )
    since = {"v0": 200, "unused": 150, "v1": 120, "young": 30, "newest": 1}
    assert {"v0", "v1"} <= used
    for name, days in since.items():
        # Each version adds a file to those of the one before it.
        uris = [f"features/1D/{other}.parquet" for other in list(since)[:2] if other != "unused"]
        uris.append(f"features/1D/{name}.parquet")
        put(shared, uris[-1])
        execute_sql(
            shared,
            "INSERT INTO dataset_snapshots (dataset, id, tf, version, code_version, generation,"
            " n_rows, first_ts, last_ts, uris, current_since) SELECT 'features', id, :tf, :name,"
            " '', '', 1, now(), now(), :uris, :since FROM dim_assets WHERE symbol = :symbol",
            name=name,
            uris=list(dict.fromkeys(uris)),
            since=NEWEST - timedelta(days=days),
            symbol=partition.split("|")[0],
            tf=partition.split("|")[1],
        )
    kept = {"v0", "v1", "young", "newest"}
    report = retained(shared, days=1000)
    assert report.rows["snapshots"] == 0
    # All that was replaced more than 90 days ago, and that no run needs.
    execute_sql(shared, "UPDATE backtest_runs SET completed_at = :at", at=NEWEST)
    report = retained(shared)
    assert distinct(shared, "SELECT version FROM dataset_snapshots") == kept
    stored = {uri for uri in files(shared) if uri.startswith("features")}
    assert stored == {f"features/1D/{name}.parquet" for name in kept}
    execute_sql(shared, "DELETE FROM backtest_runs")
    retained(shared)
    # The file of v0 holds the first rows of the others too.
    assert distinct(shared, "SELECT version FROM dataset_snapshots") == kept - {"v0"}
    assert {uri for uri in files(shared) if uri.startswith("features")} == stored


def test_columns_that_nobody_asks_for_go_and_those_of_stored_runs_stay(shared: Workspace) -> None:
    clear(shared)
    fill(shared, 20)
    (partition,) = distinct(
        shared, "SELECT key FROM backtest_runs, jsonb_each_text(dataset_version_ids)"
    )
    symbol, tf = partition.split("|")
    for name, days in {"read": 100, "unread": 100, "young": 30}.items():
        put(shared, f"columns/{name}/1D/{name}.parquet")
        for into, when in {"versions": "updated_at", "snapshots": "current_since"}.items():
            also = ", input_version" if into == "versions" else ""
            execute_sql(
                shared,
                f"INSERT INTO dataset_{into} (dataset, id, tf, version, code_version, generation,"
                f" n_rows, first_ts, last_ts, uris, {when}{also}) SELECT 'columns:' || :name, id,"
                f" :tf, 'v', '', '', 1, now(), now(), :uris, :at{', :tf' if also else ''}"
                " FROM dim_assets WHERE symbol = :symbol",
                name=name,
                tf=tf,
                symbol=symbol,
                uris=[f"columns/{name}/1D/{name}.parquet"],
                at=NEWEST - timedelta(days=days),
            )
    execute_sql(
        shared,
        "UPDATE backtest_runs SET completed_at = :at, dataset_version_ids ="
        " dataset_version_ids || jsonb_build_object(CAST(:key AS text), 'v')",
        at=NEWEST,
        key=f"{partition}|columns:read",
    )
    report = retained(shared)
    assert (report.rows["column_sets"], report.rows["snapshots"]) == (1, 1)
    for table in ("dataset_versions", "dataset_snapshots"):
        assert distinct(shared, f"SELECT dataset FROM {table}") == {
            "columns:read",
            "columns:young",
        }
    stored = {uri for uri in files(shared) if uri.startswith("columns")}
    assert stored == {f"columns/{name}/1D/{name}.parquet" for name in ("read", "young")}


def test_a_restatement_goes_with_the_history_before_it(shared: Workspace) -> None:
    clear(shared)
    fill(shared, 1)
    for version in ("gone", "there"):
        execute_sql(
            shared,
            "INSERT INTO restatements (restatement_id, id, tf, version_before, version_after,"
            " code_changed, bars_changed, bars_added, bars_removed, columns, found_at)"
            " SELECT gen_random_uuid(), id, '1D', :version, 'after', FALSE, 0, 0, 0, '{}', :at"
            " FROM dim_assets LIMIT 1",
            version=version,
            at=NEWEST - timedelta(days=100),
        )
    execute_sql(
        shared,
        "INSERT INTO dataset_snapshots (dataset, id, tf, version, code_version, generation, n_rows,"
        " first_ts, last_ts, uris) SELECT 'features', id, '1D', 'there', '', '', 1, now(), now(),"
        " '{features/1D/there.parquet}' FROM dim_assets LIMIT 1",
    )
    assert retained(shared).rows["restatements"] == 1
    assert distinct(shared, "SELECT version_before FROM restatements") == {"there"}
    execute_sql(shared, "DELETE FROM restatements")


def test_every_folder_that_is_written_to_is_swept(workspace: Workspace) -> None:
    refresh(workspace, MARKET, PARTITIONS[:2])
    written = {uri.split("/")[0] for uri in files(workspace)}
    assert {"bars", "features", "signals", "runs"} <= written <= {*KINDS, "store-id"}
    put(workspace, "signals/1D/nobody.parquet")
    retained(workspace, days=1e5)
    assert "signals/1D/nobody.parquet" not in files(workspace)
    assert {uri.split("/")[0] for uri in files(workspace)} == written


def test_runs_of_the_last_refresh_stay_however_old(workspace: Workspace) -> None:
    refresh(workspace, MARKET, PARTITIONS[:1])
    execute_sql(
        workspace, "UPDATE backtest_runs SET completed_at = completed_at - interval '1 year'"
    )
    before = distinct(workspace, "SELECT run_id FROM backtest_runs"), files(workspace)
    report = retain(workspace, days=DAYS)
    assert (distinct(workspace, "SELECT run_id FROM backtest_runs"), files(workspace)) == before
    assert not any(report.rows.values())
