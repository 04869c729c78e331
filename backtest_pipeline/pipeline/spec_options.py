"""Specs as flat lists of options: what command lines and Dagster's launchpad are made of.

An option has the name, the default and the description of its field. What has fields of its own
is one line of text: `sizing` as `atr:risk=0.01`, `stops` as `stop_loss=0.05,max_bars=20`, and
parameters as `fast=12` each. Costs are options of their own.
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

Number = int | float
S = TypeVar("S", bound=SpecModel)

MOST_VALUES = 10_000
_NAMES = {"symbol": "asset", "symbols": "assets", "timeframe": "tf", "params": "param"}
"""What a command line calls a field, where that is not its name."""
_ALSO = {"max_leverage": "leverage"} | {
    f"{name}_{unit}": name
    for name, unit in (("train", "days"), ("test", "days"), ("step", "days"), ("purge", "bars"))
}
"""Shorter spellings of fields."""


@dataclass(frozen=True)
class Option:
    """A field of a spec, as a command line or a launchpad shows it.

    Attributes:
        name: of the option, an identifier.
        also: a second spelling, or "".
        kind: `str`, `int`, `float`, `bool`, or `list` of texts.
        default: None where there is none.
        required: whether it has to be given.
        help: what it is, with its unit.
    """

    name: str
    also: str
    kind: type
    default: Any
    required: bool
    help: str


def options_of(kind: type[SpecModel], leave_out: Sequence[str] = ()) -> list[Option]:
    """The options of a spec, in the order of its fields, without the named fields."""
    found = []
    # A spec's own fields come before those that it shares.
    declared = [name for one in kind.__mro__ for name in get_annotations(one)]
    for name in dict.fromkeys(declared):
        if name in ("kind", *leave_out) or name not in kind.model_fields:
            continue
        field = kind.model_fields[name]
        if name == "costs":
            found += [_option(part, f) for part, f in Costs.model_fields.items()]
        else:
            found.append(_option(name, field))
    return found


def _option(name: str, field: FieldInfo) -> Option:
    text = _TEXTS.get(name)
    default = None if field.is_required() else field.get_default()
    if text is not None:
        return Option(
            _NAMES.get(name, name), "", text.kind, text.default, field.is_required(), text.help
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
    """The plain type that a field's values are typed as; of a union the first that is not None."""
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
    """The spec of what was typed, by option; None is not given.

    Raises:
        InvalidInput, UnknownName: naming the option that makes no sense, and why.
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
    """The day behind an option, None where it was not given; raises BadRange."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadRange(f"{option} {text!r} is not a day; write it as 2024-01-31") from None


@dataclass(frozen=True)
class _Text:
    """A field that is typed as text."""

    help: str
    parsed: Callable[[Any], Any]
    default: Any = None
    kind: type = str


def _sizing(text: str) -> dict[str, Any]:
    mode, _, values = text.partition(":")
    return {"mode": mode.strip(), **_numbers("sizing", values)}


def _stops(text: str) -> dict[str, Any]:
    return _numbers("stops", text)


def _numbers(what: str, text: str) -> dict[str, Any]:
    """The values of `name=value,...`."""
    return dict(_pair(what, part) for part in map(str.strip, text.split(",")) if part)


def _pair(what: str, text: str) -> tuple[str, Number]:
    name, equals, value = (piece.strip() for piece in text.partition("="))
    if not equals or not name:
        raise InvalidInput(f"{what}: write name=value, not {text!r}")
    return name, _number(f"{what}: {name}", value)


def _number(name: str, text: str) -> Number:
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise InvalidInput(f"{name} must be a number, not {text!r}") from None


def _params(given: Sequence[str]) -> dict[str, Any]:
    """`fast=12` is one value, `fast=5:50:5` and `fast=5,9,15` are those to choose from."""
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = (piece.strip() for piece in text.partition("="))
        name = name.replace("-", "_")
        if not equals or not name:
            raise InvalidInput(f"--param: write name=value, for example fast=12, not {text!r}")
        if name in values:
            raise InvalidInput(f"--param {name} is given twice; separate values by commas")
        found = values_of(f"--param {name}", value)
        values[name] = found[0] if len(found) == 1 else found
    return values


def values_of(option: str, text: str) -> list[Number]:
    """The numbers of `9`, `9,21,50`, `5:50` or `5:50:5`; the end of a range belongs to it.

    Raises:
        InvalidInput: for text that is neither, a step that is not above 0, a range that ends
            before it begins, or one of very many values.

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
            f"{option} {text!r} is no range; write 9, or 9,21,50, or 5:50:5 (from, to, step)"
        )
    first, last = bounds[0], bounds[min(1, len(bounds) - 1)]
    step = bounds[2] if len(bounds) == 3 else Decimal(1)
    if step <= 0 or last < first:
        raise InvalidInput(f"{option} {text!r} holds no value; it goes from, to, step above 0")
    n = math.floor((last - first) / step) + 1
    if n > MOST_VALUES:
        raise InvalidInput(f"{option} {text!r} holds {n:,} values; take a larger step")
    # Decimals, so that 1:3:0.1 holds 1.2 and not 1.2000000000000002.
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


_TEXTS = {
    "sizing": _Text(
        f"mode ({', '.join(SIZINGS)}) and its fields: fixed:fraction=0.5, volatility:target=0.2, "
        "atr:risk=0.01,atr_multiple=2",
        _sizing,
        "fixed",
    ),
    "stops": _Text(
        "rules: stop_loss=, take_profit=, trailing= (fractions), trailing_atr=, atr_period=, "
        "max_bars=",
        _stops,
        "",
    ),
    "funding": _Text("file of funding rates (symbol, ts, rate), in place of the flat rate", _rates),
    "params": _Text(
        "parameter of the strategy, for example fast=12; repeatable", _params, kind=list
    ),
    "weights": _Text("in place of a scheme: BTC=0.6, repeatable", _weights, kind=list),
    "dates": _Text(
        "in place of days: a fold's dates, 2020-01-01:2021-01-01:2021-04-01; repeatable",
        _dates,
        kind=list,
    ),
    "symbols": _Text("symbols, separated by commas", _listed),
    "timeframes": _Text("timeframes, separated by commas", _listed),
}
