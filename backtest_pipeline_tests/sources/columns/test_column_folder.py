"""A folder of columns: which files are read, and which are refused for what beside them is."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtest_pipeline.sources.columns.column_folder import read_column_folder


def _write(folder: Path, name: str, *columns: str) -> Path:
    path = folder / name
    path.write_text(",".join(("symbol", "ts", *columns)) + "\n")
    return path


def test_files_go_by_their_names(tmp_path: Path) -> None:
    _write(tmp_path, "model.csv", "score", "rank")
    _write(tmp_path, "_draft.csv", "score")
    (tmp_path / "notes.txt").write_text("no columns")
    (tmp_path / "columns.toml").write_text('[model]\nmax_age_days = 1.5\ntz = "UTC"\n')
    found = read_column_folder(tmp_path)
    assert found.refused == {}
    assert [*found.files] == ["model"]
    file = found.files["model"]
    assert (file.names, file.tz) == (("rank", "score"), "UTC")
    assert file.max_age_us == 129_600_000_000


def test_no_folder_holds_no_file(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "none"):
        found = read_column_folder(folder)
        assert (found.files, found.refused) == ({}, {})


def test_two_files_with_one_name_or_column_are_both_refused(tmp_path: Path) -> None:
    one, two = _write(tmp_path, "a.csv", "score"), _write(tmp_path, "b.csv", "score", "x")
    _write(tmp_path, "good.csv", "y")
    found = read_column_folder(tmp_path)
    assert [*found.files] == ["good"]
    assert set(found.refused) == {str(one), str(two)}
    assert f"{one} and {two} both have a column score" in found.refused[str(one)]
    (tmp_path / "good.parquet").write_bytes(b"")
    assert "have one name" in read_column_folder(tmp_path).refused[str(tmp_path / "good.csv")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[other]\ntz = 'UTC'", r"\[other\] is about no file; there are model"),
        ("[model]\nage = 3", r"\[model\] may say max_age_days and tz, not"),
        ("[model]\nmax_age_days = 0", "max_age_days is a number of days, not 0"),
        ("[model]\ntz = 'Mars'", "tz is an IANA zone such as UTC, not 'Mars'"),
        ("model", "cannot be read as TOML"),
    ],
)
def test_a_wrong_setting_refuses_the_folder(tmp_path: Path, text: str, why: str) -> None:
    path = _write(tmp_path, "model.csv", "score")
    (tmp_path / "columns.toml").write_text(text)
    found = read_column_folder(tmp_path)
    assert found.files == {}
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found.refused[str(path)])
