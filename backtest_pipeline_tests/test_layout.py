"""Where things lie: one name for one thing, and files and folders that are read at once."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import backtest_pipeline

PACKAGE = Path(backtest_pipeline.__file__).parent
TESTS = Path(__file__).parent
# One thing in several layers: what computes it, its stage or use case, its table, its command.
SAME_THING = {
    *("asset_identity", "bars", "blocked_entries", "features", "funding", "jobs", "leaderboard"),
    *("look_ahead", "negative_controls", "partitions", "portfolio", "portfolios", "refresh"),
    *("replay", "restatements", "retention", "robustness", "rollups", "runs", "settings"),
    *("signals", "store", "sweep", "trials", "walk_forward"),
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


def test_only_tests_of_the_benches_import_them() -> None:
    found = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("*.py")
        if "bench" in {name.partition(".")[0] for name in _imported(path)}
    }
    assert {Path(name).parts[0] for name in found} == {"bench"}


def test_no_test_takes_from_another_tests_file() -> None:
    found = {
        path.relative_to(TESTS).as_posix(): name
        for path in TESTS.rglob("*.py")
        for name in _imported(path)
        if name.startswith(TESTS.name) and name.rpartition(".")[2].startswith("test_")
    }
    assert found == {}


def _imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    return plain | {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
