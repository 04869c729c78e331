"""What a local disk does to artifacts."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from backtest_pipeline.market.errors import ArtifactCorrupt, ArtifactError
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline_tests.storage.places import Folder

TABLE = pa.table({"x": [1.0, 2.0]})
LARGE = pa.table({"x": np.random.default_rng(1).random(200_000)})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def files_of(store: ArtifactStore) -> list[str]:
    return Folder(store.root).files()


def put_run(store: ArtifactStore, table: pa.Table = TABLE) -> None:
    store.put_directory("runs/1D/one", {"equity.parquet": table}, {"timeframe": "1D"})


def test_a_folder_on_a_file_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = ArtifactStore(tmp_path / "file" / "artifacts")
    for write in (
        store.require_writable,
        lambda: store.put_snapshot("bars/1D", TABLE),
        lambda: put_run(store),
    ):
        with pytest.raises(ArtifactError, match="Not a directory"):
            write()


def test_a_file_is_verified_again_once_it_has_changed(store: ArtifactStore) -> None:
    put_run(store)
    uri = store.put_snapshot("bars/1D", TABLE)
    reads = {
        "runs/1D/one/equity.parquet": lambda: store.read_table("runs/1D/one", "equity.parquet"),
        uri: lambda: store.read_snapshot(uri, ["x"]),
    }
    for name, read in reads.items():
        path = store.root / name
        whole = path.read_bytes()
        assert read().equals(TABLE)
        other = bytearray(whole)
        other[len(other) // 2] ^= 1
        for change in (Path.write_bytes, _replace):
            change(path, bytes(other))
            with pytest.raises(ArtifactCorrupt, match=f"{name} has changed since it was written"):
                read()
            path.write_bytes(whole)
            assert read().equals(TABLE)


def _replace(path: Path, data: bytes) -> None:
    """Another file of the same size and time in its place."""
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(data)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """No file of this process may grow beyond 100 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files_only")
def test_a_writer_that_fails_in_the_middle_leaves_nothing(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match="File too large"):
        store.put_directory("runs/1", {"a.parquet": TABLE, "b.parquet": LARGE}, {})
    with pytest.raises(ArtifactError, match="File too large"):
        store.put_snapshot("bars/1D", LARGE)
    assert files_of(store) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tiny file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_artifact_error_and_leaves_nothing(tiny_disk: Path) -> None:
    store = ArtifactStore(tiny_disk)
    with pytest.raises(ArtifactError, match=r"disk is full .*No space left.*free disk space"):
        store.put_snapshot("bars/1D", LARGE)
    with pytest.raises(ArtifactError, match="No space left"):
        put_run(store, LARGE)
    with pytest.raises(ArtifactError, match="No space left"):
        store.put_file(f"code/{'0' * 64}.zip", b"0" * 300_000)
    assert files_of(store) == []
    filler = tiny_disk / "somebody else's"
    filler.write_bytes(b"0" * 250_000)
    with pytest.raises(ArtifactError, match="disk is full"):
        put_run(store, pa.table({"x": np.arange(2_000.0)}))
    assert files_of(store) == [filler.name]
    filler.unlink()
    put_run(store, pa.table({"x": np.arange(2_000.0)}))
    assert store.read_table("runs/1D/one", "equity.parquet").num_rows == 2_000


def test_only_old_leftovers_are_swept(store: ArtifactStore) -> None:
    folder = store.root / "runs" / "1D"
    for name in ("old", "young"):
        (folder / f".unfinished-{name}").mkdir(parents=True)
        (folder / f".unfinished-{name}" / "equity.parquet").write_bytes(b"half")
    (store.root / ".unfinished-file").write_bytes(b"half")
    put_run(store)
    for path in (folder / ".unfinished-old", store.root / ".unfinished-file"):
        os.utime(path, (0, 0))
    os.utime(folder / "one", (0, 0))
    assert store.sweep() == 2
    assert not (folder / ".unfinished-old").exists()
    assert (folder / ".unfinished-young").exists()
    assert store.read_table("runs/1D/one", "equity.parquet").num_rows == 2
    assert ArtifactStore(store.root / "nowhere").sweep() == 0


def test_what_a_link_leads_to_outside_the_store_is_not_removed(
    store: ArtifactStore, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    (store.root / "runs").mkdir(parents=True)
    (store.root / "runs" / "link").symlink_to(outside)
    with pytest.raises(ArtifactError, match="points outside"):
        store.remove("runs/link/kept")
    store.remove("runs/link")
    assert (outside / "kept").read_bytes() == b"kept"
    assert not (store.root / "runs" / "link").exists()


def test_a_folder_that_is_gone_gives_no_sign_of_life(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match="is missing or not writable"):
        store.ping()
