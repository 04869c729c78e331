"""What is wrong with a field, in plain words, wherever pydantic checks it.

The command line, HTTP, settings, rules, parameters and plans say the same of the same fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from backtest_pipeline.market.errors import unknown

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
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}, not '{tag}'",
    "union_tag_not_found": "{discriminator} is missing",
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
_UNIONS = {"sizing", "spec"}
"""Fields that take several models; pydantic puts the tag of the model after their name."""
_LONGEST_NAME = 60


def field_problem(part: Mapping[str, Any], model: Any = None) -> str:
    """What is wrong with one field, to be read after its name.

    Args:
        part: one of `errors()` of pydantic's ValidationError.
        model: the type that was read, whose fields are suggested for one that there is not; None
            for no suggestion.

    Examples:
        >>> field_problem({"type": "greater_than", "ctx": {"gt": 0}, "msg": ""})
        'must be above 0'
    """
    given = {name: _whole_if(value) for name, value in part.get("ctx", {}).items()}
    if "discriminator" in given:
        given["discriminator"] = str(given["discriminator"]).strip("'")
    if part["type"] == "extra_forbidden" and (near := _nearest(part["loc"], model)):
        return f"is no field here; {near}"
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
    names = [str(at) for at in part["loc"]]
    own = [name for before, name in zip(["", *names], names, strict=False) if before not in _UNIONS]
    return ".".join(name for name in own if name not in _BRANCHES and "[" not in name)


def _nearest(loc: Sequence[int | str], model: Any) -> str:
    """The fields of a type that are spelled like one that it has not; empty where none is."""
    *path, name = loc
    kinds = _models_in(model)
    for at in map(str, path):  # a position of a list is no field, and a tag chooses a model
        inner = [kind.model_fields[at].annotation for kind in kinds if at in kind.model_fields]
        tagged = [k for k in kinds if any(f.default == at for f in k.model_fields.values())]
        kinds = [one for of in inner for one in _models_in(of)] or tagged or kinds
    known = {field for kind in kinds for field in kind.model_fields}
    hint = unknown("field", str(name)[:_LONGEST_NAME], known).partition("; ")[2]
    return hint if hint.startswith("did you mean") else ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def field_faults(parts: Iterable[Any], model: Any = None) -> dict[str, str]:
    """What is wrong, by the place of each field; see `field_problem`.

    A field that may be of several kinds, and is of none, is told once.
    """
    sentences: dict[str, list[str]] = {}
    for part in parts:
        said = sentences.setdefault(field_place(part), [])
        if (sentence := field_problem(part, model)) not in said:
            said.append(sentence)
    return {place: either(said) for place, said in sentences.items()}


def field_problems(parts: Iterable[Any], model: Any = None) -> list[str]:
    """One sentence for each field that is wrong, as `fast: must be at least 1`."""
    faults = field_faults(parts, model)
    return [f"{place}: {said}" if place else said for place, said in faults.items()]
