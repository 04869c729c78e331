"""Fields that specs and plans share: names of symbols and timeframes, and sizings as models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, TypeVar, Union, get_type_hints

from pydantic import AfterValidator, BaseModel, Field, create_model

from backtest_pipeline.market.field_problems import PLAIN_NAME
from backtest_pipeline.market.symbols import LONGEST_SYMBOL, key_of
from backtest_pipeline.trading.sizing import SIZINGS

Model = TypeVar("Model", bound=BaseModel)

Symbol = Annotated[
    str,
    # A control character can be stored nowhere, and a symbol is written without blanks around it.
    Field(
        min_length=1,
        max_length=LONGEST_SYMBOL,
        pattern=PLAIN_NAME,
        examples=["S-ALPHA"],
    ),
    AfterValidator(key_of),
]
"""As its source writes it, `BTC/USDT:USDT` too; what is computed and stored goes by its key."""


def timeframe_name(name: str) -> str:
    """The name of a timeframe as it is spelled here; what is none of them as it was given."""
    # Help texts are made from these fields, and need not wait for what computes timeframes.
    from backtest_pipeline.market.timeframes import canonical

    return canonical(name)


TimeframeName = Annotated[
    str, Field(min_length=2, max_length=24, examples=["1D"]), AfterValidator(timeframe_name)
]


def declared_fields(kind: type) -> dict[str, Any]:
    """The fields of a dataclass, as `create_model` takes them."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        f.name: (hints[f.name], ... if f.default is MISSING else f.default) for f in fields(kind)
    }


def model_of(kind: type, base: type[Model], **more: Any) -> type[Model]:
    """A model with the fields of a dataclass, and more."""
    return create_model(kind.__name__, __base__=base, **more, **declared_fields(kind))


def sizing_models(base: type[Model]) -> dict[str, type[Model]]:
    """A model of each sizing, by its `mode`."""
    return {
        name: model_of(kind, base, mode=(Literal[name], name)) for name, kind in SIZINGS.items()
    }


def one_of(models: Mapping[str, type[BaseModel]]) -> Any:
    """The type of a field that holds any of the models, told apart by its `mode`."""
    return Annotated[Union[tuple(models.values())], Field(discriminator="mode")]  # noqa: UP007
