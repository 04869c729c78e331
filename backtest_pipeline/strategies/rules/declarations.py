"""What a file of rules declares: parameters and columns, and where in the file."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from backtest_pipeline.market.errors import RuleError, UnknownName
from backtest_pipeline.market.features.derive import is_derived
from backtest_pipeline.strategies.rules.functions import FUNCTIONS
from backtest_pipeline.strategies.rules.operators import ValueKind
from backtest_pipeline.strategies.rules.program import COLUMNS
from backtest_pipeline.strategies.strategy import Params

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool}
# Keys of a parameter's range to those of pydantic.
_RANGE = {"min": "ge", "max": "le", "above": "gt", "below": "lt"}
_KEYS = ("type", "default", *_RANGE, "grid", "description")
_LARGEST = 2**53  # the largest whole number up to which a float has all
_COLUMN_KINDS = {"number": ValueKind.NUMBER, "flag": ValueKind.CONDITION}


@dataclass(frozen=True)
class Place:
    """A key of a file, for messages.

    Attributes:
        source: the file.
        lines: the line of each key that is written in the usual way.
        keys: the tables that lead to the key, and the key.
    """

    source: str
    lines: Mapping[tuple[str, ...], int]
    keys: tuple[str, ...] = ()

    def at(self, key: str) -> Place:
        """A key below this one."""
        return Place(self.source, self.lines, (*self.keys, key))

    def error(self, reason: str) -> RuleError:
        """An error at this key."""
        return RuleError(str(self), reason)

    def table(self, raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """The table of a key, empty where it is left out; raises RuleError for anything else."""
        value = raw.get(key, {})
        if not isinstance(value, dict):
            raise self.at(key).error(f"this is a table: a line [{key}], and keys below it")
        return value

    def require_keys(self, table: Mapping[str, Any], known: Iterable[str]) -> None:
        """Raises RuleError for a key that a table does not have."""
        for key in table:
            if key not in known:
                raise self.at(key).error(str(UnknownName("key", key[:60], known)))

    def require_name(self, name: str) -> None:
        """Raises RuleError for what cannot be the name of a thing."""
        if not _NAME.fullmatch(name) or keyword.iskeyword(name):
            raise self.error(
                f"{name!r:.60} cannot be a name; it has small letters, digits and _, begins with a "
                "letter, and is no word of the language"
            )

    def __str__(self) -> str:
        line = self.lines.get(self.keys)
        file = self.source if line is None else f"{self.source}:{line}"
        return f"{file}: {'.'.join(self.keys)}" if self.keys else file


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """The line of each table and key of a TOML text that stands at the begin of one.

    Examples:
        >>> lines_of("name = 'a'\\n[params]\\nfast = 9")
        {('name',): 1, ('params',): 2, ('params', 'fast'): 3}
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for n, line in enumerate(text.splitlines(), 1):
        head, equals, _ = line.partition("=")
        if head.strip().startswith("["):
            table = _words(head.strip().strip("[").partition("]")[0])
            found.setdefault(table, n)
        elif equals:
            found.setdefault((*table, *_words(head)), n)
    return found


def _words(dotted: str) -> tuple[str, ...]:
    return tuple(word.strip().strip("\"'") for word in dotted.split("."))


@dataclass(frozen=True)
class Parameter:
    """A parameter of a file of rules.

    Attributes:
        type: `int`, `float` or `bool`.
        default: its value where none is given.
        bounds: its range by the keys `min`, `max`, `above` and `below`.
        grid: values worth exploring.
        description: for people.
    """

    type: str
    default: float | bool
    bounds: Mapping[str, float] = field(default_factory=dict)
    grid: tuple[float, ...] = ()
    description: str = ""

    @property
    def kind(self) -> ValueKind:
        """What it gives in a rule."""
        return ValueKind.CONDITION if self.type == "bool" else ValueKind.NUMBER

    def field(self) -> tuple[type, Any]:
        """Its field of a pydantic model."""
        limits: dict[str, Any] = {_RANGE[key]: value for key, value in self.bounds.items()}
        described = Field(default=self.default, description=self.description or None, **limits)
        return _TYPES[self.type], described

    def said(self) -> list[object]:
        """What of it changes results or what is explored."""
        return [self.type, self.default, dict(self.bounds), list(self.grid)]

    def allows(self, value: float) -> bool:
        """Whether a number is within its range."""
        return self.bounds.get("min", -math.inf) <= value <= self.bounds.get(
            "max", math.inf
        ) and self.bounds.get("above", -math.inf) < value < self.bounds.get("below", math.inf)


def parameters(table: Mapping[str, Any], place: Place) -> dict[str, Parameter]:
    """The parameters of a file; raises RuleError for what cannot be one."""
    found: dict[str, Parameter] = {}
    for name, declared in table.items():
        here = place.at(name)
        require_parameter_name(name, found, here)
        found[name] = _parameter(declared, here)
    return found


def _parameter(declared: Any, place: Place) -> Parameter:
    keys: Mapping[str, Any] = declared if isinstance(declared, dict) else {"default": declared}
    place.require_keys(keys, _KEYS)
    if "default" not in keys:
        raise place.error("a parameter needs a default")
    default = keys["default"]
    of_default = {int: "int", float: "float", bool: "bool"}.get(type(default))
    name = keys.get("type", of_default)
    if name not in _TYPES or of_default is None:
        raise place.error(
            f"a parameter is {', '.join(_TYPES)}; its default may be 14, 0.5 or false, "
            f"not {default!r:.60}"
        )
    if name == "bool":
        if of_default != "bool" or keys.keys() & {*_RANGE, "grid"}:
            raise place.error("a bool has the default true or false, and neither range nor grid")
        return Parameter(name, default, description=str(keys.get("description", "")))
    grid = keys.get("grid", [])
    if not isinstance(grid, list):
        raise place.at("grid").error("this is a list of numbers, as [10, 20, 30]")
    bounds = {key: _number(keys[key], name, place.at(key)) for key in _RANGE if key in keys}
    parameter = Parameter(
        name,
        _number(default, name, place.at("default")),
        bounds,
        tuple(_number(value, name, place.at("grid")) for value in grid),
        str(keys.get("description", "")),
    )
    for key, values in (("default", [parameter.default]), ("grid", parameter.grid)):
        for value in values:
            if not parameter.allows(value):
                raise place.at(key).error(f"{value:g} is out of the parameter's own range")
    return parameter


def _number(value: object, type_name: str, place: Place) -> float:
    """A number of a parameter's type; raises RuleError for anything else."""
    is_number = type(value) is int or type(value) is float
    if not is_number or not abs(value) <= _LARGEST:  # pyright: ignore[reportArgumentType]
        raise place.error(f"{value!r:.60} is no number between -2^53 and 2^53")
    if type_name == "int" and type(value) is not int:
        raise place.error(
            f"{value!r:.60} is not whole; write it without a point, or type = 'float'"
        )
    return _TYPES[type_name](value)


def kinds_of_columns(
    table: Mapping[str, Any], taken: Collection[str], place: Place
) -> dict[str, ValueKind]:
    """What the columns of the user's own are; raises RuleError for what cannot be one."""
    found: dict[str, ValueKind] = {}
    for name, kind in table.items():
        here = place.at(name)
        if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name):
            raise here.error(f"{name!r:.60} cannot be read in a rule; give the column another name")
        _require_new(name, (*taken, *found), here)
        if kind not in _COLUMN_KINDS:
            raise here.error(f"a column is 'number' or 'flag', not {kind!r:.60}")
        found[name] = _COLUMN_KINDS[kind]
    return found


def require_parameter_name(name: str, taken: Collection[str], place: Place) -> None:
    """Raises RuleError unless a name can be given to a new parameter of the file."""
    require_free(name, taken, place)
    if hasattr(Params, name) or name.startswith("model_"):
        raise place.error(f"{name!r:.60} is taken by the program; choose another name")


def require_free(name: str, taken: Collection[str], place: Place) -> None:
    """Raises RuleError unless a name can be given to a new thing of the file."""
    place.require_name(name)
    _require_new(name, taken, place)


def _require_new(name: str, taken: Collection[str], place: Place) -> None:
    if name in COLUMNS or is_derived(name):
        raise place.error(f"{name!r:.60} is a feature already; choose another name")
    if name in FUNCTIONS:
        raise place.error(f"{name!r:.60} is a function; choose another name")
    if name in taken:
        raise place.error(f"{name!r:.60} is the name of another thing in this file")
