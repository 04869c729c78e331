"""Executing a user's Python file: private names, errors with file and line."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import pytest

from backtest_pipeline.market.errors import StrategyRefused
from backtest_pipeline.strategies.own.modules import strategy_of_module
from backtest_pipeline.strategies.own.source import Source
from backtest_pipeline.strategies.strategy import Strategy
from backtest_pipeline_tests.own_strategies import DIP


def _source(text: str, **beside: str) -> Source:
    if not beside:
        return Source("dip.py", {"dip.py": text.encode()}, "/own")
    files = {"dip/__init__.py": text.encode()}
    return Source(
        "dip/__init__.py",
        files | {f"dip/{name}.py": content.encode() for name, content in beside.items()},
        "/own",
    )


def _loaded(source: Source) -> Strategy[Any]:
    strategy = strategy_of_module(source)
    assert isinstance(strategy, Strategy)
    return strategy


def test_a_strategy_is_loaded_without_a_trace_in_the_search_path() -> None:
    before = list(sys.path)
    strategy = _loaded(_source(DIP))
    assert strategy.name == "dip"
    assert strategy.parse({}).model_dump() == {"z": 2.0, "length": 20}
    assert sys.path == before
    assert "dip" not in sys.modules
    assert pickle.loads(pickle.dumps(strategy.parse({}))) == strategy.parse({})  # noqa: S301


def test_two_folders_have_a_helper_each_and_none_replaces_a_package() -> None:
    text = DIP.replace("from pydantic", "from .numpy import LEVEL\nfrom pydantic")
    text = text.replace("default=2.0", "default=LEVEL")
    one, other = _source(text, numpy="LEVEL = 1.5"), _source(text, numpy="LEVEL = 2.5")
    levels = [_loaded(s).parse({}).model_dump()["z"] for s in (one, other)]
    assert levels == [1.5, 2.5]


def test_annotations_as_text_are_understood() -> None:
    text = "from __future__ import annotations\n" + DIP.replace('"""Buy', '"""\nBuy')
    assert _loaded(_source(text)).parse({"length": 9}).model_dump()["length"] == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n", "/own/dip.py line 1: '\\(' was never closed"),
        ("x = 1\ny = 1 / 0\n", "/own/dip.py line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", "/own/dip.py line 2: SystemExit: 3"),
        ("x = 1\n", "/own/dip.py has no STRATEGY; end it with STRATEGY = Strategy"),
        ("STRATEGY = 1\n", "/own/dip.py has a STRATEGY that is <class 'int'>"),
        (
            "import levels_of_mine\n",
            (
                "line 1: ModuleNotFoundError: .*install levels_of_mine, or if it is a file of "
                "yours, put both into a folder dip/"
            ),
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(StrategyRefused, match=message):
        _loaded(_source(text))
    assert not [name for name in sys.modules if name.startswith("_strategy_dip") and "own" in name]


def test_an_error_beside_the_main_file_names_that_file() -> None:
    with pytest.raises(StrategyRefused, match=r"/own/dip/levels\.py line 2: NameError"):
        _loaded(_source("from .levels import LEVEL", levels="\nLEVEL = level"))
