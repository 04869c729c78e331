"""The strategies that there are, and the names that they go by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from backtest_pipeline.market.errors import (
    AmbiguousName,
    InvalidInput,
    StrategyRefused,
    UnknownName,
)
from backtest_pipeline.strategies.cross_section.definition import CrossSection
from backtest_pipeline.strategies.known_strategies import FOLDER, SHORT_NAMES, catalogue
from backtest_pipeline.strategies.own.loading import SHIPPED
from backtest_pipeline.strategies.strategy import Strategy

DEFAULT_STRATEGY = "ema_crossover"
"""What is traded where a spec names no strategy."""


def strategies() -> dict[str, Strategy[Any]]:
    """All strategies by name, those shipped and the user's own."""
    return {name: found.strategy for name, found in catalogue().known.items()}


def is_own_python(name: str | None) -> bool:
    """Whether a strategy, by default the default one, is a user's Python, which may take any time.

    None of its code runs here. Raises as `strategy_of`.

    Examples:
        >>> is_own_python("ema")
        False
    """
    return catalogue().known[strategy_of(name or DEFAULT_STRATEGY).name].is_own_python


class Named(NamedTuple):
    """What a name stands for: a strategy or a preset, one of them."""

    strategy: str | None = None
    preset: str | None = None


def named(name: str, presets: Iterable[str] = ()) -> Named:
    """The strategy or preset that goes by a name, in full or by its first word.

    `rsi`, `ema` and `atr` always mean the shipped strategies. Any other first word, such as
    `macd`, means the one strategy or preset that begins with it.

    Args:
        name: in full, or the first word.
        presets: names of the registered presets, where one may be meant.

    Raises:
        UnknownName: where nothing goes by it.
        InvalidInput: for a cross-section, which is no strategy on single assets.
        StrategyRefused: where a strategy of that name, or the folder of the user's own, cannot be
            loaded, or it ranks a universe, with the reason.
        AmbiguousName: where several do, with their names.

    Examples:
        >>> named("rsi").strategy
        'rsi_mean_revert'
        >>> named("ema_9_21", ["ema_9_21", "ema_21_50"])
        Named(strategy=None, preset='ema_9_21')
    """
    presets, ranking = tuple(presets), catalogue().cross_sections
    if name in ranking:
        raise StrategyRefused(
            f"{name} ranks a universe, and is no strategy on single assets; run it by "
            f"backtest-pipeline cross-section run --strategy {name}"
        )
    if name in presets and name in strategies():
        raise AmbiguousName(f"{name!r} is a strategy and a preset; give --strategy or --preset")
    if name in presets:
        return Named(preset=name)
    if (full := SHORT_NAMES.get(name, name)) in strategies():
        return Named(strategy=full)
    found = [
        *(Named(strategy=known) for known in strategies() if known.split("_")[0] == name),
        *(Named(preset=known) for known in presets if known.split("_")[0] == name),
    ]
    refused = catalogue().refused
    if not found and name in refused:
        raise StrategyRefused(f"strategy {name} cannot be used: {refused[name]}")
    if not found and FOLDER in refused:
        raise StrategyRefused(
            f"no strategy {name} is known, and {FOLDER} cannot be used: {refused[FOLDER]}"
        )
    if not found and name in catalogue().cross_sections:
        raise InvalidInput(
            f"{name} ranks a universe, and is no strategy on single assets; run it as a "
            "cross-section: `backtest-pipeline cross-section run`"
        )
    if not found:
        kind = "strategy or preset" if presets else "strategy"
        raise UnknownName(kind, name, (*SHORT_NAMES, *strategies(), *ranking, *presets))
    if len(found) > 1:
        told = ", ".join(
            f"{one.strategy} (strategy)" if one.strategy else f"{one.preset} (preset)"
            for one in found
        )
        raise AmbiguousName(f"{name!r} may be {told}; write one of them in full")
    return found[0]


def strategy_of(name: str) -> Strategy[Any]:
    """The strategy that goes by a name, in full or by its first word; errors as `named`."""
    found = named(name).strategy
    assert found is not None  # noqa: S101  (no preset was offered)
    return strategies()[found]


def strategy_hash(name: str) -> str:
    """Hash of a strategy's own code; errors as `strategy_of`."""
    return catalogue().known[strategy_of(name).name].hash


def own_version(name: str) -> str | None:
    """Hash of the code or rules of a user's own strategy; None for a shipped or unknown one."""
    found = catalogue().known.get(name)
    return None if found is None or found.origin == SHIPPED else found.hash


def cross_section_of(name: str) -> CrossSection:
    """The cross-section of a name.

    Raises:
        UnknownName: where there is none.
        InvalidInput: for a strategy on single assets.
        StrategyRefused: where its file, or the folder of the user's own, cannot be read.
    """
    found = catalogue()
    if name in found.cross_sections:
        return found.cross_sections[name].rule
    for refused in (name, FOLDER):
        if refused in found.refused:
            raise StrategyRefused(f"{refused} cannot be used: {found.refused[refused]}")
    if (full := SHORT_NAMES.get(name, name)) in found.known:
        raise InvalidInput(f"{full} is a strategy on single assets; use `run`")
    raise UnknownName("cross-section", name, found.cross_sections)


def require_folder() -> None:
    """Raise StrategyRefused where the folder of the user's own strategies cannot be read."""
    if (why := catalogue().refused.get(FOLDER)) is not None:
        raise StrategyRefused(f"{FOLDER} cannot be used: {why}")


def require_own_name(rule: CrossSection) -> None:
    """Raise StrategyRefused where another strategy has the name of a cross-section.

    The runs of one name replace each other, so that two of a name would displace each other. The
    same rules, from a file and given, are one.
    """
    found, full = catalogue(), SHORT_NAMES.get(rule.name, rule.name)
    other = found.cross_sections.get(rule.name)
    if other is not None and other.rule.version == rule.version:
        return
    origin = found.known[full].origin if full in found.known else other and other.origin
    if origin is not None:
        raise StrategyRefused(
            f"the rules are named {rule.name}, and so is another strategy: {origin}; give the "
            "rules another name, or run that strategy by its name"
        )
