"""The strategist of a book, and when it plans, from the book's configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.plans.content import problems_of, unknown_field
from backtest_pipeline.storage.plan_tables.plan_books import PlanBook
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import read_settings
from backtest_pipeline.strategist.known_strategists import open_strategist, settings_type
from backtest_pipeline.strategist.replans import ReplanSettings
from backtest_pipeline.strategist.strategist import Strategist

if TYPE_CHECKING:
    from backtest_pipeline.strategist.llm.conversation import AskedModel

_Settings = TypeVar("_Settings", bound=BaseModel)


def strategist_for(book: PlanBook, database: Database) -> Strategist:
    """The strategist of a book; a language model is that of the environment.

    Args:
        book: the book.
        database: of the store, which holds the day's budget of all who ask a model.

    Raises:
        UnknownName, InvalidInput, ConfigurationError: as `open_strategist`.
    """
    return open_strategist(book.strategist, book.config, model=partial(live_model, database))


def require_strategist(name: str, config: Mapping[str, Any]) -> None:
    """Check a strategist and its options, without opening a model.

    Raises:
        UnknownName: for a name that is none, or an option that there is not.
        InvalidInput: naming each option that is wrong.
    """
    _read(f"strategist {name}", settings_type(name), config)


def replan_settings(book: PlanBook) -> ReplanSettings:
    """When a book is planned again; raises as `settings_of`."""
    return settings_of(book.replans)


def settings_of(replans: Mapping[str, Any]) -> ReplanSettings:
    """When a book of these settings is planned again.

    Raises:
        UnknownName: for a setting that there is not.
        InvalidInput: naming each setting that is wrong.
    """
    return _read("replans", ReplanSettings, replans)


def live_model(database: Database) -> AskedModel:
    """The language model of the environment, within the day's budget that the store holds.

    Raises:
        ConfigurationError: where no model or no key is set, or the extra `llm` is not installed.
    """
    from backtest_pipeline.pipeline.planning.model_budget import StoredBudget
    from backtest_pipeline.strategist.llm.live_model import LiveModel
    from backtest_pipeline.strategist.llm.settings import LlmSettings

    return LiveModel(read_settings(LlmSettings), budget=StoredBudget(database))


def _read(what: str, kind: type[_Settings], values: Mapping[str, Any]) -> _Settings:
    """JSON values as settings of this kind."""
    try:
        return kind.model_validate_json(json.dumps(dict(values)))
    except ValidationError as error:
        raise unknown_field(what, kind, error) or InvalidInput(
            f"{what}: {problems_of(error)}"
        ) from error
