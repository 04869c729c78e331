"""Expressions of the rule language that stand alone, without a file around them."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np

from backtest_pipeline.market.errors import InvalidInput, RuleError, UnknownName
from backtest_pipeline.market.features.derive import is_derived, with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategies.rules.evaluation import Settled
from backtest_pipeline.strategies.rules.functions import FUNCTIONS
from backtest_pipeline.strategies.rules.operators import FALSE, TRUE, VALUE, ValueKind
from backtest_pipeline.strategies.rules.parser import parse
from backtest_pipeline.strategies.rules.program import COLUMNS, Program
from backtest_pipeline.strategies.rules.syntax import tree_of
from backtest_pipeline.trading.sizing import ByExpression, FixedFractional, Sizing
from backtest_pipeline.trading.stops import StopRules


def step_of(program: Program, text: str, where: str) -> int:
    """The step of an expression, in which names that are no features are numbers of a user's own.

    Raises:
        RuleError: for a text that is no expression of docs/rules.md, with the place.
    """
    own: dict[str, int | ValueKind] = {
        node.id: ValueKind.NUMBER for node in _own_names(tree_of(text, where))
    }
    return parse(program, text, own, where)


def _own_names(tree: ast.expr) -> list[ast.Name]:
    """The names in an expression that are no features."""
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return [
        node
        for node in names
        if node.id not in COLUMNS and node.id not in FUNCTIONS and not is_derived(node.id)
    ]


def require_features(text: str, where: str) -> None:
    """Raise RuleError for a name that is no feature, with the nearest ones."""
    tree = tree_of(text, where)
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in _own_names(tree):
        if node not in called:
            hint = str(UnknownName("column", node.id[:60], (*COLUMNS, *FUNCTIONS)))
            reason = (
                f"{hint.partition('; known')[0]}; a column of your own is read through a strategy "
                "that declares it"
            )
            raise RuleError(where, reason, text, node.col_offset)


class NumberExpression:
    """A number at each bar, by its text.

    Args:
        text: the expression.
        where: what it is, for messages.

    Raises:
        RuleError: for a text that is no expression, or that is a condition, with the place.

    Examples:
        >>> NumberExpression("0.02 / (atr_14 / close)", "sizing").reads
        ('atr_14', 'close')
    """

    def __init__(self, text: str, where: str) -> None:
        program = Program()
        step = step_of(program, text, where)
        if program.kinds[step] is not ValueKind.NUMBER:
            raise RuleError(where, "this is a condition and must be a number", text, 0)
        self._settled, self._text, self._where = Settled(program, {}), text, where
        self._wanted = step, VALUE

    @cached_property
    def spelling(self) -> str:
        """Its text in one spelling, however the text was spaced and bracketed.

        Examples:
            >>> NumberExpression("2*atr_14/close", "stop_loss").spelling
            '(2 * atr_14) / close'
        """
        return _in_one_spelling(self._settled, self._wanted[0], self._text, self._where)

    @cached_property
    def constant(self) -> float | None:
        """Its value where that is one number at all bars; None where it is not.

        Examples:
            >>> NumberExpression("0.02 * 2", "stop_loss").constant
            0.04
        """
        try:
            number = float(self.spelling)
        except ValueError:
            return None
        return number if math.isfinite(number) else None  # `inf` and `nan` may be columns

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it is computed from."""
        return self._settled.columns([self._wanted])

    def values(self, panel: Panel) -> np.ndarray:
        """Its value at the close of each bar, float64 `(n_rows,)`, NaN where undefined.

        Args:
            panel: bars from each asset's first one on, with the columns of `reads`, or bars that
                they can be computed from.

        Raises:
            InvalidInput: for a column that is neither there nor computed from bars.
        """
        try:
            known = with_indicators(panel, self.reads)
        except InvalidInput as error:
            raise InvalidInput(f"{self._where}: {error}") from error
        return self._settled.computed(known, [self._wanted])[0]


def _in_one_spelling(settled: Settled, step: int, text: str, where: str) -> str:
    try:
        return settled.written(step)
    except InvalidInput:  # it is too long with all its brackets
        return ast.unparse(tree_of(text, where))


@lru_cache(maxsize=1024)
def number_expression(text: str, where: str) -> NumberExpression:
    """The expression of a text; each is read once."""
    return NumberExpression(text, where)


def plain_stops(stops: StopRules) -> StopRules:
    """The stops with a number for each expression that is one at all bars.

    Raises:
        InvalidInput: for a text that is no expression, or a number out of its bounds.

    Examples:
        >>> plain_stops(StopRules(stop_loss="0.02 * 2", trailing="atr_14 / close"))
        StopRules(stop_loss=0.04, take_profit=None, trailing='atr_14 / close', trailing_atr=None, \
atr_period=14, max_bars=None)
    """
    constants = {n: number_expression(text, n).constant for n, text in stops.expressions.items()}
    return replace(stops, **{n: value for n, value in constants.items() if value is not None})


def plain_sizing(sizing: Sizing) -> Sizing:
    """The sizing, a fixed fraction where its expression is one number at all bars.

    Raises:
        InvalidInput: as `plain_stops`.

    Examples:
        >>> plain_sizing(ByExpression("1 / 4"))
        FixedFractional(fraction=0.25)
    """
    if not isinstance(sizing, ByExpression):
        return sizing
    fraction = number_expression(sizing.fraction, "sizing").constant
    return sizing if fraction is None else FixedFractional(fraction)


class ConditionExpression:
    """A condition at each bar, by its text, over features alone.

    Args:
        text: the expression.
        where: what it is, for messages.

    Raises:
        RuleError: for a text that is no expression, that reads what is no feature, or that is a
            number, with the place.

    Examples:
        >>> ConditionExpression("close > ema_50", "entry").reads
        ('close', 'ema_50')
    """

    def __init__(self, text: str, where: str) -> None:
        program = Program()
        require_features(text, where)
        step = parse(program, text, {}, where)
        if program.kinds[step] is not ValueKind.CONDITION:
            raise RuleError(
                where, "this is a number and must be a condition, such as close > ema_50", text, 0
            )
        self.digest = program.digests()[step]
        """Hash of what it computes, whatever its spacing and brackets."""
        self._settled, self._text, self._where = Settled(program, {}), text, where
        self._wanted = [(step, TRUE), (step, FALSE)]

    @cached_property
    def spelling(self) -> str:
        """Its text in one spelling, however the text was spaced and bracketed.

        Examples:
            >>> ConditionExpression("(volume>1.0)", "universe").spelling
            '1 < volume'
        """
        return _in_one_spelling(self._settled, self._wanted[0][0], self._text, self._where)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it is computed from."""
        return self._settled.columns(self._wanted)

    @property
    def warm_up(self) -> int | None:
        """Bars before the first value; None where that depends on the timeframe."""
        found = self._settled.lookback(self._wanted)
        return None if found is None else found.rows - 1

    def known(self, panel: Panel) -> tuple[np.ndarray, np.ndarray]:
        """Where it is true, and where it is false, bool `(n_rows,)` each; undefined in neither.

        Args:
            panel: as `NumberExpression.values` takes it.

        Raises:
            InvalidInput: for a column that is neither there nor computed from bars.
        """
        true, false = self._settled.computed(with_indicators(panel, self.reads), self._wanted)
        return true, false


@lru_cache(maxsize=4096)
def condition_expression(text: str, where: str) -> ConditionExpression:
    """The condition of a text; each is read once."""
    return ConditionExpression(text, where)
