"""Grids of a strategy's parameters: the combinations that make sense."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from pydantic import ValidationError

from backtest_pipeline.market.errors import EmptyGrid, GridTooLarge, InvalidInput, UnknownName
from backtest_pipeline.market.field_problems import field_problem
from backtest_pipeline.strategies.strategy import Strategy

Number = int | float
MOST_IN_SPACE = 10_000_000
"""Combinations of a space that is searched and not swept."""


@dataclass(frozen=True)
class ParameterGrid:
    """Combinations of a strategy's parameters.

    Attributes:
        strategy: whose parameters they are.
        names: the parameters; those with a single value as well.
        combinations: one value per name each, in the order of the values.
        left_out: combinations of single values that make no sense together, such as a fast
            period above the slow one.
    """

    strategy: Strategy[Any]
    names: tuple[str, ...]
    combinations: tuple[tuple[Number, ...], ...]
    left_out: int

    def __len__(self) -> int:
        return len(self.combinations)

    @property
    def swept(self) -> tuple[str, ...]:
        """The parameters of which more than one value is left."""
        columns = zip(*self.combinations, strict=True)
        return tuple(n for n, column in zip(self.names, columns, strict=True) if len({*column}) > 1)


@dataclass(frozen=True)
class ParameterSpace:
    """The values that a strategy's parameters may take; not all go together.

    Attributes:
        strategy: whose parameters they are.
        axes: the values of each parameter, ascending; those with a single value as well.
    """

    strategy: Strategy[Any]
    axes: Mapping[str, tuple[Number, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order of a combination's values."""
        return tuple(self.axes)

    @property
    def size(self) -> int:
        """Combinations, those that make no sense included."""
        return math.prod(map(len, self.axes.values()))

    def params(self, combination: Sequence[Number]) -> dict[str, Number]:
        """A combination's values by parameter."""
        return dict(zip(self.axes, combination, strict=True))

    def problem(self, combination: Sequence[Number]) -> str | None:
        """Why these values make no sense together, such as fast above slow; None where they do.

        Raises:
            InvalidInput: for a value that its parameter does not take whatever the others are.
        """
        return _contradiction(self.strategy, self.params(combination))

    def grid(self) -> ParameterGrid:
        """All combinations that make sense.

        Raises:
            InvalidInput: where there is none.
        """
        sound, reason = [], ""
        for combination in product(*self.axes.values()):
            problem = self.problem(combination)
            if problem is None:
                sound.append(combination)
            reason = reason or problem or ""
        if not sound:
            raise EmptyGrid(
                f"{self.strategy.name}: none of {self.size:,} combinations makes sense: {reason}"
            )
        return ParameterGrid(self.strategy, self.names, tuple(sound), self.size - len(sound))


def parameter_space(
    strategy: Strategy[Any], values: Mapping[str, Any], most: int = MOST_IN_SPACE
) -> ParameterSpace:
    """The values to try, by parameter.

    Args:
        strategy: gives what `values` leaves out: values worth exploring, or its defaults.
        values: a number or a sequence of numbers by parameter.
        most: combinations that are not too many.

    Raises:
        UnknownName: for a parameter that the strategy does not have.
        InvalidInput: for a parameter without a value, a value that is no number, or too many
            combinations.
    """
    for name in values:
        if name not in strategy.params_type.model_fields:
            raise UnknownName(
                f"parameter of {strategy.name}", name, strategy.params_type.model_fields
            )
    left = {name: found for name, found in strategy.grid.items() if name not in values}
    axes = {name: _sequence(strategy, name, found) for name, found in {**values, **left}.items()}
    _require_size(strategy, axes, most)
    return ParameterSpace(
        strategy, {name: tuple(_numbers(strategy, name, axis)) for name, axis in axes.items()}
    )


def parameter_grid(strategy: Strategy[Any], values: Mapping[str, Any], most: int) -> ParameterGrid:
    """All combinations of the values that the strategy accepts.

    Args:
        strategy, values, most: as `parameter_space` takes them.

    Raises:
        UnknownName: for a parameter that the strategy does not have.
        InvalidInput: for a value that its parameter does not take, no value, too many
            combinations, or none that makes sense.
    """
    return parameter_space(strategy, values, most).grid()


def _sequence(strategy: Strategy[Any], name: str, values: Any) -> Sequence[Any]:
    axis = values if hasattr(values, "__len__") and not isinstance(values, str) else (values,)
    if len(axis) == 0:
        raise EmptyGrid(f"{strategy.name}: {name} has no value to explore")
    return axis


def _require_size(strategy: Strategy[Any], axes: Mapping[str, Sequence[Any]], most: int) -> None:
    n = math.prod(map(len, axes.values()))
    if n > most:
        sizes = " x ".join(f"{len(axis):,} of {name}" for name, axis in axes.items())
        raise GridTooLarge(
            f"{strategy.name}: {sizes} are {n:,} combinations, and {most:,} are the limit; "
            "take larger steps, or raise max_combinations (--max-combinations; of the service "
            "BACKTEST_OPTIMIZER_MAX_COMBINATIONS)"
        )


def _numbers(strategy: Strategy[Any], name: str, values: Sequence[Any]) -> list[Number]:
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    for value in plain:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidInput(f"{strategy.name}: {name}: {value!r} is not a number")
        if not math.isfinite(value):
            raise InvalidInput(f"{strategy.name}: {name} must be finite, not {value!r}")
    return sorted(set(plain))


def _contradiction(strategy: Strategy[Any], params: dict[str, Number]) -> str | None:
    """Why values that are sound alone make no sense together; None where they do.

    Raises:
        InvalidInput: for a value that is not sound alone.
    """
    try:
        strategy.params_type.model_validate(params)
    except ValidationError as error:
        if any(e["loc"] for e in error.errors()):
            strategy.parse(params)  # which names the parameter
        return field_problem(error.errors()[0])
    return None
