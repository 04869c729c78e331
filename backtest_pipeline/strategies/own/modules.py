"""Executes a user's Python strategy from the bytes that were read, under a private name.

Nothing is looked up on disk and `sys.path` stays as it is: two strategies may both have a
`helper.py`, and none can stand in for an installed package.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType
from typing import Any

from backtest_pipeline.market.errors import StrategyRefused
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from backtest_pipeline.strategies.own.source import Source
from backtest_pipeline.strategies.strategy import Strategy

PREFIX = "_strategy_"
"""What the private names of their modules begin with."""


class Files(MetaPathFinder, Loader):
    """Imports the modules of one source: `dip/levels.py` as `_strategy_dip_<digest>.levels`.

    Attributes:
        root: what its main file, or the folder of that, is imported as.
    """

    def __init__(self, root: str, source: Source) -> None:
        self.root, self._source = root, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._file_of(fullname)
        if file is None:
            return None
        is_package = file.endswith("/__init__.py")
        spec = spec_from_loader(fullname, self, origin=self._path(file), is_package=is_package)
        if spec is not None:
            spec.has_location = True
        return spec

    def exec_module(self, module: ModuleType) -> None:
        file = self._file_of(module.__name__)
        assert file is not None  # noqa: S101  (it was found)
        exec(compile(self._source.files[file], self._path(file), "exec"), module.__dict__)  # noqa: S102

    def _file_of(self, fullname: str) -> str | None:
        if fullname == self.root:
            return self._source.main
        if not fullname.startswith(f"{self.root}."):
            return None
        stem = f"{self._source.stem}/{fullname.removeprefix(f'{self.root}.').replace('.', '/')}"
        files: Mapping[str, bytes] = self._source.files
        return next((f for f in (f"{stem}.py", f"{stem}/__init__.py") if f in files), None)

    def _path(self, file: str) -> str:
        return f"{self._source.place}/{file}" if self._source.place else file


def strategy_of_module(source: Source) -> Strategy[Any] | CrossSection:
    """Execute a Python strategy, and return its `STRATEGY`.

    Raises:
        StrategyRefused: where it does not run, with file and line, or has no `STRATEGY`.
    """
    root = f"{PREFIX}{source.stem}_{source.digest[:16]}"
    module = sys.modules.get(root) or _imported(root, source)
    strategy = getattr(module, "STRATEGY", None)
    if not isinstance(strategy, Strategy | CrossSection):
        found = "no STRATEGY" if strategy is None else f"a STRATEGY that is {type(strategy)}"
        raise StrategyRefused(
            f"{source.where} has {found}; end it with STRATEGY = Strategy(name=..., ...)"
        )
    return strategy


def _imported(root: str, source: Source) -> ModuleType:
    finder = Files(root, source)
    sys.meta_path.insert(0, finder)
    spec = finder.find_spec(root, None)
    assert spec is not None  # noqa: S101  (its main file is among its files)
    module = module_from_spec(spec)
    sys.modules[root] = module  # dataclasses and pydantic look up the names of annotations there
    try:
        finder.exec_module(module)
    except (Exception, SystemExit) as error:
        for name in [n for n in sys.modules if n == root or n.startswith(f"{root}.")]:
            del sys.modules[name]
        sys.meta_path.remove(finder)
        raise StrategyRefused(failure_of(error, source)) from error
    return module


def failure_of(error: BaseException, source: Source) -> str:
    """Why importing a strategy failed: file and line of its own code, and the error."""
    own = {f"{source.place}/{name}" if source.place else name for name in source.files}
    if isinstance(error, SyntaxError) and error.filename in own:
        return f"{error.filename} line {error.lineno}: {error.msg}"
    lines = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in own
    ]
    where, line = lines[-1] if lines else (source.where, None)
    at = where if line is None else f"{where} line {line}"
    return f"{at}: {type(error).__name__}: {error}{_hint(error, source)}"


def _hint(error: BaseException, source: Source) -> str:
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    if not source.files:  # an installed package
        return f"; install {error.name}, or correct the package's entry point"
    return (
        f"; install {error.name}, or if it is a file of yours, put both into a folder "
        f"{source.stem}/ with this file as __init__.py and write: from .{error.name} import ..."
    )
