"""What is wrong with a field, in plain words, wherever pydantic checks it.

The command line, HTTP, settings, rules, parameters and plans say the same of the same fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PLAIN = r"^[^\x00-\x1f\x7f]*$"
"""Text that every store and terminal takes: no NUL, no other control character."""
PLAIN_NAME = r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$"
"""The same, and no blanks around it."""
LOWER_NAME = r"^[a-z0-9][a-z0-9_.\-]*$"

_PATTERNS = {
    PLAIN: "must have no line breaks and no other control characters",
    PLAIN_NAME: "must have no blanks around it, and no control characters",
    LOWER_NAME: "must have small letters, digits, `_`, `.` and `-` alone, a letter or digit first",
}
_NUMBER, _WHOLE, _TEXT = "must be a number", "must be a whole number", "must be text"
_DATE, _STAMP = "must be a date such as 2024-01-31", "must be a time such as 2024-01-31T23:59:59Z"
_LIST, _FIELDS = "must be a list", "must be fields with their values"
_SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "is no field here; leave it out",
    "none_required": "must be null",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": "must be a smaller number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "string_type": _TEXT,
    "string_unicode": "must be text in UTF-8",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "union_tag_invalid": "must have {discriminator} {expected_tags}, not '{tag}'",
    "union_tag_not_found": "must have {discriminator}",
    "too_short": "must have at least {min_length} values",
    "too_long": "must have at most {max_length} values",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _FIELDS,
    "model_type": _FIELDS,
    "model_attributes_type": _FIELDS,
    "uuid_type": "must be an id of 32 hex digits",
    "uuid_parsing": "must be an id of 32 hex digits",
    "date_type": _DATE,
    "date_parsing": _DATE,
    "date_from_datetime_parsing": _DATE,
    "date_from_datetime_inexact": "must be a date without a time",
    "datetime_type": _STAMP,
    "datetime_parsing": _STAMP,
    "datetime_from_date_parsing": _STAMP,
    "timezone_aware": "must have a time zone, such as Z for UTC",
}
_BRANCHES = {"float", "int", "bool", "str", "none", "constrained-str"}
"""How pydantic names the kinds that a field may be of, in the place of a fault; others have `[`."""


def field_problem(part: Mapping[str, Any]) -> str:
    """What is wrong with one field, to be read after its name.

    Args:
        part: one of `errors()` of pydantic's ValidationError.

    Examples:
        >>> field_problem({"type": "greater_than", "ctx": {"gt": 0}, "msg": ""})
        'must be above 0'
    """
    given = {name: _whole_if(value) for name, value in part.get("ctx", {}).items()}
    if part["type"] == "string_pattern_mismatch":
        return _PATTERNS.get(str(given["pattern"]), f"must match {given['pattern']}")
    if part["type"] in _SENTENCES:
        return _SENTENCES[part["type"]].format_map(given)
    message = str(part["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "must be").replace("String should", "must")


def either(sentences: Sequence[str]) -> str:
    """The sentences of a field that may be of several kinds, and is of none, as one.

    Examples:
        >>> either(["must be a number", "must be text"])
        'must be a number or text'
    """
    first, *others = sentences
    return " or ".join([first, *(other.removeprefix("must be ") for other in others)])


def _whole_if(value: object) -> object:
    """A bound as people write it: 5.0 as 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def field_place(part: Mapping[str, Any]) -> str:
    """Where a field is, by the names on the way to it; empty for the whole.

    Examples:
        >>> field_place({"loc": ("stops", "stop_loss", "float")})
        'stops.stop_loss'
    """
    return ".".join(str(at) for at in part["loc"] if not ({at} & _BRANCHES or "[" in str(at)))


def field_problems(parts: Iterable[Any]) -> list[str]:
    """One sentence for each field that is wrong, as `fast: must be at least 1`.

    A field that may be of several kinds, and is of none, is told once.
    """
    sentences: dict[str, list[str]] = {}
    for part in parts:
        said = sentences.setdefault(field_place(part), [])
        if (sentence := field_problem(part)) not in said:
            said.append(sentence)
    return [
        f"{place}: {either(said)}" if place else either(said) for place, said in sentences.items()
    ]
