"""A rule's text to steps of a program, each node of its tree to what the language has for it."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping

from backtest_pipeline.market.errors import InvalidInput, RuleError, UnknownName
from backtest_pipeline.market.features.derive import is_derived
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.strategies.rules.functions import FUNCTIONS, Function
from backtest_pipeline.strategies.rules.operators import (
    LONGEST_WINDOW,
    OPERATORS,
    Bounds,
    ValueKind,
)
from backtest_pipeline.strategies.rules.program import AT, COLUMNS, INDICATORS, RANK, Limit, Program
from backtest_pipeline.strategies.rules.syntax import tree_of
from backtest_pipeline.strategies.rules.written import require_writable

_PERIOD = Bounds(1, LONGEST_WINDOW)

_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("add", "`+`"),
    ast.Sub: ("subtract", "`-`"),
    ast.Mult: ("multiply", "`*`"),
    ast.Div: ("divide", "`/`"),
}
# An operator of Python to ours, and whether the operands change places.
_COMPARISONS: dict[type[ast.cmpop], tuple[str, bool]] = {
    ast.Lt: ("less", False),
    ast.LtE: ("less_equal", False),
    ast.Gt: ("less", True),
    ast.GtE: ("less_equal", True),
}
_REASONS: dict[type[ast.AST], str] = {
    ast.Pow: "there is no power; write x * x, or sqrt(x)",
    ast.Mod: "there is no remainder",
    ast.FloorDiv: "there is no whole division; write x / y",
    ast.BitAnd: "join conditions by `and`, not by `&`",
    ast.BitOr: "join conditions by `or`, not by `|`",
    ast.Invert: "negate a condition by `not`, not by `~`",
    ast.MatMult: "write at('1W', x) for x on another timeframe",
    ast.Eq: "numbers are compared by < <= > >=; write between(x, lower, upper) for a range",
    ast.NotEq: "numbers are compared by < <= > >=; negate a condition by `not`",
    ast.Attribute: "a name has no dot; columns are written as they are, such as close",
    ast.Subscript: "there are no brackets; shift(x, n) is x of n bars before",
    ast.Lambda: "functions cannot be defined; name an expression in [define]",
    ast.NamedExpr: "nothing is assigned in a rule; name an expression in [define]",
    ast.JoinedStr: "text only names a timeframe, as in at('1W', close)",
}


def parse(program: Program, text: object, names: Mapping[str, int | ValueKind], where: str) -> int:
    """Adds an expression to a program.

    Args:
        program: where its steps go.
        text: the expression.
        names: what names stand for beside the features: steps of the program, or columns of the
            user's own by their kind.
        where: file and key, for messages.

    Returns:
        The step of the program that gives the expression.

    Raises:
        RuleError: with the place in the text.

    Examples:
        >>> program = Program()
        >>> parse(program, "close > ema(21)", {}, "long_entry")
        3
        >>> [step.operator for step in program.steps]
        ['column', 'constant', 'indicator', 'less']
    """
    if not isinstance(text, str):
        raise RuleError(where, f"a rule is text in quotes, not {text!r:.60}")
    return _Compiler(program, text, names, where).step_of(tree_of(text, where))


class _Compiler:
    """One expression; its depth is bounded already, so it can recurse."""

    def __init__(
        self, program: Program, text: str, names: Mapping[str, int | ValueKind], where: str
    ) -> None:
        self._program = program
        self._text = text
        self._names = names
        self._where = where

    def step_of(self, node: ast.expr) -> int:
        """The step that gives a node of the tree."""
        step = self._compiled(node)
        number = self._program.number(step)
        if number is not None and math.isnan(number):
            raise self._error(node, "this is never defined: a division by zero, or the like")
        return step

    def _compiled(self, node: ast.expr) -> int:
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                return self._name(node)
            case ast.UnaryOp():
                return self._unary(node)
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.BoolOp():
                name = "and" if isinstance(node.op, ast.And) else "or"
                parts = [self._condition(value, f"`{name}`") for value in node.values]
                return self._folded(name, parts)
            case ast.IfExp():
                return self._choice(node)
            case ast.Call():
                return self._call(node)
        default = "this is not part of the language; docs/rules.md lists what is"
        raise self._error(node, _REASONS.get(type(node), default))

    def _error(self, node: ast.expr | ast.keyword, reason: str) -> RuleError:
        return RuleError(self._where, reason, self._text, node.col_offset)

    def _number(self, node: ast.expr, user: str) -> int:
        step = self.step_of(node)
        if self._program.kinds[step] is not ValueKind.NUMBER:
            reason = (
                f"{user} takes numbers, and this is a condition; write `1 if ... else 0` to count"
            )
            raise self._error(node, reason)
        return step

    def _condition(self, node: ast.expr, user: str) -> int:
        step = self.step_of(node)
        if self._program.kinds[step] is not ValueKind.CONDITION:
            reason = f"{user} takes conditions, and this is a number; compare it, as in close > 0"
            raise self._error(node, reason)
        return step

    def _folded(self, operator: str, steps: list[int]) -> int:
        step, *others = steps
        for other in others:
            step = self._program.apply(operator, step, other)
        return step

    def _constant(self, node: ast.Constant) -> int:
        value = node.value
        if type(value) is str:
            reason = (
                f"{value!r:.60} is text, and text only names a timeframe, as in at('1W', close)"
            )
            raise self._error(node, reason)
        if type(value) is bool:
            raise self._error(node, f"{value} is no number; leave a rule out to turn it off")
        if type(value) is not int and type(value) is not float:
            raise self._error(node, f"{node.value!r:.60} is no number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._error(node, "the number is too large")
        return self._program.constant(number)

    def _name(self, node: ast.Name) -> int:
        name = node.id
        if name in self._names:
            found = self._names[name]
            return found if isinstance(found, int) else self._program.column(name, found)
        if name in COLUMNS:
            return self._program.column(name, COLUMNS[name])
        if is_derived(name):
            kind, _, period = name.partition("_")
            return self._indicator(node, kind, self._program.constant(float(period)))
        if name in FUNCTIONS:
            raise self._error(node, f"{name} is a function; write {FUNCTIONS[name].signature}")
        known = (*COLUMNS, *self._names, *FUNCTIONS)
        hint = str(UnknownName("column or parameter", name[:60], known))
        own = "" if "did you mean" in hint else "; name columns of your own in [columns]"
        raise self._error(node, hint.partition("; known")[0] + own)

    def _indicator(self, node: ast.expr, name: str, period: int) -> int:
        self._limit(node, period, _PERIOD, f"the period of {name}")
        return self._program.indicator(name, period)

    def _limit(self, node: ast.expr, step: int, bounds: Bounds, name: str) -> None:
        """Notes what a step may be; one that is a constant has to be it now."""
        if not self._program.is_fixed[step]:
            reason = f"{name} must be one number for all bars; use constants and parameters alone"
            raise self._error(node, reason)
        number = self._program.number(step)
        if number is None:
            self._program.limits.append(Limit(step, bounds, name, self._where))
        elif reason := bounds.problem(name, number):
            raise self._error(node, reason)

    def _refused(self, node: ast.expr, operator: ast.AST) -> RuleError:
        return self._error(node, _REASONS.get(type(operator), "there is no such operator"))

    def _unary(self, node: ast.UnaryOp) -> int:
        match node.op:
            case ast.USub():
                return self._program.apply("negate", self._number(node.operand, "`-`"))
            case ast.UAdd():
                return self._number(node.operand, "`+`")
            case ast.Not():
                return self._program.apply("not", self._condition(node.operand, "`not`"))
        raise self._refused(node, node.op)

    def _arithmetic(self, node: ast.BinOp) -> int:
        if type(node.op) not in _ARITHMETIC:
            raise self._refused(node, node.op)
        operator, sign = _ARITHMETIC[type(node.op)]
        left, right = self._number(node.left, sign), self._number(node.right, sign)
        if operator == "divide" and self._program.number(right) == 0:
            raise self._error(node, "this is never defined: a division by zero")
        return self._program.apply(operator, left, right)

    def _comparison(self, node: ast.Compare) -> int:
        for op in node.ops:
            if type(op) not in _COMPARISONS:
                raise self._refused(node, op)
        parts = [self._number(part, "a comparison") for part in (node.left, *node.comparators)]
        found = []
        for op, left, right in zip(node.ops, parts, parts[1:], strict=False):
            name, exchanged = _COMPARISONS[type(op)]
            operands = (right, left) if exchanged else (left, right)
            found.append(self._program.apply(name, *operands))
        return self._folded("and", found)

    def _choice(self, node: ast.IfExp) -> int:
        condition = self._condition(node.test, "`if`")
        true, false = self.step_of(node.body), self.step_of(node.orelse)
        if self._program.kinds[true] is not self._program.kinds[false]:
            raise self._error(node, "`if` and `else` give a number here and a condition there")
        is_number = self._program.kinds[true] is ValueKind.NUMBER
        return self._program.apply("if" if is_number else "if_condition", condition, true, false)

    def _call(self, node: ast.Call) -> int:
        if not isinstance(node.func, ast.Name):
            self.step_of(node.func)
            raise self._error(node, "only a function is followed by brackets")
        name = node.func.id
        if name not in FUNCTIONS:
            known = (*FUNCTIONS, *COLUMNS, *self._names)
            if name in known:
                raise self._error(node, f"{name} is no function; write it without brackets")
            raise self._error(node, str(UnknownName("function", name[:60], FUNCTIONS)))
        function = FUNCTIONS[name]
        least, most = function.arguments
        if not least <= len(node.args) <= most:
            raise self._error(node, f"{name} is written {function.signature}")
        options = self._options(node, name, function)
        if name == "at":
            step = self._at(node)
        elif name == RANK:
            step = self._rank(node.args[0])
        else:
            step = self._applied(node, name, options)
        return (
            self._program.apply("shift", step, self._program.constant(1))
            if options.get("prior")
            else step
        )

    def _options(self, node: ast.Call, name: str, function: Function) -> dict[str, bool | int]:
        found: dict[str, bool | int] = {}
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg not in function.options:
                raise self._error(keyword, f"{name} is written {function.signature}")
            allowed = function.options[keyword.arg]
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if not any(value is one for one in allowed):
                choices = " or ".join(map(str, allowed))
                raise self._error(keyword, f"{keyword.arg} must be {choices}")
            found[keyword.arg] = value  # pyright: ignore[reportArgumentType]
        if name == "std" and "ddof" not in found:
            reason = "std needs ddof: 0 for the bars themselves, 1 for a sample of more"
            raise self._error(node, reason)
        return found

    def _at(self, node: ast.Call) -> int:
        """An expression on the bars of a longer timeframe."""
        first, inner = node.args
        if not isinstance(first, ast.Constant) or type(first.value) is not str:
            raise self._error(first, "at() takes a timeframe in quotes first, as in at('1W', x)")
        try:
            longer = timeframe(first.value[:60]).name
        except UnknownName as error:
            raise self._error(first, str(error)) from None
        step = self.step_of(inner)
        if self._program.has(AT, step):
            raise self._error(inner, "at() inside of at(); name one timeframe for an expression")
        if self._program.has(RANK, step):
            reason = "rank_pct() inside of at(); write rank_pct(at(...)), of the values known then"
            raise self._error(inner, reason)
        return self._program.at(longer, step)

    def _rank(self, inner: ast.expr) -> int:
        """An expression ranked among all assets."""
        step = self._number(inner, "rank_pct()")
        if self._program.is_fixed[step]:
            raise self._error(inner, "this is the same for all assets, so that it has no rank")
        if self._program.has(RANK, step):
            raise self._error(inner, "rank_pct() inside of rank_pct(); rank one expression")
        try:
            require_writable(self._program, step)
        except InvalidInput as error:
            raise self._error(inner, str(error)) from None
        return self._program.rank(step)

    def _applied(self, node: ast.Call, name: str, options: Mapping[str, bool | int]) -> int:
        """The step of a function, without what `prior` says."""
        arguments = node.args
        user = f"{name}()"
        if name in INDICATORS and len(arguments) == 1:
            return self._indicator(arguments[0], name, self._number(arguments[0], user))
        if name == "shift":
            step = self.step_of(arguments[0])
            is_number = self._program.kinds[step] is ValueKind.NUMBER
            operator = "shift" if is_number else "shift_condition"
            steps = [step, self._number(arguments[1], user)]
        else:
            operator = f"std_{options['ddof']}" if name == "std" else name
            steps = [self._number(argument, user) for argument in arguments]
        if name in ("min", "max"):
            return self._folded(name, steps)
        if name == "between":
            x, low, high = steps
            inside = [
                self._program.apply("less_equal", low, x),
                self._program.apply("less_equal", x, high),
            ]
            return self._folded("and", inside)
        if name == "crosses_below":
            return self._program.apply("crosses_above", *reversed(steps))
        for place, bounds in OPERATORS[operator].bounds.items():
            self._limit(
                arguments[place], steps[place], bounds, f"{'q' if place == 2 else 'n'} of {user}"
            )
        return self._program.apply(operator, *steps)
