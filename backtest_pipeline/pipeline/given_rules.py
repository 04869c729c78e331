"""Rules that a spec brings along, as text, in place of the name of a strategy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.pipeline.specs import StrategySpec
from backtest_pipeline.strategies.known_strategies import look_again, rules_known
from backtest_pipeline.strategies.registry import is_own_python

S = TypeVar("S", bound=StrategySpec)


@contextmanager
def strategies_for(spec: S) -> Iterator[S]:
    """Take up the strategies as they are now; gives the spec, which names one of them.

    The strategy of a spec's rules is known while the block runs, and its name stands in the spec in
    place of the rules. So the same rules give the same runs, from a file or with the spec.

    Raises:
        InvalidInput: for rules together with a strategy or a preset.
        StrategyRefused: where another strategy has the name of the rules.
    """
    look_again()
    if spec.rules is None:
        yield spec
        return
    if spec.strategy or getattr(spec, "preset", None):
        raise InvalidInput("rules are a strategy: give the rules alone, or a strategy or preset")
    with rules_known(spec.rules) as name:
        yield spec.model_copy(update={"rules": None, "strategy": name})


def names_own_python(spec: StrategySpec) -> bool:
    """Whether the strategy that a spec names is a user's Python, none of which runs for this.

    A preset is not looked up, and counts as none. Raises as `strategies_for`, and UnknownName for
    an unknown strategy.
    """
    if getattr(spec, "preset", None):
        return False
    with strategies_for(spec) as named:
        return is_own_python(named.strategy)
