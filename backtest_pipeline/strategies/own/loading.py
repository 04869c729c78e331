"""Makes strategies of what users bring: their files, and installed packages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from backtest_pipeline.market.errors import BacktestError, RuleError, StrategyRefused
from backtest_pipeline.market.features.derive import is_given_by_bars
from backtest_pipeline.strategies.code import code_hash
from backtest_pipeline.strategies.cross_section.cross_section_file import (
    cross_section_from_toml,
    is_cross_section,
)
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from backtest_pipeline.strategies.own.modules import strategy_of_module
from backtest_pipeline.strategies.own.packages import (
    GROUP,
    entry_of,
    origin_of,
    package_hash,
    source_of,
    strategy_at,
    strategy_of_archive,
)
from backtest_pipeline.strategies.own.source import RULES, Source
from backtest_pipeline.strategies.rules import from_toml, rule_hash
from backtest_pipeline.strategies.rules.expressions import number_expression
from backtest_pipeline.strategies.strategy import Params, Strategy, guarded
from backtest_pipeline.trading.sizing import ByExpression

SHIPPED = "shipped"
GIVEN = "rules"
"""What errors call rules that were given as text."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class LoadedCrossSection:
    """A cross-section that is ready for use.

    Attributes:
        rule: what it says.
        hash: hash of all that changes what it computes, 16 hex digits.
        origin: the path of its file.
    """

    rule: CrossSection
    hash: str
    origin: str


@dataclass(frozen=True)
class Loaded:
    """A strategy that is ready for use.

    Attributes:
        strategy: the strategy.
        hash: hash of its own code or rules, 16 hex digits.
        origin: `shipped`, the path of its file, or its package with version.
        source: its files, which are archived with its runs; None where it is shipped.
    """

    strategy: Strategy[Any]
    hash: str
    origin: str = SHIPPED
    source: Source | None = None

    @property
    def is_own_python(self) -> bool:
        """Whether it is a user's Python, which may take any time; rules and shipped ones do not."""
        is_rules = self.source is not None and self.source.is_rules
        return self.origin != SHIPPED and not is_rules


def load_any(source: Source) -> Loaded | LoadedCrossSection:
    """Make a strategy, or a cross-section, of its files; errors as `load`."""
    rule = _cross_section_of(source)
    if rule is None:
        return load(source)
    if not is_good_name(rule.name):
        raise StrategyRefused(
            f"{source.where}: its name {rule.name!r} must be lower-case letters, digits and _, at "
            "most 60"
        )
    return LoadedCrossSection(rule, rule.version, source.where)


def seems_cross_section(source: Source) -> bool:
    """Whether files are meant as a cross-section, also where they cannot be read."""
    content = source.files.get(source.main, b"")
    return is_cross_section(content) if source.is_rules else b"CrossSection(" in content


def _cross_section_of(source: Source) -> CrossSection | None:
    if source.is_package:
        return None
    if source.is_rules:
        content = source.files[source.main]
        is_one = is_cross_section(content)
        return cross_section_from_toml(content, source.where) if is_one else None
    found = strategy_of_module(source)
    return found if isinstance(found, CrossSection) else None


def load(source: Source) -> Loaded:
    """Make a strategy of its files.

    Raises:
        StrategyRefused: where it cannot be loaded, or breaks the contract, with file and line.
    """
    if source.is_package:
        found = entry_of(source)
        return _contracted(
            strategy_of_archive(source), package_hash(found), origin_of(found), source
        )
    if source.is_rules:
        content = source.files[source.main]
        strategy, version = from_toml(content, source.where), rule_hash(content, source.where)
    else:
        found = strategy_of_module(source)
        if isinstance(found, CrossSection):
            raise StrategyRefused(
                f"{source.where} ranks a universe, and is no strategy on single assets; run it by "
                "backtest-pipeline cross-section run"
            )
        strategy, version = found, _python_hash(source)
    return _contracted(strategy, version, source.where, source)


def _contracted(
    strategy: Strategy[Any], version: str, origin: str, source: Source | None
) -> Loaded:
    """A strategy ready for use; raises StrategyRefused where it breaks the contract."""
    strategy = guarded(strategy)
    require_contract(strategy, origin)
    return Loaded(strategy, version, origin, source)


def load_text(text: str) -> Loaded:
    """Make a strategy of rules in TOML that were given as text; errors as `load`."""
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise RuleError(
            GIVEN,
            f"character {error.start + 1} is half of a surrogate pair, and no character; send the "
            "whole of it",
        ) from error
    strategy = from_toml(content, GIVEN)
    main = f"{strategy.name}{RULES}"
    origin = "rules that were given with a run"
    return _contracted(strategy, rule_hash(content, GIVEN), origin, Source(main, {main: content}))


def is_good_name(name: object) -> bool:
    """Whether a strategy may have this name.

    Examples:
        >>> is_good_name("dip_2"), is_good_name("Dip")
        (True, False)
    """
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def packages() -> Iterator[tuple[str, Loaded | StrategyRefused]]:
    """The strategies of installed packages, by the name of their entry point.

    Packages are looked up once in a process. One that fails is an error beside the others.
    """
    yield from _packages()


@cache
def _packages() -> tuple[tuple[str, Loaded | StrategyRefused], ...]:
    return tuple((found.name, _of_package(found)) for found in entry_points(group=GROUP))


def _of_package(found: EntryPoint) -> Loaded | StrategyRefused:
    origin = origin_of(found)
    try:
        strategy = strategy_at(found, Source(found.value, {}, origin.partition(" (")[0]))
        return _contracted(strategy, package_hash(found), origin, source_of(found))
    except StrategyRefused as error:
        return error


def _python_hash(source: Source) -> str:
    """Hash of a strategy's code; of a folder, every module and every other file counts."""
    files = {Path("/", name): content for name, content in source.files.items()}
    main = Path("/", source.main)
    if main.name != "__init__.py":
        return code_hash(main, files=files)
    parts = [
        f"{path} " + (_module_hash(path, files) if path.suffix == ".py" else _bytes_hash(content))
        for path, content in sorted(files.items())
    ]
    return _bytes_hash("\n".join(parts).encode())


def _module_hash(path: Path, files: dict[Path, bytes]) -> str:
    try:
        return code_hash(path, "", (), {path: files[path]})
    except (SyntaxError, ValueError, RecursionError) as error:  # of a module that none imports
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise StrategyRefused(
            f"{str(path)[1:]}{line}: {error}; correct or remove it: every module of the folder "
            "counts, also one that is not imported"
        ) from error


def _bytes_hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


def require_contract(strategy: Strategy[Any], where: str) -> None:
    """Raise StrategyRefused for a strategy that breaks the contract, saying each way it does."""
    problems = list(_problems(strategy))
    if problems:
        raise StrategyRefused(f"{where}: {'; '.join(problems)}")


def _problems(strategy: Strategy[Any]) -> Iterator[str]:
    if not is_good_name(strategy.name):
        yield f"its name {strategy.name!r} must be lower-case letters, digits and _, at most 60"
    if not (isinstance(strategy.params_type, type) and issubclass(strategy.params_type, Params)):
        yield "its params_type must be a class derived from Params"
        return
    if not isinstance(strategy.grid, Mapping) or not all(map(_is_axis, strategy.grid.values())):
        yield "its grid must be a mapping of parameters to lists of numbers"
    else:
        for name in strategy.grid.keys() - strategy.params_type.model_fields.keys():
            yield f"its grid names {name!r}, which is no parameter"
    yield from _problems_with(strategy, "defaults", {})
    if not isinstance(strategy.presets, Mapping):
        yield "its presets must be a mapping of names to parameters"
        return
    for name, given in strategy.presets.items():
        if not is_good_name(name):
            yield f"its preset {name!r} must be lower-case letters, digits and _, at most 60"
        elif not isinstance(given, Mapping):
            yield f"preset {name} must be a mapping of parameters to values"
        else:
            yield from _problems_with(strategy, f"parameters of preset {name}", given)


def _is_axis(values: object) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) > 0
        and all(isinstance(value, int | float) for value in values)
    )


def _problems_with(strategy: Strategy[Any], what: str, given: Mapping[str, Any]) -> Iterator[str]:
    """What goes wrong with these parameters before any bar is read."""
    try:
        params = strategy.parse(given)
    except BacktestError as error:
        yield f"its {what} are refused: {error}"
        return
    functions = (strategy.columns, strategy.stops, strategy.cooldown, strategy.sizing)
    for function in filter(None, functions):
        try:
            function(params)
        except BacktestError as error:
            yield f"with its {what}: {error}"
            return
    expressions = strategy.stops(params).expressions
    sizing = strategy.sizing and strategy.sizing(params)
    if isinstance(sizing, ByExpression):
        expressions["sizing"] = sizing.fraction
    columns = strategy.columns(params)
    for name, text in expressions.items():
        yield from _problems_with_expression(name, text, columns, what)


def _problems_with_expression(
    name: str, text: str, columns: Sequence[str], what: str
) -> Iterator[str]:
    try:
        reads = number_expression(text, name).reads
    except BacktestError as error:
        yield f"with its {what}: {error}"
        return
    for column in reads:
        if column not in columns and not is_given_by_bars(column):
            yield f"with its {what}: its {name} reads {column!r}; name it in columns() too"
