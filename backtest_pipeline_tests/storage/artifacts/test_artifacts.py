"""What artifacts promise wherever they are: on a local disk, in S3, in Azure."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backtest_pipeline.market.errors import ArtifactCorrupt, ArtifactError
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline_tests.storage.places import Folder, InBucket, Place, flip_a_bit_in

TABLE = pa.table({"asset": pa.array(["A", "B"]).dictionary_encode(), "x": [1.0, 2.0]})
RUN, EQUITY = "runs/1D/one", "runs/1D/one/equity.parquet"


@pytest.fixture(params=["disk", "s3", "azure"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":
        return Folder(tmp_path / "artifacts")
    return InBucket(request.getfixturevalue(request.param), tmp_path / "machines")


@pytest.fixture
def store(place: Place) -> ArtifactStore:
    return place.machine()


def put_run(store: ArtifactStore, table: pa.Table = TABLE) -> None:
    store.put_directory(RUN, {"equity.parquet": table}, {"timeframe": "1D"})


def test_a_snapshot_is_read_back_and_named_by_its_bytes(place: Place, store: ArtifactStore) -> None:
    uri = store.put_snapshot("bars/1D", TABLE)
    assert uri == store.put_snapshot("bars/1D", TABLE)
    assert place.files() == [uri]
    assert Path(uri).stem == hashlib.sha256(place.read(uri)).hexdigest()
    for reader in (store, place.machine()):
        assert reader.read_snapshot(uri, ["x"])["x"].to_pylist() == [1.0, 2.0]
        assert reader.read_snapshot(uri, ["x"], ["B"])["x"].to_pylist() == [2.0]
        assert reader.rows_in(uri) == 2
        assert reader.gone([uri, "bars/1D/other.parquet"]) == {"bars/1D/other.parquet"}


def test_a_flipped_bit_in_a_snapshot_is_found(place: Place, store: ArtifactStore) -> None:
    uri = store.put_snapshot("bars/1D", TABLE)
    flip_a_bit_in(place, uri)
    for read in (lambda s: s.read_snapshot(uri, ["x"]), lambda s: s.rows_in(uri)):
        with pytest.raises(ArtifactCorrupt, match=f"{uri}.*has changed.*--full-rebuild"):
            read(place.machine())


def test_a_snapshot_that_is_gone_is_named(place: Place, store: ArtifactStore) -> None:
    uri = store.put_snapshot("bars/1D", TABLE)
    place.delete(uri)
    with pytest.raises(ArtifactCorrupt, match=f"{uri} is missing.*refresh"):
        place.machine().read_snapshot(uri, ["x"])


def test_writing_a_damaged_snapshot_again_mends_it(place: Place, store: ArtifactStore) -> None:
    uri = store.put_snapshot("bars/1D", TABLE)
    flip_a_bit_in(place, uri)
    assert store.put_snapshot("bars/1D", TABLE) == uri
    assert place.machine().read_snapshot(uri, ["x"]).num_rows == 2


def test_a_file_is_kept_under_the_hash_of_its_bytes(place: Place, store: ArtifactStore) -> None:
    uri = f"code/{hashlib.sha256(b'sources').hexdigest()}.zip"
    store.put_file(uri, b"sources")
    assert place.machine().read_file(uri) == b"sources"
    flip_a_bit_in(place, uri)
    with pytest.raises(ArtifactCorrupt, match=f"{uri} has changed"):
        place.machine().read_file(uri)
    place.machine().put_file(uri, b"sources")
    assert place.machine().read_file(uri) == b"sources"
    place.delete(uri)
    with pytest.raises(ArtifactCorrupt, match=f"{uri} is missing"):
        place.machine().read_file(uri)


def test_a_manifest_lists_each_file(place: Place, store: ArtifactStore) -> None:
    put_run(store)
    written = json.loads(place.read(f"{RUN}/manifest.json"))
    assert (written["timeframe"], written["schema_version"]) == ("1D", 1)
    manifest = place.machine().manifest(RUN)
    assert manifest.about == {"timeframe": "1D"}
    (entry,) = manifest.files.values()
    data = place.read(EQUITY)
    assert (entry.rows, entry.bytes) == (2, len(data))
    assert entry.sha256 == hashlib.sha256(data).hexdigest()
    assert written["files"] == {"equity.parquet": vars(entry)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: flip_a_bit_in(place, EQUITY),
        lambda place: place.delete(EQUITY),
        lambda place: place.delete(f"{RUN}/manifest.json"),
        lambda place: place.write(f"{RUN}/manifest.json", b"{"),
        lambda place: place.write(f"{RUN}/manifest.json", b"\xff"),
        lambda place: place.write(f"{RUN}/manifest.json", b"[]"),
        lambda place: place.write(f"{RUN}/manifest.json", b'{"files": {"equity.parquet": 3}}'),
    ],
    ids=["bit", "no file", "no manifest", "half a manifest", "no text", "no object", "no entry"],
)
def test_a_damaged_run_is_found_and_mended_by_writing_it_again(
    place: Place, store: ArtifactStore, damage
) -> None:
    put_run(store)
    damage(place)
    reader = place.machine()
    assert not reader.is_intact(RUN)
    with pytest.raises(ArtifactCorrupt, match=rf"{RUN}.*--full-rebuild"):
        reader.read_table(RUN, "equity.parquet")
    put_run(place.machine())
    assert reader.read_table(RUN, "equity.parquet").num_rows == 2
    assert place.machine().is_intact(RUN)
    assert place.files() == [EQUITY, f"{RUN}/manifest.json"]


def test_an_intact_run_is_kept(place: Place, store: ArtifactStore) -> None:
    put_run(store)
    before = place.written(EQUITY)
    put_run(place.machine())
    assert place.written(EQUITY) == before


def test_a_file_that_the_manifest_does_not_list_is_not_read(
    place: Place, store: ArtifactStore
) -> None:
    put_run(store)
    place.write(f"{RUN}/old.parquet", b"stale")
    for read in (store.read_table, store.read_bytes):
        for name in ("old.parquet", "../one/equity.parquet", "/etc/passwd", ""):
            with pytest.raises(ArtifactCorrupt, match="is not listed in the manifest"):
                read(RUN, name)


def test_the_bytes_of_a_listed_file_are_checked_too(place: Place, store: ArtifactStore) -> None:
    put_run(store)
    assert place.machine().read_bytes(RUN, "equity.parquet") == place.read(EQUITY)
    flip_a_bit_in(place, EQUITY)
    with pytest.raises(ArtifactCorrupt, match=f"{EQUITY}.*has changed"):
        place.machine().read_bytes(RUN, "equity.parquet")


def test_writers_of_one_run_at_once_agree(place: Place, store: ArtifactStore) -> None:
    many = pa.table({"x": np.arange(20_000.0)})
    errors: list[Exception] = []

    def write() -> None:
        try:
            for i in range(4):
                place.machine().put_directory(f"runs/{i}", {"equity.parquet": many}, {})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(store.is_intact(f"runs/{i}") for i in range(4))
    assert len(place.files()) == 8


def test_what_is_stored_is_listed_with_its_size_and_time(
    place: Place, store: ArtifactStore
) -> None:
    assert list(store.stored()) == []
    uri = store.put_snapshot("bars/1D", TABLE)
    put_run(store)
    place.write(".unfinished-notes/half", b"runs/2")
    found = {one.uri: one for one in place.machine().stored()}
    assert sorted(found) == [uri, EQUITY, f"{RUN}/manifest.json"]
    for one in found.values():
        assert one.bytes == len(place.read(one.uri))
        assert abs(datetime.now(UTC) - one.modified) < timedelta(minutes=5)


def test_what_is_removed_is_gone_and_removing_it_again_is_no_error(
    place: Place, store: ArtifactStore
) -> None:
    uri = store.put_snapshot("bars/1D", TABLE)
    put_run(store)
    store.put_directory("runs/1D/one-more", {"equity.parquet": TABLE}, {})
    assert store.read_table(RUN, "equity.parquet").num_rows == 2
    assert store.gone([uri, RUN, "runs/never"]) == {"runs/never"}
    for gone in (uri, RUN, uri, RUN, "runs/never"):
        store.remove(gone)
    assert place.files() == [f"runs/1D/one-more/{n}" for n in ("equity.parquet", "manifest.json")]
    for reader in (store, place.machine()):
        assert not reader.has(uri)
        assert not reader.has(RUN)
        with pytest.raises(ArtifactCorrupt):
            reader.read_table(RUN, "equity.parquet")
        with pytest.raises(ArtifactCorrupt):
            reader.read_snapshot(uri, ["x"])
    put_run(store)
    assert place.machine().read_table(RUN, "equity.parquet").num_rows == 2


@pytest.mark.parametrize("uri", ["", ".", "..", "/etc", "runs/../../x", "runs//one", "runs/."])
def test_nothing_outside_the_store_is_removed(store: ArtifactStore, uri: str) -> None:
    with pytest.raises(ArtifactError, match="is not an artifact of"):
        store.remove(uri)


def test_another_process_can_read_what_is_at_hand_without_reaching_the_store(
    place: Place, store: ArtifactStore
) -> None:
    uri = store.put_snapshot("bars/1D", TABLE)
    put_run(store)
    place.write("runs/bad/manifest.json", b"{")
    wanted = [uri, "bars/1D/gone.parquet", "runs/gone", "runs/bad", RUN]
    folder = place.machine().at_hand(wanted)
    other = ArtifactStore(folder)
    assert other.read_snapshot(uri, ["x"]).num_rows == 2
    assert other.read_table(RUN, "equity.parquet").num_rows == 2
    with pytest.raises(ArtifactCorrupt, match="is missing"):
        other.read_snapshot("bars/1D/gone.parquet", ["x"])


def test_a_sound_store_answers_and_a_probe_of_it_leaves_nothing(
    place: Place, store: ArtifactStore
) -> None:
    store.require_writable()
    store.ping()
    assert place.files() == []


def test_a_table_larger_than_one_part_of_an_upload_is_read_back_whole(
    place: Place, store: ArtifactStore
) -> None:
    large = pa.table({"x": np.random.default_rng(1).random(1_500_000)})
    uri = store.put_snapshot("bars/1D", large)
    assert len(place.read(uri)) > 10e6
    assert place.machine().read_snapshot(uri, ["x"]) == large
    assert pq.read_metadata(store.at_hand([uri]) / uri).num_rows == 1_500_000
