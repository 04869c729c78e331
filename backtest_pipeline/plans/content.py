"""The base of what plans are made of, and ids that follow from content."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

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


def problems_of(error: ValidationError) -> str:
    """What is wrong with JSON values, field by field, without quoting the values."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) + ': ' if one['loc'] else ''}"
        f"{one['msg'].removeprefix('Value error, ')}"
        for one in error.errors(include_url=False, include_input=False)
    )
