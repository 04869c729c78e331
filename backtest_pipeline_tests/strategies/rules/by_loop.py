"""The rule language once more: bar by bar in plain Python, from its description alone.

A value is a float or bool, and None where it is undefined. Random expressions are drawn here too.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.timeframes import DAY_US, timeframe
from backtest_pipeline.strategies.rules.evaluation import Settled
from backtest_pipeline.strategies.rules.operators import FALSE, TRUE, VALUE, ValueKind
from backtest_pipeline.strategies.rules.parser import parse
from backtest_pipeline.strategies.rules.program import Program

Column = list[Any]
NAN = float("nan")


def panel_of(*assets: Mapping[str, list[Any]]) -> Panel:
    """A daily panel from the columns of each asset."""
    lengths = [len(next(iter(columns.values()))) for columns in assets]
    ts = [DAY_US * np.arange(1, n + 1) for n in lengths]
    return Panel(
        timeframe("1D"),
        tuple(f"A{i}" for i in range(len(assets))),
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        np.concatenate(ts).astype(np.int64),
        {
            name: np.concatenate(
                [np.asarray(c[name], bool if name.startswith("has") else float) for c in assets]
            )
            for name in assets[0]
        },
    )


def computed(
    text: str, panel: Panel, names: Mapping[str, ValueKind] | None = None, **params: Any
) -> Column:
    """What the package computes of an expression, in the values of this module."""
    program = Program()
    given: dict[str, int | ValueKind] = dict(names or {})
    for name, value in params.items():
        kind = ValueKind.CONDITION if isinstance(value, bool) else ValueKind.NUMBER
        given[name] = program.parameter(name, kind)
    step = parse(program, text, given, "rule")
    settled = Settled(program, params)
    if program.kinds[step] is ValueKind.NUMBER:
        (values,) = settled.computed(panel, [(step, VALUE)])
        return [None if math.isnan(x) else x for x in values.tolist()]
    true, false = settled.computed(panel, [(step, TRUE), (step, FALSE)])
    assert not (true & false).any()
    return [True if t else False if f else None for t, f in zip(true, false, strict=True)]


def by_loop(text: str, columns: Mapping[str, Column]) -> Column:
    """The expression on the bars of one asset; numbers of columns are None where unknown."""
    n_bars = len(next(iter(columns.values())))
    return _value(ast.parse(text, mode="eval").body, columns, n_bars) if n_bars else []


def _value(node: ast.expr, columns: Mapping[str, Column], n_bars: int) -> Column:
    def of(inner: ast.expr) -> Column:
        return _value(inner, columns, n_bars)

    match node:
        case ast.Constant(value=value):
            return [float(value)] * n_bars  # pyright: ignore[reportArgumentType]
        case ast.Name(id=name):
            return columns[name]
        case ast.UnaryOp(op=op, operand=x):
            is_not = isinstance(op, ast.Not)
            return [None if a is None else not a if is_not else -a for a in of(x)]
        case ast.BinOp(left=x, op=op, right=y):
            return [_arithmetic(op, a, b) for a, b in zip(of(x), of(y), strict=True)]
        case ast.Compare(left=x, ops=ops, comparators=others):
            parts = [of(part) for part in (x, *others)]
            return [_chain(ops, values) for values in zip(*parts, strict=True)]
        case ast.BoolOp(op=op, values=values):
            decides = isinstance(op, ast.Or)
            joined = zip(*map(of, values), strict=True)
            return [decides if decides in v else None if None in v else not decides for v in joined]
        case ast.IfExp(test=test, body=x, orelse=y):
            rows = zip(of(test), of(x), of(y), strict=True)
            return [None if c is None else a if c else b for c, a, b in rows]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            options = {k.arg: k.value.value for k in keywords}  # pyright: ignore[reportAttributeAccessIssue]
            found = _call(name, [of(arg) for arg in args], options.get("ddof"))
            return [None, *found][:n_bars] if options.get("prior") else found
    raise AssertionError(ast.dump(node))


def _arithmetic(op: ast.operator, a: float | None, b: float | None) -> float | None:
    if a is None or b is None or (isinstance(op, ast.Div) and b == 0):
        return None
    ways: dict[type[ast.operator], Callable[[float, float], float]] = {
        ast.Add: lambda a, b: a + b,
        ast.Sub: lambda a, b: a - b,
        ast.Mult: lambda a, b: a * b,
        ast.Div: lambda a, b: a / b,
    }
    return ways[type(op)](a, b)


def _chain(ops: list[ast.cmpop], values: tuple[Any, ...]) -> bool | None:
    found = []
    for op, a, b in zip(ops, values, values[1:], strict=False):
        if a is None or b is None:
            found.append(None)
        else:
            ways = {ast.Lt: a < b, ast.LtE: a <= b, ast.Gt: a > b, ast.GtE: a >= b}
            found.append(ways[type(op)])
    return False if False in found else None if None in found else True


def _call(name: str, args: list[Column], ddof: int | None) -> Column:
    rows = range(len(args[0]))
    match name:
        case "crosses_above" | "crosses_below":
            x, y = args if name == "crosses_above" else args[::-1]
            return [None, *(_crossed(x[t - 1 : t + 1], y[t - 1 : t + 1]) for t in rows[1:])]
        case "between":
            return [
                _chain([ast.LtE(), ast.LtE()], (args[1][t], args[0][t], args[2][t])) for t in rows
            ]
        case "shift":
            n = int(args[1][0])
            return [args[0][t - n] if t >= n else None for t in rows]
        case "ema" | "wilder":
            n = int(args[1][0])
            return _smoothed(args[0], n, 2 / (n + 1) if name == "ema" else 1 / n)
        case "abs" | "sqrt" | "log" | "min" | "max":
            return [_pointwise(name, values) for values in zip(*args, strict=True)]
    n = int(args[1][0])
    share = args[2][0] if name == "quantile" else None
    return [
        _window(name, args[0][t - n + 1 : t + 1], ddof, share) if t >= n - 1 else None for t in rows
    ]


def _crossed(x: Column, y: Column) -> bool | None:
    if None in x or None in y:
        return None
    return x[1] > y[1] and x[0] <= y[0]


def _pointwise(name: str, values: tuple[float | None, ...]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    if known[0] < {"sqrt": 0, "log": math.ulp(0.0)}.get(name, -math.inf):
        return None
    ways: dict[str, Callable[..., Any]] = {
        "abs": abs,
        "sqrt": math.sqrt,
        "log": math.log,
        "min": min,
        "max": max,
    }
    return ways[name](*known)


def _window(name: str, values: Column, ddof: int | None, share: float | None) -> float | None:
    if None in values:
        return None
    if name == "std":
        return float(np.std(values, ddof=ddof or 0))
    if name == "quantile":
        return float(np.quantile(values, share or 0.0))
    ways: dict[str, Callable[[Column], float]] = {
        "highest": max,
        "lowest": min,
        "mean": lambda values: sum(values) / len(values),
        "sum": sum,
    }
    return ways[name](values)


def _smoothed(x: Column, n: int, weight: float) -> Column:
    found: Column = []
    known: list[float] = []
    level = 0.0
    for value in x:
        if value is None:
            known = []
            found.append(None)
            continue
        known.append(value)
        if len(known) <= n:
            level = sum(known) / len(known)
        else:
            level += (value - level) * weight
        found.append(level if len(known) >= n else None)
    return found


COLUMNS = ("open", "close", "volume")
_windows = st.integers(1, 5)


def _called(name: str, x: st.SearchStrategy[str], *more: Any) -> st.SearchStrategy[str]:
    return st.tuples(x, *more).map(lambda parts: f"{name}({', '.join(map(str, parts))})")


def _exact(x: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Numbers that are computed without rounding where the columns are whole."""
    prior = st.sampled_from(("prior=False", "prior=True"))
    return st.one_of(
        st.tuples(x, st.sampled_from("+-*"), x).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        x.map(lambda text: f"(-{text})"),
        _called("abs", x),
        _called("min", x, x, x),
        _called("max", x, x),
        _called("shift", x, st.integers(0, 4)),
        *(_called(name, x, _windows, prior) for name in ("highest", "lowest", "sum")),
    )


exact_numbers: st.SearchStrategy[str] = st.recursive(
    st.sampled_from((*COLUMNS, "2", "7")), _exact, max_leaves=4
)
_comparisons = st.one_of(
    st.tuples(exact_numbers, st.sampled_from(("<", "<=", ">", ">=")), exact_numbers).map(" ".join),
    st.tuples(exact_numbers, exact_numbers, exact_numbers).map(
        lambda t: f"{t[0]} < {t[1]} <= {t[2]}"
    ),
    _called("crosses_above", exact_numbers, exact_numbers),
    _called("crosses_below", exact_numbers, exact_numbers),
    _called("between", exact_numbers, exact_numbers, exact_numbers),
).map(lambda text: f"({text})")
conditions: st.SearchStrategy[str] = st.recursive(
    _comparisons | st.just("has_outlier"),
    lambda a: st.one_of(
        st.tuples(a, st.sampled_from(("and", "or")), a).map(lambda t: f"({' '.join(t)})"),
        a.map(lambda text: f"(not {text})"),
        _called("shift", a, st.integers(0, 3)),
        st.tuples(a, a, a).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
    ),
    max_leaves=4,
)
_prior = st.sampled_from(("prior=False", "prior=True"))
numbers: st.SearchStrategy[str] = st.one_of(
    exact_numbers,
    st.tuples(exact_numbers, exact_numbers).map(lambda t: f"({t[0]} / ({t[1]} + open))"),
    _called("sqrt", exact_numbers.map(lambda text: f"{text} - open")),
    _called("log", exact_numbers.map(lambda text: f"{text} + open")),
    _called("mean", exact_numbers, _windows, _prior),
    _called("std", exact_numbers, st.integers(2, 5), st.sampled_from(("ddof=0", "ddof=1")), _prior),
    _called("quantile", exact_numbers, _windows, st.sampled_from(("0", "0.2", "0.5", "1")), _prior),
    _called("ema", exact_numbers, _windows),
    _called("wilder", exact_numbers, _windows),
    st.tuples(exact_numbers, conditions, exact_numbers).map(
        lambda t: f"({t[0]} if {t[1]} else {t[2]})"
    ),
)
"""Texts of numbers, and of conditions, whose comparisons do not depend on rounding."""

_whole = st.one_of(st.none(), st.integers(-3, 6).map(float))


@st.composite
def columns(draw: st.DrawFn, least: int = 0, most: int = 25) -> dict[str, Column]:
    """The columns of an asset: small whole numbers, some unknown, and a flag."""
    n = draw(st.integers(least, most))
    lists = st.lists(_whole, min_size=n, max_size=n)
    flags = st.lists(st.booleans(), min_size=n, max_size=n)
    return {**{name: draw(lists) for name in COLUMNS}, "has_outlier": draw(flags)}


def rows_of(values: Mapping[str, Column]) -> dict[str, Column]:
    """The columns as a panel has them: NaN where unknown."""
    return {name: [NAN if v is None else v for v in column] for name, column in values.items()}
