"""A program: the steps of all rules of a file, each once, whichever rules need it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from backtest_pipeline.market.features.catalogue import FEATURES
from backtest_pipeline.strategies.rules.operators import OPERATORS, VALUE, Bounds, ValueKind

CONSTANT, PARAMETER, COLUMN, INDICATOR = "constant", "parameter", "column", "indicator"
AT, RANK = "at", "rank_pct"
"""The steps that are no operator.

An indicator is a column whose period is its operand. `at` gives its operand as it is on the last
complete bar of a longer timeframe. `rank_pct` is a column too, whose name says what is ranked: it
follows from all assets, while all other steps follow from one.
"""
COLUMNS: dict[str, ValueKind] = {
    feature.name: ValueKind.CONDITION if feature.sql_type == "BOOLEAN" else ValueKind.NUMBER
    for feature in FEATURES
}
"""The columns that every panel can have: the features."""
INDICATORS = {"ema": 0, "rsi": 1, "atr": 1}
"""Indicators of any period, and the bars that the first value needs beside the period."""
_NO_ROWS = np.zeros(1, np.int64)  # offsets of a panel without assets


@dataclass(frozen=True)
class Step:
    """One step of a program.

    Attributes:
        operator: its name in `OPERATORS`, or one of the names above.
        operands: the steps that it takes, all before it.
        value: the number of a constant; the name of a parameter, a column, an indicator or a
            timeframe.
    """

    operator: str
    operands: tuple[int, ...] = ()
    value: float | str | None = None


@dataclass(frozen=True)
class Limit:
    """An operand whose value has to be within bounds, and where the text asks for it."""

    step: int
    bounds: Bounds
    name: str
    where: str


class Program:
    """Steps in the order of their computation; equal steps are one.

    Attributes:
        steps: the steps.
        kinds: what each gives.
        is_fixed: whether each is one value for all bars, which follows from the parameters alone.
        limits: what operands that follow from parameters may be.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.kinds: list[ValueKind] = []
        self.is_fixed: list[bool] = []
        self.limits: list[Limit] = []
        self._known: dict[tuple[Step, ValueKind], int] = {}

    def constant(self, value: float) -> int:
        """A step that gives a number."""
        number = float(value) + 0.0  # one zero, without a sign
        return self._add(Step(CONSTANT, (), number), ValueKind.NUMBER, is_fixed=True)

    def parameter(self, name: str, kind: ValueKind) -> int:
        """A step that gives a parameter."""
        return self._add(Step(PARAMETER, (), name), kind, is_fixed=True)

    def column(self, name: str, kind: ValueKind) -> int:
        """A step that gives a column of the panel."""
        return self._add(Step(COLUMN, (), name), kind, is_fixed=False)

    def indicator(self, name: str, period: int) -> int:
        """A step that gives the column of an indicator with a period, such as `ema_21`."""
        return self._add(Step(INDICATOR, (period,), name), ValueKind.NUMBER, is_fixed=False)

    def at(self, timeframe: str, operand: int) -> int:
        """A step that gives another on bars of a longer timeframe."""
        if self.is_fixed[operand]:
            return operand
        return self._add(Step(AT, (operand,), timeframe), self.kinds[operand], is_fixed=False)

    def rank(self, operand: int) -> int:
        """A step that gives the rank of another among all assets at the bar."""
        return self._add(Step(RANK, (operand,)), ValueKind.NUMBER, is_fixed=False)

    def has(self, operator: str, step: int) -> bool:
        """Whether a step has one of this operator somewhere in it."""
        seen, waiting = set(), [step]
        while waiting:
            one = waiting.pop()
            if self.steps[one].operator == operator:
                return True
            if one not in seen:
                seen.add(one)
                waiting += self.steps[one].operands
        return False

    def apply(self, name: str, *operands: int) -> int:
        """A step that applies an operator; of constants, the constant that it gives.

        The kinds of the operands are those that the operator takes.
        """
        operator = OPERATORS[name]
        numbers = [self.number(operand) for operand in operands]
        is_fixed = operator.more_rows is None and all(self.is_fixed[o] for o in operands)
        if operator.gives is ValueKind.NUMBER and is_fixed and None not in numbers:
            with np.errstate(all="ignore"):
                folded = operator.ways[VALUE].compute(_NO_ROWS, *map(np.float64, numbers))
            return self.constant(float(folded))
        return self._add(Step(name, operands), operator.gives, is_fixed=is_fixed)

    def number(self, step: int) -> float | None:
        """The value of a constant; None for any other step."""
        found = self.steps[step]
        return found.value if found.operator == CONSTANT else None  # pyright: ignore[reportReturnType]

    def _add(self, step: Step, kind: ValueKind, *, is_fixed: bool) -> int:
        key = (step, kind)
        if key not in self._known:
            self._known[key] = len(self.steps)
            self.steps.append(step)
            self.kinds.append(kind)
            self.is_fixed.append(is_fixed)
        return self._known[key]

    def digests(self) -> list[str]:
        """A hash of what each step computes, whatever else the program has."""
        found: list[str] = []
        for step in self.steps:
            operands = " ".join(found[operand] for operand in step.operands)
            text = f"{step.operator} {step.value!r} {operands}"
            found.append(hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
        return found
