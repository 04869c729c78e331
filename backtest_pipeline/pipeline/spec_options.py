"""Specs as flat lists of options, for the command line and Dagster's launchpad.

An option has the name, the default and the description of its field. Nested fields are written as
one line of text: `sizing` as `atr:risk=0.01`, `stops` as `stop_loss=0.05,max_bars=20`, and each
parameter as `fast=12`. Each cost is a separate option.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import Enum
from inspect import get_annotations
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from backtest_pipeline.market.errors import BadRange, InvalidInput
from backtest_pipeline.pipeline.specs import Costs, SpecModel, checked
from backtest_pipeline.trading.sizing import SIZINGS
from backtest_pipeline.trading.stops import DISTANCES

Number = int | float
S = TypeVar("S", bound=SpecModel)

MOST_VALUES = 10_000
_NAMES = {"symbol": "asset", "symbols": "assets", "timeframe": "tf", "params": "param"}
"""Option names of fields, where they differ from the field's name."""
_ALSO = {"max_leverage": "leverage"} | {
    f"{name}_{unit}": name
    for name, unit in (("train", "days"), ("test", "days"), ("step", "days"), ("purge", "bars"))
}
"""Short option names of fields."""


@dataclass(frozen=True)
class Option:
    """A field of a spec as an option of the command line or the launchpad.

    Attributes:
        name: name of the option, an identifier.
        also: a short name, or "".
        kind: `str`, `int`, `float`, `bool`, or `list` (of str).
        default: the default value, None where there is none.
        required: whether it must be given.
        help: description with its unit.
    """

    name: str
    also: str
    kind: type
    default: Any
    required: bool
    help: str


def options_of(kind: type[SpecModel], leave_out: Sequence[str] = ()) -> list[Option]:
    """The options of a spec in field order, except the fields in `leave_out`."""
    options = []
    # A spec's own fields come before inherited ones.
    declared = [name for one in kind.__mro__ for name in get_annotations(one)]
    for name in dict.fromkeys(declared):
        if name in ("kind", *leave_out) or name not in kind.model_fields:
            continue
        field = kind.model_fields[name]
        if name == "costs":
            options += [_option(part, f) for part, f in Costs.model_fields.items()]
        else:
            options.append(_option(name, field))
    return options


def _option(name: str, field: FieldInfo) -> Option:
    text = _TEXTS.get(name)
    default = None if field.is_required() else field.get_default()
    if text is not None:
        told = text.help.replace(_OF_FIELD, field.description or "")
        return Option(
            _NAMES.get(name, name), "", text.kind, text.default, field.is_required(), told
        )
    return Option(
        name=_NAMES.get(name, name),
        also=_ALSO.get(name, ""),
        kind=_kind_of(field.annotation),
        default=default.value if isinstance(default, Enum) else default,
        required=field.is_required(),
        help=field.description or "",
    )


def _kind_of(annotation: Any) -> type:
    """The plain type of an option; for a union, of its first member that is not None."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return _kind_of(next(a for a in get_args(annotation) if a is not NoneType))
    if origin is Literal or annotation in (str, date):
        return str
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return str
    assert annotation in (int, float, bool), annotation  # noqa: S101  (or it belongs in _TEXTS)
    return annotation


def spec_from(kind: type[S], typed: Mapping[str, Any]) -> S:
    """Build a spec from option values; None means not given.

    Raises:
        InvalidInput, UnknownName: naming the invalid option, with the reason.
        BarsError: for a file of funding rates that cannot be read.
    """
    fields = {_NAMES.get(name, name): name for name in kind.model_fields}
    values: dict[str, Any] = {}
    for option, value in typed.items():
        if value is None:
            continue
        if option in Costs.model_fields:
            values.setdefault("costs", {})[option] = value
            continue
        name = fields[option]
        text = _TEXTS.get(name)
        values[name] = value if text is None else text.parsed(value)
        if name in ("start", "end"):
            day_of(value, f"--{name}")
    return checked(kind, values)


def day_of(text: str | None, option: str) -> date | None:
    """The date given to an option, None where it was not given; raises BadRange."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadRange(f"{option}: {text!r} is not a date; write it as 2024-01-31") from None


_OF_FIELD = "{description of the field}"


@dataclass(frozen=True)
class _Text:
    """A field whose option takes text that `parsed` turns into the field's value.

    Attributes:
        help: description with its unit; `_OF_FIELD` in it stands for that of the field.
        parsed: makes the value of the text.
        default: of the option.
        kind: of the option.
    """

    help: str
    parsed: Callable[[Any], Any]
    default: Any = None
    kind: type = str


def _sizing(text: str) -> dict[str, Any] | None:
    if not text.strip():
        return None
    mode, _, values = text.partition(":")
    if mode.strip() == "expression":  # its commas separate no fields
        name, _, value = values.partition("=")
        return {"mode": "expression", name.strip(): value.strip()}
    return {"mode": mode.strip(), **_numbers("sizing", values)}


def _stops(text: str) -> dict[str, Any]:
    """Numbers; of distances their texts, which may be expressions with commas in brackets."""
    parts: list[str] = []
    depth = 0
    for part in text.split(","):
        if depth > 0:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
        depth += part.count("(") - part.count(")")
    pairs: list[tuple[str, Any]] = []
    for part in filter(None, map(str.strip, parts)):
        name, _, value = (piece.strip() for piece in part.partition("="))
        pairs.append((name, value) if name in DISTANCES and value else _pair("stops", part))
    return _each_once("stops", pairs)


def _numbers(what: str, text: str) -> dict[str, Any]:
    """Parse `name=value,...`."""
    return _each_once(what, [_pair(what, part) for part in map(str.strip, text.split(",")) if part])


def _each_once(what: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The values by name; raises InvalidInput for a name with two of them."""
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in given:
            raise InvalidInput(
                f"{what}: {name} is given twice, as {given[name]} and as {value}; leave one out"
            )
        given[name] = value
    return given


def _pair(what: str, text: str) -> tuple[str, Number]:
    name, equals, value = (piece.strip() for piece in text.partition("="))
    if not equals or not name:
        raise InvalidInput(f"{what}: expected name=value, not {text!r}")
    return name, _number(f"{what}: {name}", value)


def _number(name: str, text: str) -> Number:
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise InvalidInput(f"{name} must be a number, not {text!r}") from None


def params_from(given: Sequence[str]) -> dict[str, Any]:
    """Parse parameters: `fast=12` is one value, `fast=5:50:5` and `fast=5,9,15` are several."""
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = (piece.strip() for piece in text.partition("="))
        name = name.replace("-", "_")
        if not equals or not name:
            raise InvalidInput(f"--param: expected name=value such as fast=12, not {text!r}")
        if name in values:
            raise InvalidInput(f"--param {name} is given twice; separate several values by commas")
        numbers = values_of(f"--param {name}", value)
        values[name] = numbers[0] if len(numbers) == 1 else numbers
    return values


def values_of(option: str, text: str) -> list[Number]:
    """The numbers in `9`, `9,21,50`, `5:50` or `5:50:5`; ranges include their end.

    Raises:
        InvalidInput: for any other text, a step not above 0, a range that ends before it begins,
            or more than MOST_VALUES values.

    Examples:
        >>> values_of("--fast", "5:20:5")
        [5, 10, 15, 20]
    """
    return [value for part in text.split(",") for value in _range_of(option, text, part)]


def _range_of(option: str, text: str, part: str) -> list[Number]:
    try:
        bounds = [Decimal(bound) for bound in part.split(":")]
    except InvalidOperation:
        bounds = []
    if not 1 <= len(bounds) <= 3 or not all(bound.is_finite() for bound in bounds):
        raise InvalidInput(
            f"{option}: {text!r} is neither a number nor a range; write 9, or 9,21,50, or 5:50:5 "
            "(from:to:step)"
        )
    first, last = bounds[0], bounds[min(1, len(bounds) - 1)]
    step = bounds[2] if len(bounds) == 3 else Decimal(1)
    if step <= 0 or last < first:
        raise InvalidInput(
            f"{option}: the range {text!r} is empty; write from:to:step with a step above 0"
        )
    n = math.floor((last - first) / step) + 1
    if n > MOST_VALUES:
        raise InvalidInput(
            f"{option}: the range {text!r} has {n:,} values, and at most {MOST_VALUES:,} are "
            "allowed; use a larger step"
        )
    # Decimals, so that 1:3:0.1 contains 1.2 and not 1.2000000000000002.
    values = [first + i * step for i in range(n)]
    whole = all(bound == bound.to_integral_value() for bound in bounds)
    return [int(value) if whole else float(value) for value in values]


def _weights(given: Sequence[str]) -> dict[str, Number] | None:
    return dict(_pair("--weights", text) for text in given) or None


def _dates(given: Sequence[str]) -> list[list[str]]:
    return [text.split(":") for text in given]


def _listed(text: str) -> list[str]:
    return [name for name in map(str.strip, text.split(",")) if name]


def _rates(path: str) -> dict[str, list[tuple[Any, float]]]:
    import pandas as pd

    from backtest_pipeline.sources.funding import read_funding

    return {
        symbol: list(zip(pd.DatetimeIndex(rates.index).to_pydatetime(), rates, strict=True))
        for symbol, rates in read_funding(Path(path)).items()
    }


def _rules(path: str) -> str:
    from backtest_pipeline.strategies.rules.rule_file import LARGEST_FILE

    try:
        with open(path, encoding="utf-8") as file:
            return file.read(LARGEST_FILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, ValueError) else error.strerror
        raise InvalidInput(f"--rules: {path} cannot be read: {reason}") from error


_TEXTS = {
    "sizing": _Text(
        f"position sizing: mode ({', '.join(SIZINGS)}) and its fields, for example "
        "fixed:fraction=0.5, volatility:target=0.2 or atr:risk=0.01,atr_multiple=2; where it is "
        "not given the sizing of the strategy, or all of the equity",
        _sizing,
        "",
    ),
    "stops": _Text(
        "stop rules, separated by commas: stop_loss=, take_profit=, trailing= (fractions), "
        "trailing_atr=, each a number or an expression, as stop_loss=2*atr_14/close; atr_period=, "
        "max_bars=",
        _stops,
        "",
    ),
    "funding": _Text(
        "file of funding rates with columns symbol, ts, rate; replaces the flat rate", _rates
    ),
    "rules": _Text(f"file of {_OF_FIELD}", _rules),
    "params": _Text("strategy parameter, for example fast=12; repeatable", params_from, kind=list),
    "weights": _Text(
        "fixed weight of a symbol instead of a scheme, for example BTC=0.6; repeatable",
        _weights,
        kind=list,
    ),
    "dates": _Text(
        "dates of a fold instead of window lengths: start of training, start and end of the test, "
        "for example 2020-01-01:2021-01-01:2021-04-01; repeatable",
        _dates,
        kind=list,
    ),
    "symbols": _Text("symbols, separated by commas", _listed),
    "timeframes": _Text("timeframes, separated by commas", _listed),
}
