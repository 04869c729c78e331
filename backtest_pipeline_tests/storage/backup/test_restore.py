"""What is restored is what was backed up, whole or not at all."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.defs.processes.leased_runs import leased
from backtest_pipeline.market.errors import BackupRefused, StoreError, StoreUnavailable
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.cross_section.ranked_identity import RankedTerms
from backtest_pipeline.pipeline.cross_section.ranked_runs import run_ranked
from backtest_pipeline.pipeline.planning.book_replans import replan
from backtest_pipeline.pipeline.planning.books import add_book, request_replan, show_book
from backtest_pipeline.pipeline.planning.planned_runs import follow_book
from backtest_pipeline.pipeline.replay import bundle_verifier
from backtest_pipeline.pipeline.replay.export import bundle_files
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.artifact_root import require_own_root
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.backup import restore as module
from backtest_pipeline.storage.backup import table_copies
from backtest_pipeline.storage.backup.backup import back_up
from backtest_pipeline.storage.backup.restore import restore
from backtest_pipeline.storage.postgres.database import Database, connect_database
from backtest_pipeline.storage.postgres.migrations import SchemaFile, migrate, schema_files
from backtest_pipeline.storage.postgres.session_lock import (
    CODE_SERVER_LOCK,
    DAEMON_LOCK,
    SERVICE_LOCK,
    SessionLock,
)
from backtest_pipeline.storage.run_tables.cross_sections import note_refreshed
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from backtest_pipeline_tests.chaos.proxy import proxy_to
from backtest_pipeline_tests.pipeline.markets import assert_same, contents, refresh
from backtest_pipeline_tests.pipeline.processes import started
from backtest_pipeline_tests.sql import execute_sql, scalar
from backtest_pipeline_tests.storage.backup.conftest import (
    PARTITIONS,
    SOURCE,
    everything,
    restore_in,
    watched,
)
from backtest_pipeline_tests.waiting import until

HOLDS_ASSETS = "SELECT to_regclass('dim_assets') IS NOT NULL"


def test_a_restored_store_is_the_one_that_was_backed_up(
    filled: Workspace, backup: Path, empty_database: Database, tmp_path: Path
) -> None:
    copy = Workspace(empty_database, ArtifactStore(tmp_path / "copy"))
    restore(copy.database, copy.artifacts, backup)
    assert everything(copy.database) == everything(filled.database)
    assert_same(contents(copy), contents(filled))
    assert require_own_root(copy.database, copy.artifacts)
    assert copy.artifacts.root_id() != filled.artifacts.root_id()
    # And it goes on: nothing is stale, and Dagster knows what it has done and can do more.
    assert {status for r in refresh(copy, SOURCE, PARTITIONS).values() for status in r.counts} == {
        "unchanged"
    }
    with open_instance(load_settings(home=tmp_path / "other"), copy.database) as instance:
        assert instance.get_latest_materialization_event(watched.key) is not None
        assert dg.materialize([watched], instance=instance).success


def test_a_restored_plan_book_goes_on_with_its_plans_and_requests(
    filled: Workspace, empty_database: Database, tmp_path: Path
) -> None:
    book = add_book(filled, "core", ["A"], ["1D"], replans={"judge": None}, user="ann")
    replan(filled, book)
    run = follow_book(filled, book, "1D", SimulationConfig())
    request_replan(filled, "core", "ann", key="once")
    saved = back_up(filled.database, filled.artifacts, tmp_path / "book.tar.zst")
    copy = Workspace(empty_database, ArtifactStore(tmp_path / "copy"))
    restore(copy.database, copy.artifacts, saved.path)
    found, expected = everything(copy.database), everything(filled.database)
    for one in (found, expected):  # they go on after the newest row, and leave no gap before it
        del one["sequences"]
    assert found == expected
    before, now = (show_book(store, "core") for store in (filled, copy))
    assert now == before
    assert [request["status"] for request in now.requests] == ["waiting", "planned"]
    again = follow_book(copy, now.book, "1D", SimulationConfig())
    assert (again.run_id, again.is_new) == (run.run_id, False)
    bundle = bundle_files(copy, run.run_id)
    assert bundle_verifier.problems_of(bundle) == []
    assert not request_replan(copy, "core", "ann", key="once")
    found = replan(copy, now.book)
    assert found is not None
    assert found.reasons == ("manual",)


def test_a_restored_cross_section_is_found_again_and_proves_itself(
    filled: Workspace, empty_database: Database, tmp_path: Path
) -> None:
    refresh(filled, SOURCE, [Partition("A", "1D"), Partition("B", "1D")])
    rule = CrossSection("strength", score="close / shift(close, 20)", count=1)
    run_id, _ = run_ranked(filled, rule, "1D", RankedTerms())
    with filled.database.begin() as connection:
        note_refreshed(connection, "1D", {"strength": run_id}, ["strength"])
    saved = back_up(filled.database, filled.artifacts, tmp_path / "ranked.tar.zst")
    copy = Workspace(empty_database, ArtifactStore(tmp_path / "copy"))
    restore(copy.database, copy.artifacts, saved.path)
    assert everything(copy.database) == everything(filled.database)
    assert run_ranked(copy, rule, "1D", RankedTerms()) == (run_id, False)
    assert bundle_verifier.problems_of(bundle_files(copy, run_id)) == []


def test_a_store_that_holds_something_is_replaced_only_if_told_to(
    filled: Workspace, backup: Path
) -> None:
    before = everything(filled.database)
    execute_sql(filled, "INSERT INTO dim_assets (symbol) VALUES ('LATER')")
    execute_sql(filled, "CREATE TABLE mine AS SELECT 7 AS x")
    changed = everything(filled.database)
    with pytest.raises(BackupRefused, match=r"holds a store; .* --replace"):
        restore(filled.database, filled.artifacts, backup)
    assert everything(filled.database) == changed
    restore(filled.database, filled.artifacts, backup, replace=True)
    assert scalar(filled, "SELECT x FROM mine") == 7
    execute_sql(filled, "DROP TABLE mine")
    assert everything(filled.database) == before
    assert require_own_root(filled.database, filled.artifacts)


def test_a_store_that_somebody_works_on_is_not_replaced(filled: Workspace, backup: Path) -> None:
    before = everything(filled.database)
    for name, command in (
        (DAEMON_LOCK, "`up` or `daemon`"),
        (CODE_SERVER_LOCK, "`code-server`"),
        (SERVICE_LOCK, "`serve`"),
    ):
        with (
            closing(SessionLock(filled.database, name, shared=name != DAEMON_LOCK)),
            pytest.raises(BackupRefused, match=f"{command} runs on this store; end it first"),
        ):
            restore(filled.database, filled.artifacts, backup, replace=True)
        assert everything(filled.database) == before
    with (
        leased(filled.database, "r", "refresh"),
        pytest.raises(BackupRefused, match=r"at work on this store: `refresh` \(process \d+ on"),
    ):
        restore(filled.database, filled.artifacts, backup, replace=True)
    execute_sql(
        filled,
        """
        INSERT INTO backtest_jobs (kind, status, config, config_hash, symbols, timeframes,
            created_by, n_units, started_at, worker_id, lease_expires_at)
        VALUES ('run', 'running', '{}', '', '{}', '{}', 'ann', 1, now(), 'w',
            now() + interval '1 minute')
        """,
    )
    with pytest.raises(BackupRefused, match="at work on this store: job "):
        restore(filled.database, filled.artifacts, backup, replace=True)
    execute_sql(filled, "UPDATE backtest_jobs SET lease_expires_at = now() - interval '1 s'")
    restore(filled.database, filled.artifacts, backup, replace=True)
    assert everything(filled.database) == before


def test_a_view_of_the_user_s_keeps_its_table(filled: Workspace, backup: Path) -> None:
    execute_sql(filled, "CREATE VIEW theirs AS SELECT symbol FROM dim_assets")
    before = everything(filled.database)
    with pytest.raises(StoreError, match="because other objects depend on them"):
        restore(filled.database, filled.artifacts, backup, replace=True)
    assert everything(filled.database) == before


@pytest.mark.parametrize("damage", ["flipped", "cut", "other", "missing", "folder"])
def test_a_damaged_backup_is_refused_before_anything_is_written(
    backup: Path, damage: str, empty_database: Database, tmp_path: Path
) -> None:
    data = bytearray(backup.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    backup.write_bytes(data[: len(data) * 2 // 3] if damage == "cut" else data)
    if damage == "other":
        backup.write_bytes(b"something else")
    if damage in ("missing", "folder"):
        backup.unlink()
    if damage == "folder":
        backup.mkdir()
    root = tmp_path / "copy"
    why = ": is a folder; name the file" if damage == "folder" else ""
    with pytest.raises(BackupRefused, match=f"{backup.name}{why}"):
        restore(empty_database, ArtifactStore(root), backup)
    assert not scalar(empty_database, HOLDS_ASSETS)
    assert not root.exists()


def test_a_restore_that_is_cut_off_changes_nothing_and_can_be_repeated(
    filled: Workspace, backup: Path, empty_database: Database, tmp_path: Path
) -> None:
    artifacts = ArtifactStore(tmp_path / "copy")
    with proxy_to(empty_database.conninfo) as proxy:
        through = connect_database(proxy.dsn(empty_database.conninfo))
        proxy.cut_at_commit = proxy.commits + 1
        proxy.commit_is_done = False
        with pytest.raises(StoreUnavailable):
            restore(through, artifacts, backup)
        through.close()
    assert not scalar(empty_database, HOLDS_ASSETS)
    restore(empty_database, artifacts, backup)
    assert everything(empty_database) == everything(filled.database)


@pytest.mark.slow
def test_a_restore_that_is_killed_changes_nothing_and_can_be_repeated(
    filled: Workspace, backup: Path, empty_database: Database, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    loading = started(restore_in, empty_database.conninfo, root, backup)
    until(lambda: any(root.rglob("*.parquet")))
    assert loading.pid is not None
    os.kill(loading.pid, signal.SIGSTOP)
    assert not scalar(empty_database, HOLDS_ASSETS)
    loading.kill()
    loading.join()
    assert not scalar(empty_database, HOLDS_ASSETS)
    restore(empty_database, ArtifactStore(root), backup)
    assert everything(empty_database) == everything(filled.database)


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_a_store_with_its_artifacts_in_a_bucket_is_backed_up_and_restored(
    request: pytest.FixtureRequest,
    filled: Workspace,
    backup: Path,
    empty_database: Database,
    tmp_path: Path,
    kind: str,
) -> None:
    url = request.getfixturevalue(kind)
    inside = ArtifactStore(tmp_path / "one machine", url)
    restore(filled.database, inside, backup, replace=True)
    copied = back_up(filled.database, inside, tmp_path / "from the bucket.tar.zst")
    assert copied.unsound == ()
    artifacts = ArtifactStore(tmp_path / "copy")
    restore(empty_database, artifacts, copied.path)
    assert everything(empty_database) == everything(filled.database)
    elsewhere = ArtifactStore(tmp_path / "another machine", url)
    assert_same(
        contents(Workspace(empty_database, artifacts)),
        contents(Workspace(filled.database, elsewhere)),
    )


def test_artifacts_are_never_shared_by_two_databases(
    filled: Workspace, backup: Path, empty_database: Database, tmp_path: Path
) -> None:
    with pytest.raises(BackupRefused, match="of the store that was backed up; give --replace"):
        restore(empty_database, filled.artifacts, backup)
    other = ArtifactStore(tmp_path / "other")
    other.write_root_id("6f9b6d4e-6c7e-4d39-8a3e-3d1f3f1c0e11")
    with pytest.raises(BackupRefused, match="of another store; set BACKTEST_ARTIFACTS_URL"):
        restore(empty_database, other, backup, replace=True)
    # Its database is gone, and its files are there.
    restore(empty_database, filled.artifacts, backup, replace=True)
    assert require_own_root(empty_database, filled.artifacts)


def test_an_older_backup_is_migrated_and_a_newer_one_refused(
    backup: Path, empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = SchemaFile("migrations/9000_fine.sql", "CREATE TABLE fine (x INTEGER);", "9" * 64)
    monkeypatch.setattr(module, "schema_files", lambda: [*schema_files(), added])
    restore(empty_database, ArtifactStore(tmp_path / "copy"), backup)
    assert scalar(empty_database, "SELECT to_regclass('fine') IS NOT NULL")
    older = [replace(file, sha256="0" * 64) for file in schema_files()]
    monkeypatch.setattr(module, "schema_files", lambda: older)
    with pytest.raises(BackupRefused, match=r"another schema \(baseline/01_dimensions\.sql"):
        restore(empty_database, ArtifactStore(tmp_path / "copy"), backup, replace=True)


def test_all_that_the_sql_files_create_can_be_dropped(empty_database: Database) -> None:
    migrate(empty_database)
    with empty_database.begin() as connection:
        table_copies.drop_store(connection, schema_files())
    left = """
        SELECT count(*) FROM (
            SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace
            UNION ALL SELECT oid FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
            UNION ALL SELECT oid FROM pg_namespace WHERE nspname = 'dagster') found"""
    assert scalar(empty_database, left) == 0
