"""`bars inspect`: what is understood, what is not, and the settings that it writes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from typer.testing import CliRunner, Result

from backtest_pipeline.cli.main import app
from backtest_pipeline.sources.files import FileBars

HEAD = "ts,open,high,low,close,volume\n"
DAYS = "".join(f"2024-01-0{day},10,12,9,11,1\n" for day in (1, 2, 3))


def inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["bars", "inspect", *map(str, arguments)])


def test_what_is_understood_is_told_and_written(tmp_path: Path) -> None:
    (tmp_path / "AAA.csv").write_text(HEAD + DAYS)
    (tmp_path / "BBB.csv").write_text("")
    before = FileBars(tmp_path).read()
    found = inspect(tmp_path, "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    (row,) = told["assets"]
    assert (row["symbol"], row["layout"], row["timeframe"]) == ("AAA", "columns by name", "1D")
    assert row["columns"]["close"] == "close"
    assert "BBB.csv: the file is empty" in told["not_understood"][0]
    assert told["written"] is True
    settings = (tmp_path / "bars.toml").read_text()
    assert settings == told["settings"]
    assert tomllib.loads(settings) == {"timeframe": "1D"}
    # The bars are the same with the settings.
    after = FileBars(tmp_path).read()
    assert after.panels["1D"].frame("AAA").equals(before.panels["1D"].frame("AAA"))
    assert "stays as it is" in inspect(tmp_path).output.replace("\n", " ")


def test_settings_of_one_file_do_not_touch_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "AAA.csv").write_text(HEAD + DAYS)
    hours = "".join(f"2024-01-01T0{hour}:00Z,10,12,9,11,1\n" for hour in range(3))
    (tmp_path / "BBB.csv").write_text(HEAD + hours)
    assert inspect(tmp_path / "AAA.csv").exit_code == 0
    assert tomllib.loads((tmp_path / "bars.toml").read_text()) == {
        "files": {"AAA.csv": {"timeframe": "1D"}}
    }
    assert set(FileBars(tmp_path).read().panels) == {"1D", "1H"}


def test_where_nothing_is_understood_the_settings_say_what_to_fill_in(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("Zeit;Schluss\n2024-01-01;1\n")
    found = inspect(tmp_path / "x.csv")
    assert found.exit_code == 1
    assert "nothing of" in found.output
    settings = (tmp_path / "bars.toml").read_text()
    assert "# Not understood:" in settings
    assert "columns are Zeit, Schluss" in settings
    assert tomllib.loads(settings) == {"files": {"x.csv": {}}}


def test_settings_are_printed_where_they_are_not_written(tmp_path: Path) -> None:
    (tmp_path / "AAA.csv").write_text(HEAD + DAYS)
    found = inspect(tmp_path, "--no-write")
    assert 'timeframe = "1D"' in found.output
    assert not (tmp_path / "bars.toml").exists()
