"""What networks, buckets and killed machines do to artifacts in a bucket."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from backtest_pipeline.market.errors import ArtifactCorrupt, ArtifactError
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import (
    archive_of,
    extracted,
    installed_code,
    keep_installed_code,
)
from backtest_pipeline.storage.doctor import examine
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.buckets import SECRET
from backtest_pipeline_tests.storage.places import InBucket, flip_a_bit_in

TABLE = pa.table({"x": [1.0, 2.0]})
_PUBLISH = """
import sys
import threading
from itertools import count
from pathlib import Path
import numpy as np
import obstore
import pyarrow as pa
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
put, uploads, held_after = obstore.put, count(), int(sys.argv[3])
def held(*args, **options):
    if next(uploads) == held_after:
        print("held", flush=True)
        threading.Event().wait()
    return put(*args, **options)
obstore.put = held
table = pa.table({"x": np.random.default_rng(1).random(100_000)})
store = ArtifactStore(Path(sys.argv[1]), sys.argv[2])
store.put_directory("runs/one", {f"{i:02}.parquet": table for i in range(30)}, {})
"""


@pytest.fixture(params=["s3", "azure"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> InBucket:
    return InBucket(request.getfixturevalue(request.param), tmp_path / "machines")


@pytest.fixture
def everything_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has just been written counts as written long ago."""
    for module in ("bucket", "disk"):
        name = f"backtest_pipeline.storage.artifacts.{module}.ABANDONED_AFTER_S"
        monkeypatch.setattr(name, -3600)


def test_a_writer_killed_while_it_uploads_leaves_no_directory_and_the_next_one_mends_it(
    place: InBucket,
) -> None:
    publish = [sys.executable, "-c", _PUBLISH, str(place.copies / "killed"), place.url]
    with subprocess.Popen([*publish, "10"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.kill()
    assert _has_begun(place)
    assert "runs/one/manifest.json" not in place.files()
    reader = place.machine()
    assert not reader.is_intact("runs/one")
    with pytest.raises(ArtifactCorrupt, match=r"runs/one .*no readable manifest"):
        reader.read_table("runs/one", "00.parquet")
    assert reader.sweep() == 0, "for all it knows, another machine is writing it"
    assert _has_begun(place)
    subprocess.run([*publish, "-1"], check=True)
    assert reader.is_intact("runs/one")
    assert reader.read_table("runs/one", "29.parquet").num_rows == 100_000


def _has_begun(place: InBucket) -> bool:
    return any(name.startswith("runs/one/") for name in place.files())


def test_what_killed_writers_left_is_swept_and_nothing_else(
    place: InBucket, everything_is_old: None
) -> None:
    place.machine().put_directory("runs/whole", {"a.parquet": TABLE}, {})
    for name, data in (
        ("runs/half/a.parquet", b"half"),
        ("runs/half/b.parquet", b"half"),
        ("runs/somebody else's", b"no artifact"),
        (".unfinished-notes/1", b"runs/half"),
        (".unfinished-notes/2", b"runs/whole"),
        (".unfinished-notes/3", b"runs/never begun"),
        (".unfinished-notes/probe-4", b"probe"),
    ):
        place.write(name, data)
    assert place.machine().sweep(lambda: nullcontext(False)) == 0, "somebody writes"
    assert place.machine().sweep() == 4
    assert place.machine().sweep() == 0
    assert place.files() == [
        *("runs/somebody else's", "runs/whole/a.parquet", "runs/whole/manifest.json")
    ]


def test_what_was_read_once_is_not_downloaded_again(place: InBucket) -> None:
    writer = place.machine()
    uri = writer.put_snapshot("bars", TABLE)
    writer.put_directory("runs/one", {"a.parquet": TABLE}, {})
    reader = place.machine()
    for _ in range(2):
        assert reader.read_snapshot(uri, ["x"]) == TABLE
        assert reader.read_table("runs/one", "a.parquet") == TABLE
        for name in (uri, "runs/one/a.parquet"):
            if name in place.files():
                place.delete(name)
    later = ArtifactStore(reader.root, place.url)
    assert later.read_snapshot(uri, ["x"]) == TABLE
    assert later.read_table("runs/one", "a.parquet") == TABLE
    assert later.gone([uri]) == {uri}
    assert not later.is_intact("runs/one")


def test_a_damaged_copy_is_fetched_again(place: InBucket) -> None:
    uri = place.machine().put_snapshot("bars", TABLE)
    reader = place.machine()
    assert reader.read_snapshot(uri, ["x"]) == TABLE
    copy = reader.root / uri
    for damage in (lambda: copy.write_bytes(b"half"), copy.unlink):
        damage()
        assert ArtifactStore(reader.root, place.url).read_snapshot(uri, ["x"]) == TABLE
    assert copy.read_bytes() == place.read(uri)
    copy.unlink()
    flip_a_bit_in(place, uri)
    with pytest.raises(ArtifactCorrupt, match=f"{uri} has changed"):
        reader.read_snapshot(uri, ["x"])


def test_sources_in_a_bucket_run_from_the_local_disk(place: InBucket) -> None:
    keep_installed_code(place.machine())
    code = installed_code()
    folder = extracted(place.machine(), code.uri)
    assert folder.is_relative_to(place.copies)
    assert archive_of({name: (folder / name).read_bytes() for name in code.files()}) == code
    assert place.files() == [code.uri]


def test_copies_are_kept_within_their_size_and_those_in_use_stay(
    place: InBucket, everything_is_old: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = place.machine()
    uris = [writer.put_snapshot("bars", pa.table({"x": [float(i)]})) for i in range(3)]
    for age, uri in enumerate(uris):
        os.utime(writer.root / uri, (age, age))
    room = (writer.root / uris[0]).stat().st_size
    thrifty = ArtifactStore(writer.root, place.url, room)
    assert thrifty.read_snapshot(uris[0], ["x"]).num_rows == 1  # the oldest is used now
    thrifty.sweep()
    assert [(writer.root / uri).exists() for uri in uris] == [True, False, False]
    assert thrifty.read_snapshot(uris[1], ["x"])["x"].to_pylist() == [1.0]
    monkeypatch.setattr("backtest_pipeline.storage.artifacts.bucket.ABANDONED_AFTER_S", 3600)
    thrifty.sweep()
    assert [(writer.root / uri).exists() for uri in uris] == [True, True, False]


def test_a_bucket_that_is_not_there_is_named(place: InBucket, tmp_path: Path) -> None:
    url = place.url.replace("//artifacts/", "//nowhere/")
    store = ArtifactStore(tmp_path / "copies", url)
    for ask in (
        store.require_writable,
        store.ping,
        lambda: list(store.stored()),
        lambda: store.read_snapshot(f"bars/{'0' * 64}.parquet", ["x"]),
        lambda: store.put_snapshot("bars", TABLE),
        lambda: store.remove("runs/one"),
    ):
        with pytest.raises(ArtifactError, match=f"no bucket for {url}; create it, or") as caught:
            ask()
        assert not isinstance(caught.value, ArtifactCorrupt)


def test_credentials_that_are_refused_are_not_shown(
    azure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET)
    _assert_refused(azure, tmp_path)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", f"sv=2021-08-06&sig={SECRET}")
    _assert_refused(azure, tmp_path)


def _assert_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"{url} refuses the request .*403") as caught:
        ArtifactStore(tmp_path / "copies", url).require_writable()
    assert "check AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_account_that_is_not_named_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ArtifactError, match=r"no credentials .*set AZURE_STORAGE_ACCOUNT_NAME"):
        ArtifactStore(tmp_path, "az://box/prefix").ping()


def test_an_endpoint_that_does_not_answer_is_told(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ArtifactError, match=f"{s3} does not respond; .*AWS_ENDPOINT_URL"):
        ArtifactStore(tmp_path, s3).ping()


def test_the_doctor_looks_at_the_bucket(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(
        run_store_mode="postgres",
        postgres_dsn="postgresql://u@127.0.0.1:1/d",
        home=tmp_path,
        artifacts_url=s3,
    )
    found = {finding.name: finding for finding in examine(lambda: settings)}["artifacts"]
    assert found.ok
    assert found.detail == f"{s3} is writable"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    found = {finding.name: finding for finding in examine(lambda: settings)}["artifacts"]
    assert (found.ok, found.detail) == (False, f"{s3} does not respond")
    assert found.fix.startswith("check the network")


@pytest.mark.parametrize("failures", [2, 20])
def test_a_store_that_stumbles_is_asked_again_and_one_that_keeps_falling_is_told(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    with _stumbling(failures) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        store = ArtifactStore(tmp_path, s3)
        if failures < 3:
            assert store.read_file(f"code/{_FOUND}.zip") == b"found"
        else:
            with pytest.raises(ArtifactError, match=r"failed .SlowDown, 503.*try again later"):
                store.ping()


_FOUND = hashlib.sha256(b"found").hexdigest()


@contextmanager
def _stumbling(failures: int) -> Iterator[str]:
    """A server of objects that refuses so many requests before it answers one."""
    left = [failures]

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            left[0] -= 1
            body = b"<Error><Code>SlowDown</Code></Error>" if left[0] >= 0 else b"found"
            self.send_response(503 if left[0] >= 0 else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Fri, 27 Nov 2026 00:00:00 GMT")
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
