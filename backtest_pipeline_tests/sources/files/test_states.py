"""The state of files is another one whenever reading them might give other bars."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backtest_pipeline.sources.files import FileBars, states

CSV = "timestamp,open,high,low,close,volume\n2024-01-01,1,1,1,1,1\n2024-01-02,1,1,1,1,1\n"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_SETTLED_NS", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "venue=x").mkdir()
    for name in ("AAA.csv", "BBB.csv", "venue=x/CCC.csv"):
        (tmp_path / name).write_text(CSV)
    return tmp_path


def state(path: Path | str) -> str | None:
    return FileBars(path).states(["AAA"]).get("AAA")


def edit_in_place(file: Path) -> None:
    """Other prices of the same length in the same file, with the time that it had before."""
    before = file.stat()
    with file.open("r+") as opened:
        opened.write(CSV.replace(",1,1\n", ",1,2\n"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    same = ("st_size", "st_ino", "st_mtime_ns")
    assert all(getattr(after, name) == getattr(before, name) for name in same)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "AAA.csv").write_text(CSV.replace("1,1\\n", "1,2\\n")),
        lambda folder: (folder / "venue=x" / "CCC.csv").unlink(),
        lambda folder: (folder / "DDD.csv").write_text(CSV),
        lambda folder: (folder / "bars.toml").write_text('timeframe = "1D"'),
        lambda folder: os.rename(folder / "AAA.csv", folder / "ABC.csv"),
        lambda folder: os.utime(folder / "BBB.csv", ns=(1, 1)),
        lambda folder: edit_in_place(folder / "AAA.csv"),
    ],
)
def test_a_change_is_seen(folder: Path, change: Callable[[Path], object]) -> None:
    before = state(folder)
    assert before is not None
    assert state(folder) == before
    change(folder)
    assert state(folder) not in (before, None)


@pytest.mark.usefixtures("settled")
def test_what_is_not_read_does_not_matter_and_what_is_stated_does(folder: Path) -> None:
    before = state(folder)
    (folder / "notes").mkdir()
    (folder / "notes" / "AAA.csv").write_text(CSV)
    assert state(folder) == before
    assert state(f"{folder}?timeframe=1D") not in (before, None)
    alone = state(folder / "AAA.csv")
    (folder / "bars.toml").write_text('timeframe = "1D"')
    assert state(folder / "AAA.csv") not in (alone, None)


def test_a_file_that_was_just_written_may_change_unseen(folder: Path) -> None:
    assert state(folder) is None


def test_reading_says_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    assert state(tmp_path / "nowhere.csv") is None
