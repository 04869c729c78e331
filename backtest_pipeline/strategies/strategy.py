"""What every strategy is made of, and how its conditions become signal events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numba import njit
from pydantic import BaseModel, ConfigDict, ValidationError

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.market.panel import Panel

SIGNALS_VERSION = 1
"""Raise it when the same conditions become other signals, or parameters are read otherwise."""


class Params(BaseModel):
    """Typed parameters of a strategy: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Conditions:
    """What a strategy wants at each bar's close; bool arrays as long as the panel."""

    long_entry: np.ndarray
    long_exit: np.ndarray
    short_entry: np.ndarray
    short_exit: np.ndarray


@dataclass(frozen=True)
class Strategy(Generic[P]):
    """A strategy.

    Attributes:
        name: its name in `dim_signals.strategy`.
        params_type: its parameters.
        columns: the feature columns that it reads with given parameters.
        conditions: panel and parameters to entries and exits.
        cooldown: whole bars without an entry after an exit, for each side on its own.
        grid: values worth exploring, by parameter; the first two span the heat map.
    """

    name: str
    params_type: type[P]
    columns: Callable[[P], tuple[str, ...]]
    conditions: Callable[[Panel, P], Conditions]
    cooldown: Callable[[P], int] = lambda _: 0
    grid: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def parse(self, params: Mapping[str, Any]) -> P:
        """Typed parameters.

        Raises:
            InvalidInput: naming each unknown, missing or wrong key.
        """
        known = self.params_type.model_fields
        problems = [
            str(UnknownName("parameter", str(key), known)) for key in params if key not in known
        ]
        try:
            parsed = self.params_type.model_validate({k: params[k] for k in known if k in params})
        except ValidationError as error:
            problems += [
                f"{'.'.join(map(str, e['loc'])) or 'parameters'}: {e['msg']}"
                for e in error.errors()
            ]
            raise InvalidInput(f"{self.name}: {'; '.join(problems)}") from error
        if problems:
            raise InvalidInput(f"{self.name}: {'; '.join(problems)}")
        return parsed

    def telling(self, params: P) -> dict[str, Any]:
        """The parameters that people name a run by: those worth exploring, and others that differ.

        A filter that is off goes unsaid.
        """
        differing = params.model_dump(exclude_defaults=True)
        return {n: v for n, v in params.model_dump().items() if n in self.grid or n in differing}


@dataclass(frozen=True)
class Events:
    """Signal events: at which bar's close which side is entered or left.

    Attributes:
        long_entry, long_exit, short_entry, short_exit: bool, as long as the panel. Within a side
            entries and exits alternate, beginning with an entry.
    """

    long_entry: np.ndarray
    long_exit: np.ndarray
    short_entry: np.ndarray
    short_exit: np.ndarray


def signal_events(strategy: Strategy[P], panel: Panel, params: P) -> Events:
    """The events of one strategy on every asset of a panel.

    Raises:
        InvalidInput: naming the feature columns that the panel lacks.
    """
    missing = [name for name in strategy.columns(params) if name not in panel.columns]
    if missing:
        raise InvalidInput(
            f"{strategy.name}: the panel has no column "
            f"{', '.join(map(repr, missing))}; compute or load it first"
        )
    conditions = strategy.conditions(panel, params)
    cooldown = strategy.cooldown(params)
    long = _alternate(conditions.long_entry, conditions.long_exit, panel.offsets, cooldown)
    short = _alternate(conditions.short_entry, conditions.short_exit, panel.offsets, cooldown)
    return Events(*long, *short)


@njit(cache=True, nogil=True)
def _alternate(entry, exit_, offsets, cooldown):
    entries = np.zeros(len(entry), np.bool_)
    exits = np.zeros(len(entry), np.bool_)
    for a in range(len(offsets) - 1):
        held = False
        resting_until = offsets[a] - 1
        for t in range(offsets[a], offsets[a + 1]):
            if held:
                if exit_[t]:
                    exits[t] = True
                    held = False
                    resting_until = t + cooldown
            elif entry[t] and not exit_[t] and t > resting_until:
                entries[t] = True
                held = True
    return entries, exits
