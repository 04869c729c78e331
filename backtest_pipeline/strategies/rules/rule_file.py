"""A TOML file of rules to a `Strategy`.

The keys are listed in docs/rules.md. Everything is checked when the file is read: keys, types,
texts, and that the defaults are allowed.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError, create_model, model_validator

from backtest_pipeline.market.errors import RuleError
from backtest_pipeline.market.field_problems import field_problem
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategies.rules.account_rules import AccountRules
from backtest_pipeline.strategies.rules.declarations import (
    Parameter,
    Place,
    kinds_of_columns,
    lines_of,
    parameters,
    require_free,
    require_parameter_name,
)
from backtest_pipeline.strategies.rules.evaluation import Settled, Wanted
from backtest_pipeline.strategies.rules.operators import TRUE, ValueKind
from backtest_pipeline.strategies.rules.parser import parse
from backtest_pipeline.strategies.rules.program import Program
from backtest_pipeline.strategies.strategy import DeclaredColumn, Params, Strategy
from backtest_pipeline.trading.conditions import Conditions

RULES_VERSION = 1
"""Raise it when the same rules give other conditions."""
LARGEST_FILE = 100_000
"""Bytes of a file of rules."""
RULES = ("long_entry", "long_exit", "short_entry", "short_exit")
KEYS = (
    *("name", "description", *RULES, "require", "cooldown"),
    *("params", "columns", "define", "stops", "sizing", "variants", "presets"),
)
_FILTERS = {"entry": RULES[0:3:2], "long_entry": ("long_entry",), "short_entry": ("short_entry",)}
"""The rules that each filter of a variant is joined to."""
_DIGEST_BYTES = 8
_MOST_BITS = 63


def from_toml(content: bytes, source: str) -> Strategy[Any]:
    """The strategy of a file of rules.

    Args:
        content: the file.
        source: its name, for messages.

    Raises:
        RuleError: for a file, key or rule that cannot be read, with its place.

    Examples:
        >>> strategy = from_toml(b'''
        ... name = "dip"
        ... long_entry = "rsi_14 < oversold"
        ... long_exit = "rsi_14 > 50"
        ... [params]
        ... oversold = 30
        ... ''', "dip.toml")
        >>> strategy.columns(strategy.parse({}))
        ('rsi_14',)
    """
    return _RuleFile(content, source).strategy()


def rule_hash(content: bytes, source: str) -> str:
    """Hash of what a file of rules says, 16 hex digits, the same on every Python.

    Comments, spacing, brackets, the description, and names of expressions in `[define]` are left
    out; so is an expression that no rule reads.

    Raises:
        RuleError: as `from_toml`.

    Examples:
        >>> one = rule_hash(b'name = "up"\\nlong_entry = "close>ema_21"', "up.toml")
        >>> one == rule_hash(b'long_entry = "(close > ema_21)"\\nname = "up" # mine', "up.toml")
        True
    """
    return _RuleFile(content, source).hash()


class _RuleFile:
    """What a file of rules says."""

    def __init__(self, content: bytes, source: str) -> None:
        text = _decoded(content, source)
        self._place = Place(source, lines_of(text))
        raw = _parsed(text, self._place)
        self._place.require_keys(raw, KEYS)
        self.name = self._text(raw, "name")
        self._description = self._text(raw, "description") if "description" in raw else ""
        self._program = Program()
        self._params = self._parameters(raw)
        self._names: dict[str, int | ValueKind] = {
            name: self._program.parameter(name, parameter.kind)
            for name, parameter in self._params.items()
        }
        self._columns = kinds_of_columns(
            self._place.table(raw, "columns"), self._params, self._place.at("columns")
        )
        self._names |= self._columns
        for name, expression in self._place.table(raw, "define").items():
            place = self._place.at("define").at(name)
            require_free(name, self._names, place)
            self._names[name] = parse(self._program, expression, self._names, str(place))
        self._roots = self._rules(raw)
        self._require = self._requirements(raw)
        self._account = AccountRules(raw, self._program, self._names, self._place)
        self._params_type = self._model()
        self._presets = self._place.table(raw, "presets")
        for name in self._presets:
            self._place.table(self._presets, name)

    def strategy(self) -> Strategy[Any]:
        """The strategy that it says."""
        wanted: list[Wanted] = [(step, TRUE) for step in self._roots.values()]
        read, account = [*wanted, *self._account.wanted], self._account

        def conditions(panel: Panel, params: Params) -> Conditions:
            return Conditions(*self._settled(params).computed(panel, wanted))

        return Strategy(
            name=self.name,
            params_type=self._params_type,
            columns=lambda params: self._settled(params).columns(read),
            conditions=conditions,
            stops=lambda params: account.stops(self._settled(params)),
            cooldown=lambda params: account.cooldown(self._settled(params)),
            sizing=(lambda params: account.sizing(self._settled(params)))
            if account.has_sizing
            else None,
            grid={name: p.grid for name, p in self._params.items() if p.grid},
            presets=self._presets,
            lookback=lambda params: self._settled(params).lookback(read),
            description=self._description,
            declared={
                name: DeclaredColumn(
                    str(self._place.at("columns").at(name)), kind is ValueKind.CONDITION
                )
                for name, kind in self._columns.items()
            },
        )

    def hash(self) -> str:
        """Hash of all that changes what is computed."""
        digests = self._program.digests()
        said = {
            "language": RULES_VERSION,
            "name": self.name,
            "params": [[name, p.said()] for name, p in self._params.items()],
            "columns": {name: kind.value for name, kind in self._columns.items()},
            "rules": {name: digests[step] for name, step in self._roots.items()},
            "require": [digests[step] for _, step in self._require],
            **self._account.said(digests),
        }
        text = json.dumps(said, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()

    def _settled(self, params: Params) -> Settled:
        return Settled(self._program, params.model_dump())

    def _text(self, raw: Mapping[str, Any], key: str) -> str:
        place = self._place.at(key)
        value = raw.get(key)
        if not isinstance(value, str) or not value.strip():
            raise place.error(f"a file of rules needs {key}, text in quotes")
        if key == "name":
            place.require_name(value)
        return value

    def _parameters(self, raw: Mapping[str, Any]) -> dict[str, Parameter]:
        """The parameters, and one for each variant, which turns it on."""
        found = parameters(self._place.table(raw, "params"), self._place.at("params"))
        for name, filters in self._place.table(raw, "variants").items():
            place = self._place.at("variants").at(name)
            require_parameter_name(name, found, place)
            if not isinstance(filters, dict):
                raise place.error(f"a variant is a table; write one of {', '.join(_FILTERS)} in it")
            place.require_keys(filters, (*_FILTERS, "description"))
            found[name] = Parameter("bool", False, description=str(filters.get("description", "")))
        return found

    def _condition(self, text: object, place: Place) -> int:
        step = parse(self._program, text, self._names, str(place))
        if self._program.kinds[step] is not ValueKind.CONDITION:
            raise place.error("this is a number and must be a condition, such as close > ema_50")
        return step

    def _rules(self, raw: Mapping[str, Any]) -> dict[str, int]:
        """The step of each rule, with the filters that the variants' parameters turn on."""
        program = self._program
        if "long_entry" not in raw and "short_entry" not in raw:
            raise self._place.error("there is no entry; write long_entry or short_entry")
        never = program.apply("less", program.constant(1), program.constant(0))
        found = {
            rule: self._condition(raw[rule], self._place.at(rule)) if rule in raw else never
            for rule in RULES
        }
        for name, filters in self._place.table(raw, "variants").items():
            place = self._place.at("variants").at(name)
            is_on = program.parameter(name, ValueKind.CONDITION)
            for key, rules in _FILTERS.items():
                if key not in filters:
                    continue
                step = self._condition(filters[key], place.at(key))
                for rule in rules:
                    both = program.apply("and", found[rule], step)
                    found[rule] = program.apply("if_condition", is_on, both, found[rule])
        return found

    def _requirements(self, raw: Mapping[str, Any]) -> list[tuple[str, int]]:
        place = self._place.at("require")
        texts = raw.get("require", [])
        if not isinstance(texts, list):
            raise place.error('this is a list of conditions on parameters, as ["fast < slow"]')
        found = []
        for text in texts:
            step = self._condition(text, place)
            if not self._program.is_fixed[step]:
                raise place.error(f"{text!r:.60} reads a column; it is about parameters alone")
            found.append((text, step))
        return found

    def _model(self) -> type[Params]:
        """The class of the parameters, which checks all that follows from them."""

        def check(params: Params) -> Params:
            settled = self._settled(params)
            problem = (
                settled.problem(self._program.limits)
                or self._broken(settled, params)
                or self._account.problem(settled)
            )
            if problem:
                raise ValueError(problem)
            return params

        declared: dict[str, Any] = {name: p.field() for name, p in self._params.items()}
        validators: dict[str, Any] = {"check": model_validator(mode="after")(check)}
        model = create_model(
            "".join(word.capitalize() for word in self.name.split("_")),
            __base__=Params,
            __validators__=validators,
            **declared,
        )
        try:
            model()
        except ValidationError as error:
            first = error.errors()[0]
            place = self._place.at("params")
            for name in first["loc"]:
                place = place.at(str(name))
            raise place.error(f"the defaults are not allowed: {field_problem(first)}") from None
        return model

    def _broken(self, settled: Settled, params: Params) -> str | None:
        """The first requirement that does not hold; None if all do."""
        for text, step in self._require:
            if settled.condition(step) is not True:
                given = ", ".join(f"{name} {value}" for name, value in params if name in text)
                return f"{text} is required, and does not hold for {given}"
        return None


def _decoded(content: bytes, source: str) -> str:
    if len(content) > LARGEST_FILE:
        raise RuleError(
            source, f"{len(content):,} bytes are more than a file of rules has ({LARGEST_FILE:,})"
        )
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise RuleError(
            source, f"byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None


def _parsed(text: str, place: Place) -> Mapping[str, Any]:
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise place.error("this is nested too deeply for TOML") from None
    except ValueError as error:
        raise place.error(f"this is not TOML: {error}") from None
    waiting: list[Any] = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise place.error(
                f"a whole number of {value.bit_length():,} bits is too large for TOML"
            )
    return found
