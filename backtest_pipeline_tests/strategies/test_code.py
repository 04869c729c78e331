"""What changes the hash of a strategy's code, and what does not, whatever Python reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import backtest_pipeline.strategies as package
from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.strategies import code as code_module
from backtest_pipeline.strategies.code import code_hash
from backtest_pipeline.strategies.registry import strategies, strategy_hash

STRATEGY = '''"""A strategy."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from backtest_pipeline.market.features.rolling import crosses_above
from backtest_pipeline.strategies.strategy import Params, Conditions
from helper import level

if TYPE_CHECKING:
    from collections.abc import Sequence


class Own(Params):
    """Periods in bars."""

    period: int = Field(ge=2, le=200)
    bound: float | None = Field(default=None, description="a bound")


def conditions(panel, params: Own) -> Conditions:
    # The level comes from beside.
    name = f"rsi_{params.period:>{3}}"
    known: dict[str, float] = {"a": 1, **{}}
    value = level(panel[name], 30) if params.bound else -0.5
    return Conditions(crosses_above(value, known["a"]), True, 1e300, "\\u2028")
'''
HELPER = '"""Levels."""\n\n\ndef level(values, bound):\n    return values - bound\n'
PINNED = "66bbfeb150efc6e9"

SAME = {
    "a comment": ("    name = ", "    # Another word.\n    name = "),
    "formatting": ("level(panel[name], 30)", "level(\n        panel[ name ],\n        30,\n    )"),
    "quotes": ('known["a"]', "known['a']"),
    "another way to write a number": ("1e300", "1.0e+300"),
    "the module's docstring": ('"""A strategy."""', '"""Another word."""'),
    "no docstring of a class": ('    """Periods in bars."""\n\n', ""),
    "an annotation": ("params: Own) -> Conditions", "params) -> 'Conditions'"),
    "the annotation of a variable": ("known: dict[str, float] = ", "known = "),
    "a name for type checkers": ("import Sequence", "import Mapping, Sequence"),
    "the order of imports": (
        "import numpy as np\nfrom pydantic import Field\n",
        "from pydantic import Field\nimport numpy as np\n",
    ),
    "a moved module of the package": ("market.features.rolling", "features.rolling"),
    "the description of a parameter": ('description="a bound"', 'description="another word"'),
}
OTHER = {
    "a number": ("30)", "31)"),
    "a number of another type": ("30)", "30.0)"),
    "a truth in a number's place": ("30)", "True)"),
    "an operator": ("-0.5", "+0.5"),
    "a name": ('"a": 1', '"b": 1'),
    "a default": ("default=None", "default=50"),
    "the bound of a parameter": ("le=200", "le=300"),
    "a field": ("    bound: float | None", "    limit: float | None"),
    "a text": ("\\u2028", "\\u2029"),
    "a part of a text": ("rsi_", "atr_"),
    "the format of a text": (":>{3}", ":<{3}"),
    "another function of the package": ("rolling import crosses_above", "rolling import mean"),
    "another package": ("import numpy as np", "import pandas as np"),
    "a statement": ("    return Conditions", "    known.clear()\n    return Conditions"),
}


def written(folder: Path, strategy: str = STRATEGY, helper: str = HELPER) -> Path:
    (folder / "helper.py").write_text(helper)
    path = folder / "own.py"
    path.write_text(strategy)
    return path


def changed(change: tuple[str, str]) -> str:
    assert STRATEGY.count(change[0]) >= 1, change
    return STRATEGY.replace(*change)


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_computes_the_same_has_the_same_hash(tmp_path: Path, change: tuple[str, str]) -> None:
    before = code_hash(written(tmp_path))
    assert code_hash(written(tmp_path, changed(change))) == before


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_what_computes_otherwise_has_another(tmp_path: Path, change: tuple[str, str]) -> None:
    before = code_hash(written(tmp_path))
    assert code_hash(written(tmp_path, changed(change))) != before


def test_a_file_may_be_renamed_and_moved(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = code_hash(path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(tmp_path / "helper.py", elsewhere / "levels.py")
    moved = elsewhere / "renamed.py"
    moved.write_text(STRATEGY.replace("from helper import", "from levels import"))
    assert code_hash(moved) == before


def test_what_is_imported_from_beside_counts_and_what_only_lies_there_does_not(
    tmp_path: Path,
) -> None:
    path = written(tmp_path)
    before = code_hash(path)
    (tmp_path / "other.py").write_text("X = 1\n")
    assert code_hash(path) == before
    assert code_hash(written(tmp_path, helper=HELPER.replace('"""Levels."""', ""))) == before
    assert code_hash(written(tmp_path, helper=HELPER.replace("- bound", "+ bound"))) != before

    # Of what the helper imports, through a package, and round in a circle.
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "__init__.py").write_text("")
    (inner / "deep.py").write_text("from helper import level\nY = 2\n")
    reaching = "from inner.deep import Y\n" + HELPER
    before = code_hash(written(tmp_path, helper=reaching))
    (inner / "deep.py").write_text("from helper import level\nY = 3\n")
    assert code_hash(path) != before


def test_a_package_may_import_absolutely_or_relatively(tmp_path: Path) -> None:
    absolute = written(tmp_path, STRATEGY.replace("from helper", "from mine.rules.helper"))
    before = code_hash(absolute, "mine.rules")
    relative = written(tmp_path, STRATEGY.replace("from helper", "from .helper"))
    assert code_hash(relative, "mine.rules") == before
    written(tmp_path, relative.read_text(), HELPER.replace("- bound", "+ bound"))
    assert code_hash(relative, "mine.rules") != before


def test_every_shipped_strategy_has_a_hash_of_its_own_wherever_its_folder_is_copied(
    tmp_path: Path,
) -> None:
    found = {name: strategy_hash(name) for name in strategies()}
    assert len(set(found.values())) == len(found)
    (folder,) = package.__path__
    shutil.copytree(folder, tmp_path / "copy")
    shared = tmp_path / "copy" / "strategy.py"
    shared.write_text(shared.read_text() + "\nADDED = 1\n")
    for name in found:
        path = tmp_path / "copy" / f"{name}.py"
        assert code_hash(path, package.__name__, ("strategy",)) == found[name]
        assert code_hash(path, package.__name__) != found[name]
    with pytest.raises(UnknownName):
        strategy_hash("nowhere")


def test_every_python_reads_the_same(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert code_hash(path) == PINNED
    # The module needs nothing but the standard library: other interpreters can run it alone.
    script = (
        "import runpy, pathlib;"
        f"m = runpy.run_path({code_module.__file__!r}, run_name='backtest_pipeline.x');"
        f"print(m['code_hash'](pathlib.Path({str(path)!r})))"
    )
    for version in ("3.11", "3.12", "3.13", "3.14"):
        python = shutil.which(f"python{version}") or ""
        if python and not said_by(python, "print()").returncode:  # a shim may lead nowhere
            assert said_by(python, script).stdout.strip() == PINNED, version


def said_by(python: str, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, check=False)
