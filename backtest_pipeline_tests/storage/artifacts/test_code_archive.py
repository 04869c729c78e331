"""Sources are kept once per version, hold nothing but sources, and run as they were kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backtest_pipeline.market.errors import ArtifactCorrupt
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts.code_archive import (
    archive_of,
    code_on_disk,
    extracted,
    installed_code,
    installed_folder,
    keep_installed_code,
    read_code,
)
from backtest_pipeline_tests.chaos.harness import random_of

PANEL = "backtest_pipeline/market/panel.py"
_KEEP = """
import sys
from pathlib import Path
from backtest_pipeline.storage.artifacts.artifacts import ArtifactStore
from backtest_pipeline.storage.artifacts import code_archive as archive
extracted, installed_code = archive.extracted, archive.installed_code
keep_installed_code = archive.keep_installed_code
store = ArtifactStore(Path(sys.argv[1]))
print("ready", flush=True)
keep_installed_code(store)
extracted(store, installed_code().uri)
"""


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def test_the_same_sources_are_the_same_archive_and_others_another(tmp_path: Path) -> None:
    files = installed_code().files()
    assert archive_of(dict(reversed(files.items()))) == code_on_disk()
    assert archive_of({n: d.replace(b"\n", b"\r\n") for n, d in files.items()}) == code_on_disk()
    assert archive_of({**files, PANEL: files[PANEL] + b"#"}).uri != code_on_disk().uri


def test_an_archive_holds_the_sources_and_no_path_or_secret_of_this_machine() -> None:
    files = installed_code().files()
    assert all(name.startswith("backtest_pipeline/") and name.endswith(".py") for name in files)
    assert files[PANEL] == (installed_folder() / PANEL).read_bytes()
    assert len(files) == len(list((installed_folder() / "backtest_pipeline").rglob("*.py")))
    data = installed_code().data
    for known in (str(installed_folder()), str(Path.home() / ".config"), sys.prefix):
        assert known.encode() not in data
    assert len(data) < 1.02 * sum(map(len, files.values())) + 200_000  # no more than the sources


def test_what_is_damaged_is_refused_when_read_and_mended_when_kept_again(
    store: ArtifactStore,
) -> None:
    keep_installed_code(store)
    uri = installed_code().uri
    path = store.root / uri
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactCorrupt, match="has changed since"):
        read_code(store, uri)
    keep_installed_code(ArtifactStore(store.root))  # as a new process
    assert read_code(store, uri) == installed_code()
    with pytest.raises(ArtifactCorrupt, match="is missing from"):
        read_code(store, "code/nothing.zip")


def test_a_folder_to_run_from_is_put_right_and_keeps_what_was_compiled(
    store: ArtifactStore,
) -> None:
    keep_installed_code(store)
    folder = extracted(store, installed_code().uri)
    compiled = folder / "backtest_pipeline/market/__pycache__"
    compiled.mkdir()
    before = (folder / PANEL).stat().st_mtime_ns
    assert extracted(store, installed_code().uri) == folder
    assert compiled.is_dir()
    assert (folder / PANEL).stat().st_mtime_ns == before
    (folder / PANEL).write_text("raise SystemExit")
    assert extracted(store, installed_code().uri) == folder
    assert (folder / PANEL).read_bytes() == installed_code().files()[PANEL]


def test_a_process_that_is_killed_while_it_keeps_sources_leaves_all_or_nothing(
    store: ArtifactStore,
) -> None:
    uri = installed_code().uri
    for instant in random_of("code").random(4) * 0.15:
        process = subprocess.Popen(
            [sys.executable, "-c", _KEEP, str(store.root)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(installed_folder())},
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(instant)
            process.kill()
        if not store.gone([uri]):
            assert read_code(store, uri) == installed_code()
        if not store.gone([uri.removesuffix(".zip")]):
            assert store.is_intact(uri.removesuffix(".zip"))
    keep_installed_code(store)
    folder = extracted(store, uri)
    left = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.py")}
    assert left == installed_code().files()
    for path in store.root.rglob(".unfinished-*"):
        os.utime(path, (0, 0))
    store.sweep()
    kept = {p.relative_to(store.root).as_posix() for p in store.root.glob("code/*")}
    assert kept == {uri, uri.removesuffix(".zip")}
