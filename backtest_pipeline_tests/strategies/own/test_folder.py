"""Which files of a folder are read, and who may have written them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backtest_pipeline.market.errors import StrategyRefused
from backtest_pipeline.strategies.own import folder as own_folder
from backtest_pipeline.strategies.own.folder import MAX_BYTES, read_folder, stamps
from backtest_pipeline_tests.own_strategies import write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "strategies", "dip.py")
    return tmp_path / "strategies"


def test_files_and_folders_are_read_in_order_of_name(folder: Path) -> None:
    write(folder, "trend.toml", 'name = "trend"')
    write(folder, "pair/__init__.py", "from .levels import LEVEL")
    write(folder, "pair/levels.py", "LEVEL = 3")
    for left_out in ("_draft.py", ".dip.py.swp", "notes.txt", "data/rows.py"):
        write(folder, left_out, "")
    found = read_folder(folder)
    assert [one.main for one in found.sources] == ["dip.py", "pair/__init__.py", "trend.toml"]
    assert found.sources[1].files == {
        "pair/__init__.py": b"from .levels import LEVEL",
        "pair/levels.py": b"LEVEL = 3",
    }
    assert found.refused == {}


def test_no_folder_has_no_strategies_and_a_file_is_none(folder: Path) -> None:
    assert read_folder(folder / "none").sources == ()
    with pytest.raises(StrategyRefused, match="is a file; BACKTEST_STRATEGIES names a folder"):
        read_folder(folder / "dip.py")


def _writable(folder: Path) -> None:
    (folder / "dip.py").chmod(0o666)


def _large(folder: Path) -> None:
    (folder / "dip.py").write_bytes(b"#" * (MAX_BYTES + 1))


def _linked(folder: Path) -> None:
    outside = write(folder.parent / "elsewhere", "dip.py")
    (folder / "dip.py").unlink()
    (folder / "dip.py").symlink_to(outside)


def _dangling(folder: Path) -> None:
    (folder / "dip.py").unlink()
    (folder / "dip.py").symlink_to(folder / "gone.py")


def _pipe(folder: Path) -> None:
    (folder / "dip.py").unlink()
    os.mkfifo(folder / "dip.py")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_pipe, "is not a regular file"),  # reading it would wait for a writer
        (_writable, "may be written by every user; run chmod o-w"),
        (_large, "larger than 1,000,000 bytes"),
        (_linked, "is a link to .*elsewhere/dip.py, outside of"),
        (_dangling, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_refused_says_why_and_the_others_are_read(
    folder: Path, spoil: Callable[[Path], None], why: str
) -> None:
    write(folder, "other.toml", 'name = "other"')
    spoil(folder)
    found = read_folder(folder)
    assert [one.main for one in found.sources] == ["other.toml"]
    ((path, message),) = found.refused.items()
    assert path == "dip.py"
    assert re.search(why, message)


def test_a_folder_that_others_may_write_is_refused_unless_trusted(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(StrategyRefused, match=r"may be written by every user.*_TRUST=true"):
        read_folder(folder)
    assert len(read_folder(folder, trust=True).sources) == 1
    folder.chmod(0o1777)  # a sticky folder: others cannot replace the file
    assert len(read_folder(folder).sources) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_refused_unless_trusted(folder: Path) -> None:
    os.chown(folder / "dip.py", 12345, 12345)
    ((_, why),) = read_folder(folder).refused.items()
    assert "belongs to another user (uid 12345)" in why
    assert len(read_folder(folder, trust=True).sources) == 1


def test_hidden_files_of_a_strategys_folder_do_not_count(folder: Path) -> None:
    write(folder, "pair/__init__.py")
    write(folder, "pair/.git/objects/ab/cdef", "x")
    write(folder, "pair/__pycache__/a/b/levels.pyc", "x")
    assert read_folder(folder).sources[1].files.keys() == {"pair/__init__.py"}


def test_every_folder_within_a_strategys_folder_is_judged(folder: Path) -> None:
    write(folder, "pair/__init__.py")
    write(folder, "pair/inner/deep/levels.py")
    (folder / "pair" / "inner").chmod(0o777)  # holds no file itself, but what is below it
    assert (
        "pair/inner may be written by every user" in read_folder(folder).refused["pair/__init__.py"]
    )


def test_group_write_alone_is_no_reason(folder: Path) -> None:
    (folder / "dip.py").chmod(0o664)
    assert len(read_folder(folder).sources) == 1


def test_what_belongs_to_no_strategy_is_not_watched(folder: Path) -> None:
    write(folder, "data/rows.csv", "1")
    write(folder, "pair/__init__.py", "")
    time.sleep(0.1)
    settled = stamps(folder)
    assert settled is not None
    (folder / "data" / "rows.csv").write_text("2")
    assert stamps(folder) == settled
    (folder / "data" / "__init__.py").touch()  # now it does
    assert stamps(folder) != settled
    assert stamps(folder / "none") == ()


def test_an_edit_right_after_reading_is_not_taken_for_the_same_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(own_folder, "_SETTLED_NS", 10**15)  # however long this test takes so far
        assert stamps(folder) is None  # it was written just now: another edit may leave such times
    time.sleep(0.1)
    settled = stamps(folder)
    assert settled is not None
    assert stamps(folder) == settled
    (folder / "dip.py").write_text("")
    assert stamps(folder) != settled
