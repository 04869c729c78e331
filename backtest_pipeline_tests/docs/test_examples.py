"""Examples in docstrings run as they show, and every function of the public API has one."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import backtest_pipeline
from backtest_pipeline.storage.postgres.database import Database

PACKAGE = Path(backtest_pipeline.__file__).parent
MODULES = [
    ".".join(("backtest_pipeline", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text()
]
# docs/research.md and docs/provenance.md show these in programs that the suite runs.
SHOWN_IN_DOCS = {
    *("combinatorial_paths", "combinatorial_purged_splits", "explain_diff", "fixed_date_splits"),
    *("probability_of_backtest_overfitting", "replay", "walk_forward_splits"),
}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run_as_they_show(
    name: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", database.conninfo)
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_ARTIFACTS_URL", str(tmp_path))
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_every_public_function_has_an_example() -> None:
    functions = {
        name
        for name in backtest_pipeline.__all__
        if inspect.isfunction(getattr(backtest_pipeline, name))
    }
    with_example = {
        name for name in functions if ">>> " in (getattr(backtest_pipeline, name).__doc__ or "")
    }
    assert functions - with_example == SHOWN_IN_DOCS
