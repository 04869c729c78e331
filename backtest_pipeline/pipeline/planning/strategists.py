"""The strategist of a book, and when it plans, from the book's configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.pipeline.specs import invalid_spec
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.strategist.regime_rules import RegimeRules, RulesSettings
from backtest_pipeline.strategist.replans import ReplanSettings
from backtest_pipeline.strategist.strategist import Strategist

STRATEGISTS = {"rules": (RulesSettings, RegimeRules)}
_M = TypeVar("_M", bound=BaseModel)


def strategist_of(name: str, config: Mapping[str, Any]) -> Strategist:
    """The strategist of this name with this configuration.

    Raises:
        UnknownName: for a name that is none.
        InvalidInput: for an option that it does not have, or a value out of bounds.
    """
    if name not in STRATEGISTS:
        raise UnknownName("strategist", name, STRATEGISTS)
    settings, kind = STRATEGISTS[name]
    return kind(_read(settings, config))


def strategist_for(book: PlanBook) -> Strategist:
    """The strategist of a book; raises as `strategist_of`."""
    return strategist_of(book.strategist, book.config)


def replan_settings(book: PlanBook) -> ReplanSettings:
    """When a book is planned again; raises InvalidInput as `strategist_of`."""
    return settings_of(book.replans)


def settings_of(replans: Mapping[str, Any]) -> ReplanSettings:
    """When a book of these settings is planned again; raises InvalidInput as `strategist_of`."""
    return _read(ReplanSettings, replans)


def model_of(strategist: Strategist) -> str | None:
    """The language model that a strategist asks; None where it asks none."""
    return getattr(strategist, "model", None)


def _read(kind: type[_M], values: Mapping[str, Any]) -> _M:
    """JSON values as settings of this kind."""
    try:
        return kind.model_validate_json(json.dumps(dict(values)))
    except ValidationError as error:
        raise invalid_spec(error) from error
