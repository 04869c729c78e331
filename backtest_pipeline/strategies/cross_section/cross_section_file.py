"""A TOML file to a cross-sectional strategy; docs/cross-section.md lists the keys."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from typing import Any

from backtest_pipeline.market.errors import (
    BacktestError,
    InvalidInput,
    RuleError,
    UnknownName,
)
from backtest_pipeline.strategies.cross_section.definition import KIND, CrossSection
from backtest_pipeline.strategies.rules.declarations import Place, lines_of
from backtest_pipeline.strategies.rules.rule_file import LARGEST_FILE

_KEYS = ("kind", *(field.name for field in fields(CrossSection)))
_TYPES = {"str": str, "int": int, "float": (int, float), "str | int": (str, int), "int | None": int}
_WORDS = {
    "str": "text in quotes",
    "int": "a whole number without quotes",
    "float": "a number without quotes",
    "str | int": "text in quotes or a whole number",
    "int | None": "a whole number without quotes",
}
_SAYS_KIND = re.compile(rb"^\s*kind\s*=", re.MULTILINE)


def is_cross_section(content: bytes) -> bool:
    """Whether a TOML file says that it is a cross-section, also one that cannot be read.

    Rules on single assets have no `kind`, so any kind is meant as that of a cross-section.

    Examples:
        >>> is_cross_section(b'kind = "cross_section"'), is_cross_section(b'name = "dip"')
        (True, False)
        >>> is_cross_section(b'kind = "cross-section"\\nname = ')
        True
    """
    if len(content) > LARGEST_FILE:
        return False
    try:
        return "kind" in tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return _SAYS_KIND.search(content) is not None


def cross_section_from_toml(content: bytes, source: str) -> CrossSection:
    """The cross-section of a file.

    Args:
        content: the file.
        source: its name, for messages.

    Raises:
        RuleError: for a file, key or expression that cannot be read, with its place.

    Examples:
        >>> rule = cross_section_from_toml(b'''
        ... kind = "cross_section"
        ... name = "momentum"
        ... score = "close / shift(close, 90) - 1"
        ... count = 20
        ... ''', "momentum.toml")
        >>> rule.rebalance, rule.weights
        ('weekly', 'equal')
    """
    try:
        text = content.decode("utf-8-sig")
        raw: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RuleError(source, f"this is not TOML: {error}") from None
    place = Place(source, lines_of(text))
    place.require_keys(raw, _KEYS)
    if (kind := raw.pop("kind", None)) != KIND:
        given = "it is left out" if kind is None else f"not {kind!r:.60}"
        raise place.at("kind").error(
            f'a cross-section has kind = "{KIND}", {given}; rules on single assets have no kind'
        )
    for key in ("name", "score"):
        if not isinstance(raw.get(key), str):
            raise place.at(key).error(f"a cross-section needs {key}, text in quotes")
    place.at("name").require_name(raw["name"])
    kinds = {field.name: str(field.type) for field in fields(CrossSection)}
    for key, value in raw.items():
        if isinstance(value, bool) or not isinstance(value, _TYPES[kinds[key]]):  # pyright: ignore[reportArgumentType]
            raise place.at(key).error(f"{value!r:.60} must be {_WORDS[kinds[key]]}")
    try:
        return CrossSection(**raw)
    except RuleError as error:
        raise RuleError(source, str(error)) from None
    except (InvalidInput, UnknownName) as error:
        raise place.at(_key_of(error, raw)).error(str(error)) from None


def _key_of(error: BacktestError, raw: dict[str, Any]) -> str:
    """The key that an error is about, for its line."""
    words = str(error).replace(":", " ").split()
    return next((word for word in words if word in raw), "name")
