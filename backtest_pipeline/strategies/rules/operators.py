"""What the steps of a program do: operands, look-back, and how each is computed.

A number that is undefined is NaN; a result that is not finite is undefined. A condition is true,
false or undefined. It is computed as two columns, where it is true and where it is false, each only
if something asks for it: `not` exchanges them, and an undefined row is in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from backtest_pipeline.market.features import rolling

LONGEST_WINDOW = 10_000


class ValueKind(Enum):
    """What an expression gives at each bar."""

    NUMBER = "number"
    CONDITION = "condition"


class Facet(Enum):
    """What is computed of a step: a number's value, or where a condition is true or false."""

    VALUE = "value"
    TRUE = "true"
    FALSE = "false"


VALUE, TRUE, FALSE = Facet.VALUE, Facet.TRUE, Facet.FALSE
FACETS: dict[ValueKind, tuple[Facet, ...]] = {
    ValueKind.NUMBER: (VALUE,),
    ValueKind.CONDITION: (TRUE, FALSE),
}


@dataclass(frozen=True)
class Bounds:
    """What an operand may be that is one number for all bars.

    Attributes:
        least, most: its range, both included.
        is_whole: whether it is a whole number.
        why: said of a value below the range.
    """

    least: float
    most: float
    is_whole: bool = True
    why: str = ""

    def problem(self, name: str, value: float) -> str | None:
        """Why a value is not allowed; None where it is."""
        if self.least <= value <= self.most and (not self.is_whole or value == int(value)):
            return None
        kind = "a whole number" if self.is_whole else "a number"
        given = "undefined" if np.isnan(value) else f"{value:g}"
        why = f": {self.why}" if self.why and value < self.least else ""
        return f"{name} must be {kind} from {self.least:g} to {self.most:,g}, not {given}{why}"


@dataclass(frozen=True)
class Way:
    """How one facet of an operator is computed.

    Attributes:
        reads: operand and facet of each argument, in the order that `compute` takes them.
        compute: takes the panel's offsets and the arguments: columns `(n_rows,)`, or one number or
            bool where an operand is the same at all bars.
    """

    reads: tuple[tuple[int, Facet], ...]
    compute: Callable[..., Any]


@dataclass(frozen=True)
class Operator:
    """What a step does.

    Attributes:
        takes: the kind of each operand.
        gives: the kind of the result.
        ways: how each facet of the result is computed.
        bounds: by operand, what it may be, where it is one number for all bars.
        more_rows: rows that it looks back further than its operands, from its window; None for an
            operator of the same bar alone.
        is_recursive: whether the result depends on all earlier bars.
    """

    takes: tuple[ValueKind, ...]
    gives: ValueKind
    ways: Mapping[Facet, Way]
    bounds: Mapping[int, Bounds] = field(default_factory=dict)
    more_rows: Callable[[int], int] | None = None
    is_recursive: bool = False


_BARS_BACK = Bounds(
    0, LONGEST_WINDOW, why="n counts bars back, and a later bar is the future, which is not known"
)


def defined(x: Any) -> Any:
    """The numbers, NaN where they are not finite."""
    infinite = np.isinf(x)
    return np.where(infinite, np.nan, x) if infinite.any() else x


def column_of(x: Any, offsets: np.ndarray) -> np.ndarray:
    """The operand as a column, where it may be one value for all bars."""
    return np.full(offsets[-1], x) if np.ndim(x) == 0 else x


def _arithmetic(compute: Callable[..., Any], n_operands: int = 2) -> Operator:
    """An operator on the numbers of one bar."""
    way = Way(
        tuple((i, VALUE) for i in range(n_operands)), lambda _, *args: defined(compute(*args))
    )
    return Operator((ValueKind.NUMBER,) * n_operands, ValueKind.NUMBER, {VALUE: way})


def _comparison(is_true: np.ufunc, is_false: np.ufunc) -> Operator:
    reads = ((0, VALUE), (1, VALUE))
    ways = {
        TRUE: Way(reads, lambda _, x, y: is_true(x, y)),
        FALSE: Way(reads, lambda _, x, y: is_false(x, y)),
    }
    return Operator((ValueKind.NUMBER, ValueKind.NUMBER), ValueKind.CONDITION, ways)


def _both(true: np.ufunc, false: np.ufunc) -> Operator:
    ways = {
        TRUE: Way(((0, TRUE), (1, TRUE)), lambda _, x, y: true(x, y)),
        FALSE: Way(((0, FALSE), (1, FALSE)), lambda _, x, y: false(x, y)),
    }
    return Operator((ValueKind.CONDITION, ValueKind.CONDITION), ValueKind.CONDITION, ways)


def _window(compute: Callable[..., np.ndarray], least: int = 1, *, share: bool = False) -> Operator:
    """An operator on the last n rows of a column."""
    numbers = 3 if share else 2

    def computed(offsets: np.ndarray, x: Any, n: float, *rest: float) -> np.ndarray:
        return compute(column_of(x, offsets), offsets, int(n), *rest)

    bounds = {1: Bounds(least, LONGEST_WINDOW)} | ({2: Bounds(0, 1, False)} if share else {})
    way = Way(tuple((i, VALUE) for i in range(numbers)), computed)
    return Operator(
        (ValueKind.NUMBER,) * numbers,
        ValueKind.NUMBER,
        {VALUE: way},
        bounds,
        more_rows=lambda n: n - 1,
    )


def _recursion(compute: Callable[..., np.ndarray]) -> Operator:
    window = _window(compute)
    return Operator(
        window.takes, window.gives, window.ways, window.bounds, window.more_rows, is_recursive=True
    )


def _shift(kind: ValueKind) -> Operator:
    def shifted(offsets: np.ndarray, x: Any, n: float) -> np.ndarray:
        return rolling.shift(column_of(x, offsets), offsets, int(n))

    ways = {facet: Way(((0, facet), (1, VALUE)), shifted) for facet in FACETS[kind]}
    return Operator((kind, ValueKind.NUMBER), kind, ways, {1: _BARS_BACK}, more_rows=lambda n: n)


def _choice(kind: ValueKind) -> Operator:
    """Operands: the condition, what is chosen where it is true, and where it is false."""

    def number(_: np.ndarray, true: Any, false: Any, x: Any, y: Any) -> Any:
        return np.where(true, x, np.where(false, y, np.nan))

    def condition(_: np.ndarray, true: Any, false: Any, x: Any, y: Any) -> Any:
        return (true & x) | (false & y)

    chosen = number if kind is ValueKind.NUMBER else condition
    ways = {
        facet: Way(((0, TRUE), (0, FALSE), (1, facet), (2, facet)), chosen)
        for facet in FACETS[kind]
    }
    return Operator((ValueKind.CONDITION, kind, kind), kind, ways)


def _crosses_above(offsets: np.ndarray, x: Any, y: Any) -> np.ndarray:
    return rolling.crosses_above(column_of(x, offsets), column_of(y, offsets), offsets)


def _does_not_cross(offsets: np.ndarray, x: Any, y: Any) -> np.ndarray:
    known = column_of(~(np.isnan(x) | np.isnan(y)), offsets)
    return known & rolling.shift(known, offsets, 1) & ~_crosses_above(offsets, x, y)


_CROSSING = ((0, VALUE), (1, VALUE))
_NOT = {
    TRUE: Way(((0, FALSE),), lambda _, x: x),
    FALSE: Way(((0, TRUE),), lambda _, x: x),
}

OPERATORS: dict[str, Operator] = {
    "add": _arithmetic(np.add),
    "subtract": _arithmetic(np.subtract),
    "multiply": _arithmetic(np.multiply),
    "divide": _arithmetic(np.divide),
    "negate": _arithmetic(np.negative, 1),
    "abs": _arithmetic(np.abs, 1),
    "sqrt": _arithmetic(np.sqrt, 1),
    "log": _arithmetic(np.log, 1),
    "min": _arithmetic(np.minimum),
    "max": _arithmetic(np.maximum),
    "less": _comparison(np.less, np.greater_equal),
    "less_equal": _comparison(np.less_equal, np.greater),
    "and": _both(np.logical_and, np.logical_or),
    "or": _both(np.logical_or, np.logical_and),
    "not": Operator((ValueKind.CONDITION,), ValueKind.CONDITION, _NOT),
    "if": _choice(ValueKind.NUMBER),
    "if_condition": _choice(ValueKind.CONDITION),
    "shift": _shift(ValueKind.NUMBER),
    "shift_condition": _shift(ValueKind.CONDITION),
    "crosses_above": Operator(
        (ValueKind.NUMBER, ValueKind.NUMBER),
        ValueKind.CONDITION,
        {TRUE: Way(_CROSSING, _crosses_above), FALSE: Way(_CROSSING, _does_not_cross)},
        more_rows=lambda _: 1,
    ),
    "highest": _window(rolling.highest),
    "lowest": _window(rolling.lowest),
    "mean": _window(rolling.mean),
    "sum": _window(rolling.total),
    "std_0": _window(rolling.population_deviation),
    "std_1": _window(rolling.deviation, least=2),
    "quantile": _window(rolling.quantile, share=True),
    "ema": _recursion(rolling.ema),
    "wilder": _recursion(rolling.wilder),
}
"""All operators of programs, by name."""
CHOICES = ("if", "if_condition")
"""The operators that choose between two operands by a condition."""
