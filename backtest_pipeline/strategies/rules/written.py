"""A step of a program as text again, whatever names its file has for parts and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from backtest_pipeline.market.errors import InvalidInput, RuleError
from backtest_pipeline.strategies.rules.operators import ValueKind
from backtest_pipeline.strategies.rules.program import AT, COLUMN, COLUMNS, INDICATOR, Program
from backtest_pipeline.strategies.rules.syntax import LONGEST_TEXT, tree_of

_TEXTS = {
    "add": "({} + {})",
    "subtract": "({} - {})",
    "multiply": "({} * {})",
    "divide": "({} / {})",
    "negate": "(-{})",
    "less": "({} < {})",
    "less_equal": "({} <= {})",
    "and": "({} and {})",
    "or": "({} or {})",
    "not": "(not {})",
    "if": "({1} if {0} else {2})",
    "if_condition": "({1} if {0} else {2})",
    "shift_condition": "shift({}, {})",
    "std_0": "std({}, {}, ddof=0)",
    "std_1": "std({}, {}, ddof=1)",
}
"""Operators that are not written as a function of their own name."""
_TOO_LONG = "this is too long or too deep with all that [define] names in it; use a part of it"
_LONGEST_NUMBER = -1.7976931348623157e308


def written(
    program: Program,
    step: int,
    fixed: Callable[[int], float | bool | None],
    chosen: Callable[[int], int | None],
) -> str:
    """The text of a step; equal steps have equal texts, and parsing one gives the step.

    Args:
        program, step: what to write.
        fixed: the value of a step that is the same at all bars; None where it is undefined.
        chosen: the branch that an `if` always takes; None where that depends on the bar.

    Raises:
        InvalidInput: for a text that is too long to be read, or a part that is undefined.
    """
    texts: dict[int, str] = {}
    for one in sorted(_needed(program, step, chosen)):
        texts[one] = _text(program, one, fixed, chosen, texts)
        if len(texts[one]) > LONGEST_TEXT:
            raise InvalidInput(_TOO_LONG)
    text = texts[step]
    return text[1:-1] if _has_brackets_around(text) else text


def require_writable(program: Program, step: int) -> None:
    """Raises InvalidInput unless the text of a step can be read, whatever the parameters are."""

    def longest(fixed: int) -> float | bool:
        if program.kinds[fixed] is ValueKind.CONDITION:
            return True
        number = program.number(fixed)
        return _LONGEST_NUMBER if number is None else number

    try:
        tree_of(written(program, step, longest, lambda _: None), "")
    except RuleError:
        raise InvalidInput(_TOO_LONG) from None


def _needed(program: Program, step: int, chosen: Callable[[int], int | None]) -> set[int]:
    found: set[int] = set()
    waiting = [step]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        if not program.is_fixed[one]:
            branch = chosen(one)
            waiting += program.steps[one].operands if branch is None else [branch]
    return found


def _text(
    program: Program,
    step: int,
    fixed: Callable[[int], float | bool | None],
    chosen: Callable[[int], int | None],
    texts: Mapping[int, str],
) -> str:
    found = program.steps[step]
    if program.is_fixed[step]:
        return _value(fixed(step))
    branch = chosen(step)
    if branch is not None:
        return texts[branch]
    operands = [texts[operand] for operand in found.operands]
    if found.operator == COLUMN:
        name = str(found.value)
        is_flag = program.kinds[step] is ValueKind.CONDITION and name not in COLUMNS
        # Read as a number where the text is parsed, as all columns of the user's own are.
        return f"({name} < 0 or 0 < {name})" if is_flag else name
    if found.operator == INDICATOR:
        return f"{found.value}_{operands[0]}"
    if found.operator == AT:
        return f"at('{found.value}', {operands[0]})"
    form = _TEXTS.get(found.operator, f"{found.operator}({', '.join('{}' for _ in operands)})")
    return form.format(*operands)


def _value(value: float | bool | None) -> str:
    if value is None or np.isnan(value):
        raise InvalidInput("a part of this is never defined with these parameters")
    if isinstance(value, bool):
        return "(0 < 1)" if value else "(1 < 0)"
    return f"{value:.0f}" if value % 1 == 0 and abs(value) < 2**53 else repr(value)


def _has_brackets_around(text: str) -> bool:
    """Whether the first bracket closes at the end."""
    if not text.startswith("("):
        return False
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return at == len(text) - 1
    return False
