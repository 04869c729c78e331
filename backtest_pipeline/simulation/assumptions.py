"""Costs, sizing and stops from names and short texts, as command lines and settings have them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.simulation.costs import CostModel
from backtest_pipeline.simulation.sizing import (
    AtrRisk,
    EqualWeight,
    FixedFractional,
    Sizing,
    VolatilityScaled,
)
from backtest_pipeline.simulation.stops import StopRules

SIZINGS: dict[str, type[Sizing]] = {
    "fixed": FixedFractional,
    "equal": EqualWeight,
    "volatility": VolatilityScaled,
    "atr": AtrRisk,
}
T = TypeVar("T")


def costs_of(venue: str | None = None, **given: float | None) -> CostModel:
    """Costs of a venue, or else the usual, with what is given (not None) in their place.

    Raises:
        UnknownName: for a venue that there is not.
        InvalidInput: for a cost that makes no sense.
    """
    costs = CostModel.of_venue(venue) if venue else CostModel()
    return replace(costs, **{name: value for name, value in given.items() if value is not None})


def sizing_of(text: str) -> Sizing:
    """Sizing from `name` or `name:field=value,...`, for example `atr:risk=0.01,atr_multiple=3`.

    Raises:
        UnknownName: for a name or a field that there is not.
        InvalidInput: for a value that is no number, or that the sizing refuses.
    """
    name, _, values = text.partition(":")
    if name.strip() not in SIZINGS:
        raise UnknownName("sizing", name.strip(), SIZINGS)
    return _made(SIZINGS[name.strip()], values)


def stops_of(text: str) -> StopRules:
    """Stop rules from `field=value,...`, for example `stop_loss=0.05,max_bars=20`; "" is none.

    Raises:
        UnknownName, InvalidInput: as `sizing_of`.
    """
    return _made(StopRules, text)


def _made(kind: type[T], text: str) -> T:
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in known:
            raise UnknownName(f"field of {kind.__name__}", name, known)
        if not equals:
            raise InvalidInput(f"{kind.__name__}: write {name}=value, not {part!r}")
        values[name] = _number(name, value)
    return kind(**values)


def _number(name: str, text: str) -> float | int:
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise InvalidInput(f"{name} must be a number, not {text!r}") from None
