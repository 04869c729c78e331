"""A backup holds the rows and files of one moment, or does not exist."""

from __future__ import annotations

import fcntl
import io
import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import BackupRefused, StoreUnavailable
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.backup.archive import ARTIFACTS, MANIFEST, verified, writing_archive
from backtest_pipeline.storage.backup.backup import back_up
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline.storage.run_tables.retention import stored_by_rows
from backtest_pipeline_tests.chaos.proxy import proxy_to
from backtest_pipeline_tests.pipeline.processes import started
from backtest_pipeline_tests.sql import column
from backtest_pipeline_tests.storage.backup.conftest import back_up_in
from backtest_pipeline_tests.waiting import Gate


def test_a_backup_names_what_it_holds(filled: Workspace, tmp_path: Path) -> None:
    report = back_up(filled.database, filled.artifacts, tmp_path / "b.tar.zst")
    manifest = verified(report.path)
    with filled.database.begin() as connection:
        needed = stored_by_rows(connection)
    files = {name.removeprefix(ARTIFACTS) for name in manifest.members if "artifacts" in name}
    assert {name for name in files if name in needed or os.path.dirname(name) in needed} == files
    assert report.artifacts == len(files) > len(needed)
    assert report.unsound == ()
    assert report.path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.glob("*b.tar*")] == ["b.tar.zst"]


def test_what_is_damaged_is_named_and_the_rest_is_kept(filled: Workspace, tmp_path: Path) -> None:
    uris = column(filled, "SELECT DISTINCT artifact_uri FROM backtest_runs ORDER BY 1")
    (filled.artifacts.root / uris[0] / "manifest.json").unlink()
    (filled.artifacts.root / uris[1] / "equity.parquet").write_bytes(b"other")
    report = back_up(filled.database, filled.artifacts, tmp_path / "b.tar.zst")
    assert list(report.unsound) == uris
    assert not any(uri in name for uri in uris for name in verified(report.path).members)


def test_a_backup_that_is_cut_off_leaves_no_file(filled: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "backups" / "b.tar.zst"
    path.parent.mkdir()
    with proxy_to(filled.database.conninfo) as proxy:
        through = connect_database(proxy.dsn(filled.database.conninfo))
        proxy.cut_at_byte = proxy.carried + 400_000
        with pytest.raises(StoreUnavailable):
            back_up(through, filled.artifacts, path)
        through.close()
    assert list(path.parent.iterdir()) == []


@pytest.mark.slow
def test_a_backup_that_is_killed_leaves_no_file_of_its_name(
    filled: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "backups" / "b.tar.zst"
    path.parent.mkdir()
    with filled.database.begin() as connection:
        connection.execute(sa.text("LOCK TABLE trials"))  # copied after many others
        writing = started(back_up_in, filled.database.conninfo, filled.artifacts.root, path)
        Gate(filled.database).hold_up()
        (left,) = path.parent.iterdir()
        assert left.name.startswith(".unfinished-backup-")
        os.utime(left, (0, 0))
        with writing_archive(path) as archive:  # nobody deletes what is being written
            archive.add(MANIFEST, io.BytesIO())
        assert left.exists()
        path.unlink()
        writing.kill()
        writing.join()
    report = back_up(filled.database, filled.artifacts, path)
    assert list(path.parent.iterdir()) == [path]
    assert verified(report.path).members


def test_what_killed_backups_have_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    left, young, locked = (tmp_path / f".unfinished-backup-{name}" for name in ("l", "y", "w"))
    for path in (left, young, locked):
        path.write_bytes(b"")
    for path in (left, locked):
        os.utime(path, (0, 0))
    with locked.open("rb") as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        with writing_archive(tmp_path / "b.tar.zst") as archive:
            archive.add(MANIFEST, io.BytesIO())
    assert set(tmp_path.iterdir()) == {young, locked, tmp_path / "b.tar.zst"}


def test_a_file_is_never_overwritten(filled: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(BackupRefused, match="mine exists"):
        back_up(filled.database, filled.artifacts, tmp_path / "mine")
    with pytest.raises(BackupRefused, match="name a file in a folder that exists"):
        back_up(filled.database, filled.artifacts, tmp_path / "nowhere" / "b.tar.zst")
    assert (tmp_path / "mine").read_text() == "precious"
