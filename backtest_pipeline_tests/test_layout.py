"""Where things lie: one name for one thing, and files and folders that are read at once."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import backtest_pipeline
from backtest_pipeline.sources.choose import EXCHANGES

PACKAGE = Path(backtest_pipeline.__file__).parent
TESTS = Path(__file__).parent
# A file of these is named after what it is about, and may share the name of what computes that.
ROLES = {
    *("cli", "defs/assets", "pipeline/stages", "pipeline/use_cases", "service/routes"),
    *("storage/run_tables", "storage/tables", *(f"sources/{name}" for name in EXCHANGES)),
}
# One thing in several layers beside those.
SAME_THING = {
    *("blocked_entries", "funding", "leaderboard", "look_ahead", "negative_controls"),
    *("partitions", "settings"),
}
MOST_LINES, MOST_FILES = 400, 17
# docs/adr/0006-written-by-hand.md says why.
LONGER = {"simulation/engine.py"}
MORE_FILES = {"cli"}  # a file for each command


def modules() -> dict[str, Path]:
    return {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}


def test_files_of_one_name_are_about_one_thing() -> None:
    places = defaultdict(list)
    for name in modules():
        if Path(name).parent.as_posix() not in ROLES:
            places[Path(name).stem].append(name)
    shared = {stem for stem, found in places.items() if len(found) > 1}
    assert shared - {"__init__"} == SAME_THING


def test_no_two_classes_share_a_name() -> None:
    places = defaultdict(list)
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name)
    assert {cls: found for cls, found in places.items() if len(found) > 1} == {}


def test_files_and_folders_are_small() -> None:
    lengths = {name: path.read_text().count("\n") for name, path in modules().items()}
    assert {name for name, n in lengths.items() if n > MOST_LINES} == LONGER
    folders = defaultdict(int)
    for name in lengths:
        folders[Path(name).parent.as_posix()] += not name.endswith("__init__.py")
    assert {name for name, n in folders.items() if n > MOST_FILES} == MORE_FILES


def test_tests_lie_where_the_tested_lies() -> None:
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    apart = {"bench", "chaos", "docs", "e2e", "ops"}
    found = {path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    assert found - folders - apart == set()
