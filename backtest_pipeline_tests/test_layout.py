"""Where things lie: one name for one thing, and files and folders that are read at once."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import backtest_pipeline
from backtest_pipeline.sources.choose import EXCHANGES

PACKAGE = Path(backtest_pipeline.__file__).parent
TESTS = Path(__file__).parent
# A file of these is named after what it is about, and may share the name of what computes that.
ROLES = {
    *("cli", "defs/assets", "pipeline/stages", "pipeline/use_cases", "service/routes"),
    *(
        "storage/plan_tables",
        "storage/run_tables",
        "storage/tables",
        *(f"sources/{name}" for name in EXCHANGES),
    ),
}
# One thing in several layers beside those.
SAME_THING = {
    *("blocked_entries", "funding", "leaderboard", "look_ahead", "negative_controls"),
    *("partitions", "settings"),
}
MOST_LINES, MOST_LINES_OF_TESTS, MOST_FILES = 350, 400, 17
REASONS = Path(__file__).parents[1] / "docs/adr/0007-long-modules.md"
MORE_FILES = {"cli"}  # a file for each command
# Tests of what is no folder of the package.
APART = {"bench", "chaos", "deploy", "docs", "e2e", "ops"}
# Tests that are about several modules of their folder at once.
OVER_SEVERAL = {
    "cli/test_bad_bars.py": "bars that no command can use",
    "cli/test_bad_surroundings.py": "a store, a folder or settings that no command can use",
    "cli/test_external.py": "all commands on the user's own table",
    "cli/test_secrets.py": "no command tells a password",
    "defs/automation/test_simulated_quarter.py": "weeks of ticks of all schedules of backfills",
    "defs/test_code_location.py": "definitions.py and defs in a process of Dagster's",
    "defs/test_other_schemas.py": "runs and sensors on the schema of another release",
    "defs/test_private.py": "which modules use what is private of Dagster",
    "pipeline/stages/test_bad_input.py": "every kind of bad file through all stages",
    "pipeline/stages/test_buckets.py": "all stages with artifacts in a bucket",
    "pipeline/stages/test_incremental.py": "all stages, however a store reached its state",
    "pipeline/stages/test_incremental_property.py": "the same for any history of bars",
    "pipeline/stages/test_interrupted_growth.py": "the same for refreshes that are killed",
    "pipeline/stages/test_roles.py": "what a reader and a writer of the database may do",
    "service/test_page.py": "docs/service.md, which needs a running service",
    "storage/test_at_once.py": "two writers of any table",
    "strategies/test_events.py": "every strategy against a loop over bars",
    "strategies/test_real_data.py": "every strategy on real markets",
    "test_imports.py": "what importing each module does",
    "test_layout.py": "the whole tree",
}
# A strategy's loop and the walk-forward's properties are read in one piece.
LONGER_TESTS = {"strategies/test_events.py"}


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


def _longer() -> set[str]:
    """The modules that the ADR has a reason for."""
    table = [line for line in REASONS.read_text().splitlines() if line.startswith("| `")]
    return {name for row in table for name in re.findall(r"`([\w/]+\.py)`", row.split("|")[1])}


def test_files_and_folders_are_small() -> None:
    lengths = {name: path.read_text().count("\n") for name, path in modules().items()}
    assert {name for name, n in lengths.items() if n > MOST_LINES} == _longer()
    folders = defaultdict(int)
    for name in lengths:
        folders[Path(name).parent.as_posix()] += not name.endswith("__init__.py")
    assert {name for name, n in folders.items() if n > MOST_FILES} == MORE_FILES


def test_a_test_has_the_name_of_what_it_tests() -> None:
    named = _subjects()
    others = {
        name
        for name in (path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py"))
        if Path(name).parts[0] not in APART and not _is_named(name, named)
    }
    assert others == set(OVER_SEVERAL)


def _subjects() -> set[str]:
    """Modules and folders of the package, without endings."""
    files = {name.removesuffix(".py") for name in modules()}
    return files | {Path(name).parent.as_posix() for name in files}


def _is_named(test: str, subjects: set[str]) -> bool:
    """Whether a test is `test_x.py`, or `test_x_subject.py`, of a module or folder x beside it."""
    folder, words = Path(test).parent, Path(test).stem.removeprefix("test_").split("_")
    names = ("_".join(words[:n]) for n in range(1, len(words) + 1))
    return any((folder / name).as_posix() in subjects for name in names)


def test_files_of_tests_are_small() -> None:
    lengths = {
        path.relative_to(TESTS).as_posix(): path.read_text().count("\n")
        for path in TESTS.rglob("*.py")
    }
    assert {name for name, n in lengths.items() if n > MOST_LINES_OF_TESTS} <= LONGER_TESTS


def test_functions_are_compiled_by_the_one_decorator_that_shares_their_code() -> None:
    found = {name for name, path in modules().items() if "numba" in _imported(path)}
    users = {name for name in found if "njit" in (PACKAGE / name).read_text(encoding="utf-8")}
    assert users == {"market/compiled.py"}


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
