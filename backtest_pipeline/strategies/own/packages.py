"""Strategies of installed packages: what is archived of one, and how it is executed from that.

An archive holds the modules of the top-level package, and what describes the distribution in the
way of an installed one: `dips-1.2.dist-info/METADATA` with name and version, and its entry point.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from backtest_pipeline.market.errors import StrategyRefused
from backtest_pipeline.strategies.own.modules import Files, failure_of
from backtest_pipeline.strategies.own.source import METADATA, Source
from backtest_pipeline.strategies.strategy import Strategy

GROUP = "backtest_pipeline.strategies"
"""The entry-point group of packages with strategies."""
MOST_BYTES = 5_000_000
"""The largest package that is archived."""
_ENTRY_POINTS = "entry_points.txt"
_DIGEST_BYTES = 8


def origin_of(found: EntryPoint) -> str:
    """Distribution, version and object that an entry point names."""
    distribution = f"{found.dist.name} {found.dist.version}" if found.dist else "an unknown package"
    return f"{distribution} ({found.value})"


def package_hash(found: EntryPoint) -> str:
    """Hash of what versions a package's strategy, 16 hex digits: not of its code."""
    text = f"{origin_of(found)}\0{found.name}"
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def strategy_at(found: EntryPoint, source: Source) -> Strategy[Any]:
    """The strategy that an entry point names, itself or as the `STRATEGY` of a module.

    Raises:
        StrategyRefused: where importing it fails, or it is none.
    """
    try:
        named = found.load()
    except (Exception, SystemExit) as error:
        raise StrategyRefused(failure_of(error, source)) from error
    strategy = getattr(named, "STRATEGY", None) if isinstance(named, ModuleType) else named
    if not isinstance(strategy, Strategy):
        raise StrategyRefused(
            f"{origin_of(found)} names no strategy; let it name a Strategy, or a module with a "
            "STRATEGY"
        )
    return strategy


def source_of(found: EntryPoint) -> Source | None:
    """What is archived of an installed package; None of this one, or of no distribution.

    Of a package that is too large, or has no Python files, only what describes it.
    """
    if found.dist is None or _top(found) == __name__.partition(".")[0]:
        return None
    name, number = found.dist.name, found.dist.version
    folder = f"{name}-{number}.dist-info"
    about = {
        f"{folder}/{METADATA}": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
        f"{folder}/{_ENTRY_POINTS}": f"[{GROUP}]\n{found.name} = {found.value}\n",
    }
    files = {path: text.encode() for path, text in about.items()}
    modules = dict(_modules(_top(found)))
    if sum(map(len, modules.values())) <= MOST_BYTES:
        files |= modules
    return Source(f"{folder}/{METADATA}", files, f"{name} {number}")


def entry_of(source: Source) -> EntryPoint:
    """The entry point of an archived package, which knows its distribution."""
    (found,) = _Archived(source).entry_points.select(group=GROUP)
    return found


def strategy_of_archive(source: Source) -> Strategy[Any]:
    """Execute the archived modules of a package under their own names, whatever is installed.

    For a process that does nothing else: modules of those names are put aside.

    Raises:
        StrategyRefused: where it does not run, or nothing but a description was archived and
            another version is installed, or none.
    """
    found = entry_of(source)
    assert found.dist is not None  # noqa: S101  (that of the archive)
    name, number, top = found.dist.name, found.dist.version, _top(found)
    main = next((f for f in (f"{top}/__init__.py", f"{top}.py") if f in source.files), None)
    if main is None:
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = None
        if installed != number:
            there = "it is not installed" if installed is None else f"{installed} is installed"
            raise StrategyRefused(
                f"{origin_of(found)} was not archived with its runs, being too large or not in "
                f"Python alone, and {there}; install {name}=={number}"
            )
        return strategy_at(found, Source(found.value, {}, name))
    for module in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
        del sys.modules[module]
    archived = Source(main, source.files, f"{name} {number}")
    others = [f for f in sys.meta_path if not (isinstance(f, Files) and f.root == top)]
    sys.meta_path[:] = [Files(top, archived), *others]
    return strategy_at(found, archived)


class _Archived(Distribution):
    """An archived package as the distribution that it was."""

    def __init__(self, source: Source) -> None:
        self._files, self._folder = source.files, source.stem

    def read_text(self, filename: str) -> str | None:
        content = self._files.get(f"{self._folder}/{filename}")
        return None if content is None else content.decode()

    def locate_file(self, path: Any) -> Path:
        return Path(path)


def _top(found: EntryPoint) -> str:
    return found.module.partition(".")[0]


def _modules(top: str) -> Iterator[tuple[str, bytes]]:
    """The Python files of a top-level package, or of a module; none where it is neither."""
    spec = find_spec(top)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return
    main = Path(spec.origin)
    paths = main.parent.rglob("*.py") if spec.submodule_search_locations else [main]
    root = main.parent.parent if spec.submodule_search_locations else main.parent
    for path in sorted(paths):
        yield path.relative_to(root).as_posix(), path.read_bytes()
