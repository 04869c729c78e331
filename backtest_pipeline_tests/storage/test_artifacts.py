from __future__ import annotations

import json
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from backtest_pipeline.market.errors import ArtifactCorrupt, ArtifactError
from backtest_pipeline.storage.artifacts import ArtifactStore

TABLE = pa.table({"asset": pa.array(["A", "B"]).dictionary_encode(), "x": [1.0, 2.0]})
LARGE = pa.table({"x": np.random.default_rng(1).random(200_000)})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files_of(store: ArtifactStore) -> list[str]:
    return sorted(str(p.relative_to(store.root)) for p in store.root.rglob("*") if p.is_file())


def put_run(store: ArtifactStore, table: pa.Table = TABLE) -> None:
    store.put_directory("runs/1D/one", {"equity.parquet": table}, {"timeframe": "1D"})


def test_a_snapshot_is_read_back_and_named_by_its_bytes(store: ArtifactStore) -> None:
    uri = store.put_snapshot("bars/1D", TABLE)
    assert uri == store.put_snapshot("bars/1D", TABLE)
    assert files_of(store) == [uri]
    assert ArtifactStore(store.root).read_snapshot(uri, ["x"])["x"].to_pylist() == [1.0, 2.0]
    assert store.read_snapshot(uri, ["x"], ["B"])["x"].to_pylist() == [2.0]


def test_a_flipped_bit_in_a_snapshot_is_found(store: ArtifactStore) -> None:
    uri = store.put_snapshot("bars/1D", TABLE)
    flip_a_bit(store.root / uri)
    with pytest.raises(ArtifactCorrupt, match=f"{uri}.*has changed.*--full-rebuild"):
        ArtifactStore(store.root).read_snapshot(uri, ["x"])


def test_a_snapshot_that_is_gone_is_named(store: ArtifactStore) -> None:
    uri = store.put_snapshot("bars/1D", TABLE)
    (store.root / uri).unlink()
    with pytest.raises(ArtifactCorrupt, match=f"{uri} is gone.*refresh"):
        ArtifactStore(store.root).read_snapshot(uri, ["x"])


def test_writing_a_damaged_snapshot_again_mends_it(store: ArtifactStore) -> None:
    uri = store.put_snapshot("bars/1D", TABLE)
    flip_a_bit(store.root / uri)
    assert store.put_snapshot("bars/1D", TABLE) == uri
    assert ArtifactStore(store.root).read_snapshot(uri, ["x"]).num_rows == 2


def test_a_manifest_lists_each_file(store: ArtifactStore) -> None:
    put_run(store)
    manifest = json.loads((store.root / "runs/1D/one/manifest.json").read_text())
    (entry,) = manifest["files"].values()
    path = store.root / "runs/1D/one/equity.parquet"
    assert entry["rows"] == 2
    assert entry["bytes"] == path.stat().st_size
    assert manifest["timeframe"] == "1D"
    assert manifest["schema_version"] == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: flip_a_bit(run / "equity.parquet"),
        lambda run: (run / "equity.parquet").unlink(),
        lambda run: (run / "manifest.json").unlink(),
        lambda run: (run / "manifest.json").write_text("{"),
        lambda run: (run / "manifest.json").write_text("[]"),
        lambda run: (run / "manifest.json").write_text('{"files": {"equity.parquet": 3}}'),
    ],
    ids=["bit", "no file", "no manifest", "half a manifest", "no object", "no entry"],
)
def test_a_damaged_run_is_found_and_mended_by_writing_it_again(
    store: ArtifactStore,
    damage,
) -> None:
    put_run(store)
    damage(store.root / "runs/1D/one")
    reader = ArtifactStore(store.root)
    with pytest.raises(ArtifactCorrupt, match=r"runs/1D/one.*--full-rebuild"):
        reader.read_table("runs/1D/one", "equity.parquet")
    put_run(ArtifactStore(store.root))
    assert reader.read_table("runs/1D/one", "equity.parquet").num_rows == 2
    assert files_of(store) == ["runs/1D/one/equity.parquet", "runs/1D/one/manifest.json"]


def test_an_intact_run_is_kept(store: ArtifactStore) -> None:
    put_run(store)
    before = (store.root / "runs/1D/one/equity.parquet").stat().st_mtime_ns
    put_run(store)
    assert (store.root / "runs/1D/one/equity.parquet").stat().st_mtime_ns == before


def test_a_file_that_the_manifest_does_not_list_is_not_read(store: ArtifactStore) -> None:
    put_run(store)
    (store.root / "runs/1D/one/old.parquet").write_bytes(b"stale")
    with pytest.raises(ArtifactCorrupt, match=r"old\.parquet"):
        store.read_table("runs/1D/one", "old.parquet")


def test_writers_of_one_run_at_once_agree(store: ArtifactStore) -> None:
    many = pa.table({"x": np.arange(20_000.0)})
    errors: list[Exception] = []

    def write() -> None:
        try:
            for i in range(8):
                table, about = {"equity.parquet": many}, {}
                ArtifactStore(store.root).put_directory(f"runs/{i}", table, about)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(store.read_table(f"runs/{i}", "equity.parquet").num_rows for i in range(8))
    assert not list(store.root.rglob(".unfinished-*"))


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
    with pytest.raises(ArtifactError, match="No space left"):
        store.put_snapshot("bars/1D", LARGE)
    with pytest.raises(ArtifactError, match="No space left"):
        put_run(store, LARGE)
    assert files_of(store) == []
    put_run(store)
    assert store.read_table("runs/1D/one", "equity.parquet").num_rows == 2


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
