"""The base of what plans are made of, and ids that follow from content."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.field_problems import field_problems

_DIGEST_BYTES = 8

Percent = Annotated[StrictFloat, Field(gt=0, le=100)]
"""Percent, not a fraction: 2.0 is 2 %."""
Bars = Annotated[StrictInt, Field(ge=0, le=10_000)]
"""A number of bars of the symbol."""
Count = Annotated[StrictInt, Field(ge=0, le=1_000_000)]


class PlanModel(BaseModel):
    """Base of plans and their parts: unknown keys are errors, and so is a number in quotes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def _take(self, name: str, value: object) -> None:
        """Set a field that follows from the others, while the model is made."""
        object.__setattr__(self, name, value)


class StrictPlanModel(PlanModel):
    """The same, for parts whose fields are declared elsewhere without being strict."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


def content_id(prefix: str, content: dict[str, Any]) -> str:
    """An id of content, the same for any order of its keys.

    Args:
        prefix: what it is an id of.
        content: JSON values; what is None or empty counts as left out.

    Examples:
        >>> content_id("t", {"a": 1, "b": None}) == content_id("t", {"a": 1})
        True
    """
    said = {name: value for name, value in content.items() if value not in (None, [], {}, "")}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{prefix}_{digest}"


def require_id(given: str, derived: str, what: str) -> None:
    """Raises ValueError where an id was given that is not the one of the content."""
    if given and given != derived:
        raise ValueError(
            f"the id {given!r:.60} is not that of this {what}, which is {derived}; leave the id "
            "out, it follows from the content"
        )


class _Pairs(dict[str, Any]):
    """A JSON object, with the first key that it has twice."""

    twice: str | None = None


def key_twice(text: str | bytes) -> str | None:
    """The place of a key that a JSON object has twice; None where there is none, or no JSON.

    Examples:
        >>> key_twice('{"triggers": [{"side": "long", "side": "short"}]}')
        'triggers.0.side'
    """

    def pairs(found: list[tuple[str, Any]]) -> _Pairs:
        read = _Pairs(found)
        if len(read) < len(found):
            names = [name for name, _ in found]
            read.twice = next(name for name in names if names.count(name) > 1)
        return read

    try:
        read = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError):  # whoever reads it as a plan says what is wrong
        return None
    todo: list[tuple[str, Any]] = [("", read)]
    while todo:
        place, value = todo.pop()
        if isinstance(value, _Pairs) and value.twice is not None:
            return f"{place}{value.twice}"
        if isinstance(value, dict | list):
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            todo += [(f"{place}{name}.", part) for name, part in parts]
    return None


def unknown_field(what: str, kind: type[BaseModel], error: ValidationError) -> UnknownName | None:
    """The first field that a model does not have, with those that it has; None where there is none.

    Args:
        what: what the model is of.
        kind: the model.
        error: of values that were read as it.
    """
    for one in error.errors(include_url=False, include_input=False):
        if one["type"] == "extra_forbidden":
            *path, name = map(str, one["loc"])
            known = _fields_at(kind, path)
            return UnknownName(f"option of {'.'.join([what, *path])}", name, known)
    return None


def _fields_at(kind: type[BaseModel], path: list[str]) -> list[str]:
    for name in path:
        annotation = kind.model_fields[name].annotation
        kinds = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        kind = next(one for one in kinds if issubclass(one, BaseModel))
    return list(kind.model_fields)


def problems_of(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """What is wrong with JSON values, field by field, without quoting the values.

    Args:
        error: of values that were read as the model.
        model: the model, whose fields are suggested for one that it has not.
    """
    return "; ".join(field_problems(error.errors(include_url=False, include_input=False), model))
