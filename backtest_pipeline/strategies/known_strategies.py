"""The strategies that this process knows: those shipped, and the user's own.

A process takes up changed files where it begins something new, never in the middle: a run is
computed, named and archived from one version of its strategy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from threading import RLock
from typing import Any

import backtest_pipeline.strategies as package
from backtest_pipeline.market.errors import StrategyRefused
from backtest_pipeline.strategies.code import code_hash
from backtest_pipeline.strategies.own.folder import read_folder, stamps
from backtest_pipeline.strategies.own.loading import (
    SHIPPED,
    Loaded,
    LoadedCrossSection,
    load,
    load_any,
    load_text,
    packages,
    seems_cross_section,
)
from backtest_pipeline.strategies.own.source import Source
from backtest_pipeline.strategies.own.trial import forget_what_hung, tried

SHORT_NAMES = {"rsi": "rsi_mean_revert", "ema": "ema_crossover", "atr": "atr_breakout"}
"""Short names that always mean the shipped strategy at its defaults, whatever else is added."""
FOLDER = "the folder of strategies"
_CONTRACT = ("strategy",)
"""What every strategy is made of; `SIGNALS_VERSION` says when its numbers change."""


@dataclass(frozen=True)
class Catalogue:
    """Strategies by name, and those that are refused.

    Attributes:
        known: the strategies.
        cross_sections: the strategies that rank a universe.
        refused: why a strategy cannot be used, by its name, or by that of its file; why the whole
            folder cannot, by `FOLDER`.
        refused_cross_sections: those of the refused that are meant to rank a universe.
    """

    known: Mapping[str, Loaded]
    refused: Mapping[str, str]
    cross_sections: Mapping[str, LoadedCrossSection] = field(default_factory=dict)
    refused_cross_sections: frozenset[str] = frozenset()


Read = Loaded | LoadedCrossSection | StrategyRefused
"""What comes of the files of one strategy."""


@dataclass
class _Place:
    """Where a user's strategies lie, and what was last seen there."""

    folder: Path | None = None
    trust: bool = False
    tried: Path | None = None
    stamps: Any = None
    content: Catalogue | None = None
    loaded: dict[str, Read] = field(default_factory=dict)


_place = _Place()
_lock = RLock()
_with_rules: ContextVar[tuple[str, Catalogue] | None] = ContextVar(
    "with rules of a spec", default=None
)


def use_folder(folder: Path | None, *, trust: bool = False, tried: Path | None = None) -> None:
    """Take a user's strategies from a folder from now on.

    Args:
        folder: an absolute folder; None for none.
        trust: as in `read_folder`.
        tried: folder that remembers which files were tried already.
    """
    global _place
    with _lock:
        if (_place.folder, _place.trust, _place.tried) != (folder, trust, tried):
            _place = _Place(folder, trust, tried)


def use_sources(*sources: Source) -> None:
    """Know these archived strategies beside those installed, and none of any folder.

    Raises:
        StrategyRefused: where one cannot be loaded.
    """
    global _place
    own = {one.strategy.name: one for one in map(load, sources)}
    with _lock:
        _place = _Place(content=Catalogue({**_installed({}), **own}, {}))


def look_again() -> None:
    """Take up what has changed in the folder; what begins a run or a request calls it."""
    with _lock:
        if _place.folder is None or _place.content is None:
            return
        if _place.stamps is None or stamps(_place.folder) != _place.stamps:
            _place.content = None


@contextmanager
def rules_known(text: str) -> Iterator[str]:
    """Know the strategy of rules in TOML while the block runs; gives its name.

    It is known in this thread alone, and its presets are not: refreshes compute those of the
    folder.

    Raises:
        RuleError: for rules that cannot be read, with their place.
        StrategyRefused: where another strategy has their name.
    """
    one, before = load_text(text), catalogue()
    name = one.strategy.name
    other = before.known.get(SHORT_NAMES.get(name, name))
    if other is not None and other.hash == one.hash:
        yield name
        return
    if other is not None:
        raise StrategyRefused(
            f"the rules are named {name}, and so is another strategy: {other.origin}; give the "
            "rules another name, or run that strategy by its name"
        )
    own = replace(one, strategy=replace(one.strategy, presets={}))
    token = _with_rules.set((text, replace(before, known={**before.known, name: own})))
    try:
        yield name
    finally:
        _with_rules.reset(token)


def given_rules() -> str | None:
    """The rules that are known in this thread by `rules_known`; None where there are none."""
    given = _with_rules.get()
    return None if given is None else given[0]


def try_again() -> None:
    """Read the folder anew, and try again what took too long to import before."""
    with _lock:
        if _place.tried is not None:
            forget_what_hung(_place.tried)
        _place.loaded, _place.content = {}, None


def catalogue() -> Catalogue:
    """The strategies that there are."""
    given = _with_rules.get()
    if given is not None:
        return given[1]
    with _lock:
        if _place.content is None:
            _place.stamps = stamps(_place.folder) if _place.folder is not None else None
            _place.content = _read()
        return _place.content


@cache
def shipped() -> Mapping[str, Loaded]:
    """The strategies of this package: that of every module of the folder that has a `STRATEGY`."""
    found: dict[str, Loaded] = {}
    for module in iter_modules(package.__path__):
        path = f"{package.__name__}.{module.name}"
        if not module.ispkg and (strategy := getattr(import_module(path), "STRATEGY", None)):
            file = Path(package.__path__[0], f"{module.name}.py")
            found[strategy.name] = Loaded(
                strategy, code_hash(file, package.__name__, _CONTRACT), SHIPPED
            )
    return found


def _read() -> Catalogue:
    refused: dict[str, str] = {}
    own: list[tuple[str, Loaded | StrategyRefused]] = []
    ranking: list[LoadedCrossSection] = []
    meant: set[str] = set()
    for source, one in _of_folder(refused):
        if isinstance(one, LoadedCrossSection):
            ranking.append(one)
            meant.add(one.rule.name)
            continue
        own.append((source.stem, one))
        if isinstance(one, StrategyRefused) and seems_cross_section(source):
            meant.add(source.stem)
    known = _installed(refused, own)
    usable = _cross_sections(refused, known, ranking)
    return Catalogue(known, refused, usable, frozenset((meant - set(usable)) & set(refused)))


def _cross_sections(
    refused: dict[str, str], known: Mapping[str, Loaded], found: Sequence[LoadedCrossSection]
) -> dict[str, LoadedCrossSection]:
    """Cross-sections by name; of several things with one name none is used."""
    origins: dict[str, list[str]] = {}
    for one in found:
        origins.setdefault(one.rule.name, []).append(one.origin)
    for name, places in origins.items():
        if name in known:
            places.append(known[name].origin)
        if name in SHORT_NAMES:
            places.append(f"{SHIPPED}, as short for {SHORT_NAMES[name]}")
        if len(places) > 1:
            _refuse(refused, name, f"there are {len(places)} of this name: {' and '.join(places)}; "
                    "rename all but one")  # fmt: skip
    return {one.rule.name: one for one in found if len(origins[one.rule.name]) == 1}


def _installed(
    refused: dict[str, str], own: Iterable[tuple[str, Loaded | StrategyRefused]] = ()
) -> dict[str, Loaded]:
    """Strategies shipped, of packages and of one's own; what is wrong goes to `refused`."""
    found: list[tuple[str, Loaded]] = []
    for name, one in (*packages(), *own):
        if isinstance(one, StrategyRefused):
            _refuse(refused, name, str(one))
        else:
            found.append((one.strategy.name, one))
    origins: dict[str, list[str]] = {
        **{name: [SHIPPED] for name in shipped()},
        **{short: [f"{SHIPPED}, as short for {name}"] for short, name in SHORT_NAMES.items()},
    }
    for name, one in found:
        origins.setdefault(name, []).append(one.origin)
    known = dict(shipped())
    for name, one in found:
        if len(origins[name]) == 1:
            known[name] = one
        else:
            refused[name] = (
                f"there are {len(origins[name])} strategies named {name}: "
                f"{' and '.join(origins[name])}; rename all but one"
            )
    return known


def _refuse(refused: dict[str, str], name: str, why: str) -> None:
    """Add why something of a name is refused; two files may have one."""
    refused[name] = f"{refused[name]}; {why}" if name in refused else why


def _of_folder(refused: dict[str, str]) -> Iterator[tuple[Source, Read]]:
    if _place.folder is None:
        return
    try:
        content = read_folder(_place.folder, trust=_place.trust)
    except StrategyRefused as error:
        refused[FOLDER] = str(error)
        return
    for main, why in content.refused.items():
        source = Source(main, {}, str(_place.folder))
        _refuse(refused, source.stem, f"{source.where}: {why}")
    done = {d for d, one in _place.loaded.items() if not isinstance(one, StrategyRefused)}
    new = [s for s in content.sources if s.digest not in done]
    failed = tried([s for s in new if not s.is_rules], _place.tried)
    for source in new:
        why = failed.get(source.digest)
        _place.loaded[source.digest] = StrategyRefused(why) if why else _loaded(source)
    for source in content.sources:
        yield source, _place.loaded[source.digest]


def _loaded(source: Source) -> Read:
    try:
        return load_any(source)
    except StrategyRefused as error:
        return error
