"""The strategists that there are, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.plans.content import problems_of, unknown_field
from backtest_pipeline.strategist.regime_rules import RegimeRules, RulesSettings
from backtest_pipeline.strategist.strategist import Strategist

if TYPE_CHECKING:
    from backtest_pipeline.strategist.llm.conversation import AskedModel

STRATEGISTS = ("rules", "llm")
"""Their names."""
_Settings = TypeVar("_Settings", bound=BaseModel)


def settings_type(name: str) -> type[BaseModel]:
    """The type of a strategist's configuration; raises UnknownName for one that does not exist.

    Examples:
        >>> settings_type("rules").__name__
        'RulesSettings'
    """
    if name == "llm":
        from backtest_pipeline.strategist.llm.prompt import LlmTerms

        return LlmTerms
    if name not in STRATEGISTS:
        raise UnknownName("strategist", name, STRATEGISTS)
    return RulesSettings


def open_strategist(
    name: str,
    config: Mapping[str, Any],
    *,
    model: Callable[[], AskedModel] | None = None,
) -> Strategist:
    """A strategist by its name and configuration.

    Args:
        name: one of STRATEGISTS.
        config: fields of its `settings_type`; those left out are at their defaults.
        model: opens the language model that `llm` asks; the others need none.

    Raises:
        UnknownName: for a name, or a field of the configuration, that does not exist.
        InvalidInput: naming each field of the configuration that is wrong, or where
            `llm` is given no model.
        ConfigurationError: where the model cannot be opened.

    Examples:
        >>> open_strategist("rules", {"stop_loss_pct": 5.0}).settings.stop_loss_pct
        5.0
    """
    if settings_type(name) is RulesSettings:
        return RegimeRules(_parsed(name, RulesSettings, config))
    from backtest_pipeline.strategist.llm.llm_strategist import LlmStrategist
    from backtest_pipeline.strategist.llm.prompt import LlmTerms

    terms = _parsed(name, LlmTerms, config)
    if model is None:
        raise InvalidInput("the strategist llm needs a language model; give the model that it asks")
    return LlmStrategist(model(), terms)


def _parsed(name: str, kind: type[_Settings], config: Mapping[str, Any]) -> _Settings:
    try:
        return kind.model_validate(dict(config))
    except ValidationError as error:
        what = f"strategist {name}"
        raise unknown_field(what, kind, error) or InvalidInput(
            f"{what}: {problems_of(error)}"
        ) from error
