"""What is wrong with a field is one plain sentence, whichever kind of fault pydantic finds."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from backtest_pipeline.market.field_problems import LOWER_NAME, PLAIN, PLAIN_NAME, field_problems


class Part(BaseModel):
    share: float = Field(gt=0, lt=1)


class Tall(BaseModel, extra="forbid"):
    mode: Literal["tall"] = "tall"
    height: float


class Wide(BaseModel, extra="forbid"):
    mode: Literal["wide"] = "wide"
    width: float


class Everything(BaseModel, extra="forbid"):
    period: int = Field(default=2, ge=2, le=200)
    z: float = 1.0
    on: bool = False
    label: str = Field(default="ab", min_length=2, max_length=3)
    note: str = Field(default="", pattern=PLAIN)
    symbol: str = Field(default="A", pattern=PLAIN_NAME)
    book: str = Field(default="a", pattern=LOWER_NAME)
    other: str = Field(default="0", pattern="^[01]$")
    side: Literal["long", "short"] = "long"
    day: date = date(2024, 1, 31)
    stamp: AwareDatetime | None = None
    values: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]
    part: Part = Part(share=0.5)
    distance: float | str | None = None
    sizing: Annotated[Tall | Wide, Field(discriminator="mode")] | None = None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"period": 1}, "period: must be at least 2"),
        ({"period": 201}, "period: must be at most 200"),
        ({"period": 2.5}, "period: must be a whole number"),
        ({"period": "often"}, "period: must be a whole number"),
        ({"z": "high"}, "z: must be a number"),
        ({"z": None}, "z: must be a number"),
        ({"on": "perhaps"}, "on: must be true or false"),
        ({"label": 3}, "label: must be text"),
        ({"label": "a"}, "label: must have at least 2 characters"),
        ({"label": "abcd"}, "label: must have at most 3 characters"),
        ({"note": "a\nb"}, "note: must have no line breaks and no other control characters"),
        ({"symbol": " A"}, "symbol: must have no blanks around it, and no control characters"),
        ({"book": "A"}, "book: must have small letters, digits, `_`, `.` and `-` alone, a letter "),
        ({"other": "2"}, "other: must match ^[01]$"),
        ({"side": "both"}, "side: must be 'long' or 'short'"),
        ({"day": "yesterday"}, "day: must be a date such as 2024-01-31"),
        ({"stamp": "2024-01-31T23:59:59"}, "stamp: must have a time zone, such as Z for UTC"),
        ({"values": []}, "values: must have at least 1 values"),
        ({"values": 1}, "values: must be a list"),
        ({"part": 1}, "part: must be fields with their values"),
        ({"part": {"share": 1}}, "part.share: must be below 1"),
        ({"part": {}}, "part.share: is missing"),
        ({"distance": [1]}, "distance: must be a number or text"),
        ({"comment": 3}, "comment: is no field here; leave it out"),
        ({"perod": 3}, "perod: is no field here; did you mean period?"),
        ({"sizing": {"mode": "tall", "height": "high"}}, "sizing.height: must be a number"),
        ({"sizing": {"mode": "wide"}}, "sizing.width: is missing"),
        (
            {"sizing": {"mode": "wide", "width": 1, "widht": 2}},
            "sizing.widht: is no field here; did you mean width?",
        ),
        ({"sizing": {"mode": "flat"}}, "sizing: mode must be one of 'tall', 'wide', not 'flat'"),
        ({"sizing": {}}, "sizing: mode is missing"),
    ],
)
def test_a_fault_is_one_plain_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Everything.model_validate(given)
    (sentence,) = field_problems(refused.value.errors(), Everything)
    assert sentence.startswith(said)
