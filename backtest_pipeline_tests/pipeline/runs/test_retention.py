"""Old results go, all of them and nothing else, however often that is interrupted."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_pipeline.market.errors import ArtifactError, InvalidInput, RunNotFound
from backtest_pipeline.pipeline.runs.query import list_runs, pin, run_equity
from backtest_pipeline.pipeline.runs.retention import RetentionReport, delete_runs, retain
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.conftest import database_like
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.processes import MARKET, PARTITIONS
from backtest_pipeline_tests.sql import distinct, execute_sql
from backtest_pipeline_tests.stored_runs import NEWEST, fill_runs
from backtest_pipeline_tests.waiting import LIMIT_S, Gate

DAYS = 90
LONG_AGO = (NEWEST - timedelta(days=300)).timestamp()


def run_id(i: int) -> uuid.UUID:
    """The id of the `i`-th run from the newest, as the database made it."""
    return uuid.UUID(hashlib.md5(f"run{i}".encode(), usedforsecurity=False).hexdigest())


def fill(workspace: Workspace, n_runs: int, per_folder: int = 20) -> None:
    """A store with so many runs over 200 days, and a small directory for each block of them."""
    with workspace.database.begin() as connection:
        fill_runs(connection, n_runs, per_folder=per_folder)
        uris = set(connection.execute(sa.text("SELECT artifact_uri FROM backtest_runs")).scalars())
    for uri in uris:
        put(workspace, f"{uri}/equity.parquet", b"equity")
        put(workspace, f"{uri}/manifest.json", b"{}")


def put(workspace: Workspace, uri: str, data: bytes = b"data") -> None:
    """A file that was written long ago."""
    path = workspace.artifacts.root / uri
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (LONG_AGO, LONG_AGO))


def files(workspace: Workspace) -> set[str]:
    return {file.uri for file in workspace.artifacts.stored()}


def clear(workspace: Workspace) -> None:
    execute_sql(
        workspace,
        "TRUNCATE backtest_runs, portfolio_runs, backtest_jobs, run_pins, run_requests,"
        " dataset_versions, dataset_snapshots, walk_forward_folds, environments CASCADE",
    )
    execute_sql(workspace, "DELETE FROM dim_assets")
    for uri in files(workspace):
        (workspace.artifacts.root / uri).unlink()


def retained(workspace: Workspace, **changes: Any) -> RetentionReport:
    return retain(workspace, **({"days": DAYS, "now": NEWEST} | changes))


@pytest.fixture(scope="module")
def shared(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A store that each test clears and fills."""
    for database in database_like(template, "backtest"):
        yield Workspace(database, ArtifactStore(tmp_path_factory.mktemp("shared")))


def add_job(workspace: Workspace, status: str, ended: datetime | None, *runs: uuid.UUID) -> None:
    execute_sql(
        workspace,
        """
        INSERT INTO backtest_jobs (kind, status, config, config_hash, symbols, timeframes,
            created_by, n_units, result_run_ids, started_at, completed_at, worker_id,
            lease_expires_at)
        VALUES ('run', :status, '{}', '', '{}', '{}', 'ann', 1, :runs, :started, :ended,
            CASE WHEN :status = 'running' THEN 'w' END,
            CASE WHEN :status = 'running' THEN now() END)
        """,
        status=status,
        runs=list(runs),
        started=NEWEST,
        ended=ended,
    )


def add_portfolio(workspace: Workspace, name: str, days: int, *runs: uuid.UUID) -> None:
    """A portfolio of runs that ended so many days ago and is not current."""
    execute_sql(
        workspace,
        """
        INSERT INTO portfolio_runs (run_id, tf, signal_id, signal_name, scheme, n_members,
            n_rebalances, first_ts, last_ts, completed_at, is_current, config, config_hash,
            metrics, undefined, left_out, member_run_ids, snapshot_id, dataset_version_ids,
            code_version, environment_hash, engine, engine_version, seed, result_fingerprint,
            artifact_uri)
        VALUES (:id, '1D', 1, 'ema', 'equal', 1, 1, :at, :at, :at, FALSE, '{}', '', '{}', '{}',
            '{}', :runs, '', '{}', '', '', '', '', 0, '', :uri)
        """,
        id=uuid.uuid5(uuid.NAMESPACE_URL, name),
        at=NEWEST - timedelta(days=days),
        runs=list(runs),
        uri=f"portfolios/1D/{name}",
    )
    put(workspace, f"portfolios/1D/{name}/equity.parquet")
    put(workspace, f"portfolios/1D/{name}/manifest.json")


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


class Killed(BaseException):
    """The process ends here."""


@dataclass(frozen=True)
class DyingStore(ArtifactStore):
    """A store whose process ends at its `dies_at`-th removal, before it or after."""

    dies_at: int = -1
    after: bool = False
    removals: list[str] = field(default_factory=list)

    def remove(self, uri: str) -> None:
        self.removals.append(uri)
        if len(self.removals) != self.dies_at:
            return super().remove(uri)
        if self.after:
            super().remove(uri)
        raise Killed


def _dying_at_step(workspace: Workspace, step: int) -> Workspace:
    def progress(_stage: str, done: int, _total: int) -> None:
        if done == step:
            raise Killed

    return replace(workspace, progress=progress)


def _dying_at_removal(workspace: Workspace, n: int, after: bool) -> Workspace:
    return replace(
        workspace, artifacts=DyingStore(workspace.artifacts.root, dies_at=n, after=after)
    )


def _state(workspace: Workspace) -> tuple[set[Any], set[str], set[Any]]:
    return (
        distinct(workspace, "SELECT run_id FROM backtest_runs"),
        files(workspace),
        distinct(workspace, "SELECT run_id FROM portfolio_runs"),
    )


def _filled(workspace: Workspace) -> None:
    clear(workspace)
    fill(workspace, 200, per_folder=10)
    add_portfolio(workspace, "old", 100)
    put(workspace, "features/1D/nobody.parquet")
    put(workspace, "robustness/1D/nobody/manifest.json")
    pin(workspace, [run_id(150)], "ann")


def test_killed_at_any_step_a_repeat_ends_as_if_undisturbed(shared: Workspace) -> None:
    _filled(shared)
    retained(shared)
    undisturbed = _state(shared)
    ways: list[Callable[[Workspace], Workspace]] = [
        *(lambda w, step=step: _dying_at_step(w, step) for step in range(5)),
        *(
            lambda w, n=n, after=after: _dying_at_removal(w, n, after)
            for n in (1, 5, 11, 12)
            for after in (False, True)
        ),
    ]
    for way in ways:
        _filled(shared)
        with pytest.raises(Killed):
            retained(way(shared))
        _assert_visible_runs_are_whole(shared)
        retained(shared)
        assert _state(shared) == undisturbed


def _assert_visible_runs_are_whole(workspace: Workspace) -> None:
    there = files(workspace)
    for uri in distinct(workspace, "SELECT artifact_uri FROM visible_runs"):
        assert f"{uri}/manifest.json" in there


def test_what_cannot_be_removed_keeps_its_rows_and_goes_the_next_time(shared: Workspace) -> None:
    @dataclass(frozen=True)
    class Refusing(ArtifactStore):
        def remove(self, uri: str) -> None:
            if uri in refused:
                raise ArtifactError(f"{uri} cannot be removed")
            super().remove(uri)

    _filled(shared)
    rows = distinct(
        shared,
        "SELECT artifact_uri FROM backtest_runs WHERE completed_at < timestamptz '2025-08-01'",
    )
    refused = {sorted(rows)[0]}
    report = retained(replace(shared, artifacts=Refusing(shared.artifacts.root)))
    assert set(report.left) == refused
    assert (
        distinct(shared, "SELECT artifact_uri FROM backtest_runs WHERE deleting_since IS NOT NULL")
        == refused
    )
    retained(shared)
    assert not distinct(shared, "SELECT run_id FROM backtest_runs WHERE deleting_since IS NOT NULL")
    assert not any(uri.startswith(tuple(refused)) for uri in files(shared))


def test_a_dry_run_reports_the_same_and_changes_nothing(shared: Workspace) -> None:
    _filled(shared)
    before = _state(shared), list_runs(shared, limit=1000)
    rehearsed = retained(shared, dry_run=True)
    assert (_state(shared), list_runs(shared, limit=1000)) == before
    done = retained(shared)
    assert rehearsed.rows["runs"] > 50
    assert rehearsed == replace(done, dry_run=True)


def test_two_retentions_at_once_remove_what_one_would(shared: Workspace) -> None:
    _filled(shared)
    one = retained(shared)
    undisturbed = _state(shared)
    _filled(shared)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: retained(shared), range(2)))
    assert _state(shared) == undisturbed
    assert sum(report.rows["runs"] for report in reports) == one.rows["runs"]


@pytest.mark.parametrize("days", [0, -1, float("nan")])
def test_days_are_above_0(shared: Workspace, days: float) -> None:
    with pytest.raises(InvalidInput, match="more than 0 days"):
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


def test_runs_are_deleted_by_name_unless_they_have_to_stay(shared: Workspace) -> None:
    clear(shared)
    fill(shared, 6, per_folder=3)
    pin(shared, [run_id(0)], "ann")
    add_job(shared, "running", None, run_id(1))
    with pytest.raises(InvalidInput, match=rf"{run_id(0)} is pinned.*nothing was deleted"):
        delete_runs(shared, [run_id(0), run_id(2)])
    with pytest.raises(InvalidInput, match="is a result of job"):
        delete_runs(shared, [run_id(1)])
    with pytest.raises(RunNotFound):
        delete_runs(shared, [run_id(2), uuid.uuid4()])
    assert len(list_runs(shared).rows) == 6
    assert delete_runs(shared, [run_id(i) for i in (2, 3, 4, 5)]) == 4
    assert distinct(shared, "SELECT run_id FROM backtest_runs") == {run_id(0), run_id(1)}
    assert {uri for uri in files(shared) if uri.startswith("runs")} == {
        f"{uri}/{name}"
        for uri in distinct(shared, "SELECT artifact_uri FROM backtest_runs")
        for name in ("manifest.json", "equity.parquet")
    }


@dataclass(frozen=True)
class PausingStore(ArtifactStore):
    """A store that stops once, at a removal or a publication, until it may go on."""

    at: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def remove(self, uri: str) -> None:
        super().remove(uri)
        self._pause("remove", uri)

    def put_directory(
        self, uri: str, tables: Mapping[str, pa.Table], about: Mapping[str, Any]
    ) -> None:
        super().put_directory(uri, tables, about)
        self._pause("publish", uri)

    def _pause(self, what: str, uri: str) -> None:
        if what == self.at and uri.startswith("runs/") and not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(LIMIT_S)


def _old_runs(workspace: Workspace) -> set[uuid.UUID]:
    """Real runs that retention may have, as of a partition that has to be computed again."""
    refresh(workspace, MARKET, PARTITIONS[:1])
    execute_sql(
        workspace, "UPDATE backtest_runs SET completed_at = completed_at - interval '1 year'"
    )
    execute_sql(workspace, "DELETE FROM dataset_versions WHERE dataset = 'backtests'")
    return distinct(workspace, "SELECT run_id FROM backtest_runs")


@pytest.mark.parametrize("first", ["remove", "publish"])
def test_who_publishes_a_run_that_is_being_deleted_has_it_whole(
    workspace: Workspace, first: str
) -> None:
    runs = _old_runs(workspace)
    pausing = PausingStore(workspace.artifacts.root, at=first)
    stopped = replace(workspace, artifacts=pausing)
    other = Workspace(workspace.database, ArtifactStore(workspace.artifacts.root))

    def remove(store: Workspace) -> None:
        retain(store, days=DAYS)

    def publish(store: Workspace) -> None:
        reports = refresh(store, MARKET, PARTITIONS[:1], rebuild=True)
        assert not any(report.failed for report in reports.values())

    works = (remove, publish) if first == "remove" else (publish, remove)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(works[0], stopped)
        assert pausing.reached.wait(LIMIT_S)
        quick = pool.submit(works[1], other)
        Gate(workspace.database).hold_up()
        assert not quick.done()
        pausing.go_on.set()
        slow.result(LIMIT_S)
        quick.result(LIMIT_S)
    reader = Workspace(workspace.database, ArtifactStore(workspace.artifacts.root))
    assert {row["run_id"] for row in list_runs(reader).rows} == runs
    for run in runs:
        assert len(run_equity(reader, run)) == 250


def test_runs_of_the_last_refresh_stay_however_old(workspace: Workspace) -> None:
    refresh(workspace, MARKET, PARTITIONS[:1])
    execute_sql(
        workspace, "UPDATE backtest_runs SET completed_at = completed_at - interval '1 year'"
    )
    before = distinct(workspace, "SELECT run_id FROM backtest_runs"), files(workspace)
    report = retain(workspace, days=DAYS)
    assert (distinct(workspace, "SELECT run_id FROM backtest_runs"), files(workspace)) == before
    assert not any(report.rows.values())
