"""What every strategy is made of."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from backtest_pipeline.market.errors import (
    BacktestError,
    InvalidInput,
    StrategyRefused,
    UnknownName,
)
from backtest_pipeline.market.field_problems import field_problems
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.trading.conditions import Conditions
from backtest_pipeline.trading.sizing import Sizing
from backtest_pipeline.trading.stops import StopRules

SIGNALS_VERSION = 2
"""Raise it when the same conditions become other signals, or parameters are read otherwise."""


_LIBRARIES = ("<", *{sysconfig.get_path(key) for key in ("stdlib", "purelib", "platlib")})


class Params(BaseModel):
    """Typed parameters of a strategy: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Lookback(NamedTuple):
    """How far back conditions look.

    Attributes:
        rows: bars that the first defined value needs, the current one included.
        recursive: whether it depends on all earlier bars, by less and less; else on `rows` alone.
    """

    rows: int
    recursive: bool


@dataclass(frozen=True)
class DeclaredColumn:
    """A column of the user's own that a file of rules declares.

    Attributes:
        where: file, line and key.
        is_flag: whether it holds 0 and 1 alone.
    """

    where: str
    is_flag: bool


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Strategy(Generic[P]):
    """A strategy.

    Attributes:
        name: its name in `dim_signals.strategy`.
        params_type: its parameters.
        columns: the feature columns that it reads with given parameters.
        conditions: panel and parameters to entries and exits.
        stops: the stops that a run has which names none of its own.
        cooldown: whole bars without an entry after a position closes, where the run says none.
        sizing: the sizing that a run has which names none of its own; None where the strategy has
            none, and an entry uses all of the equity.
        grid: values worth exploring, by parameter; the first two span the heat map.
        presets: named parameter sets that every refresh computes, of a strategy of a user's own.
        lookback: how far back the conditions look; None where the strategy does not say.
        description: one sentence about it for people.
        declared: the columns of the user's own that its file declares, by name.
    """

    name: str
    params_type: type[P]
    columns: Callable[[P], tuple[str, ...]]
    conditions: Callable[[Panel, P], Conditions]
    stops: Callable[[P], StopRules] = lambda _: StopRules()
    cooldown: Callable[[P], int] = lambda _: 0
    sizing: Callable[[P], Sizing] | None = None
    grid: Mapping[str, Sequence[float]] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lookback: Callable[[P], Lookback | None] = lambda _: None
    description: str = ""
    declared: Mapping[str, DeclaredColumn] = field(default_factory=dict)

    def parse(self, params: Mapping[str, Any]) -> P:
        """Typed parameters.

        Raises:
            InvalidInput: naming each unknown, missing or wrong key.
            StrategyRefused: where a validator of theirs fails otherwise, with the line.
        """
        known = self.params_type.model_fields
        problems = [
            str(UnknownName("parameter", str(key), known)) for key in params if key not in known
        ]
        try:
            parsed = self.params_type.model_validate({k: params[k] for k in known if k in params})
        except ValidationError as error:
            problems += field_problems(error.errors())
            raise InvalidInput(f"{self.name}: {'; '.join(problems)}") from error
        except BacktestError:
            raise
        except (Exception, SystemExit) as error:  # of a validator of the user's own
            raise StrategyRefused(
                f"{self.name}: its parameters fail: {type(error).__name__}: "
                f"{error}{_line_of(error)}"
            ) from error
        if problems:
            raise InvalidInput(f"{self.name}: {'; '.join(problems)}")
        return parsed

    def telling(self, params: P) -> dict[str, Any]:
        """The parameters that people name a run by: those worth exploring, and others that differ.

        A filter that is off goes unsaid.
        """
        differing = params.model_dump(exclude_defaults=True)
        return {n: v for n, v in params.model_dump().items() if n in self.grid or n in differing}


def conditions_of(strategy: Strategy[P], panel: Panel, params: P) -> Conditions:
    """The conditions of one strategy on every asset of a panel.

    It sees the columns that it declares and those of the bars, wherever it is computed, and cannot
    write to them: the same arrays are traded on and read by other strategies.

    Raises:
        InvalidInput: naming the feature columns that the panel lacks.
        StrategyRefused: for a strategy that fails, or returns something else than flags.
    """
    declared = strategy.columns(params)
    missing = [name for name in declared if name not in panel.columns]
    if missing:
        raise InvalidInput(
            f"{strategy.name}: the panel has no column "
            f"{', '.join(map(repr, missing))}; compute or load it first"
        )
    read = {n: _readonly(c) for n, c in panel.columns.items() if n in OHLCV or n in declared}
    seen = Panel(panel.timeframe, panel.assets, panel.offsets, _readonly(panel.ts), read)
    try:
        found = strategy.conditions(seen, params)
    except StrategyRefused as error:
        raise StrategyRefused(f"{strategy.name}: {error}") from error
    except (BacktestError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        undeclared = isinstance(error, KeyError) and {*error.args} <= panel.columns.keys()
        raise StrategyRefused(
            f"{strategy.name} fails: {type(error).__name__}: {error}{_line_of(error)}"
            f"{'; name it in the columns of the strategy' if undeclared else ''}"
        ) from error
    if not isinstance(found, Conditions):
        raise StrategyRefused(f"{strategy.name} returns {type(found).__name__}, not Conditions")
    found.require_flags(len(panel), strategy.name)
    return found


def guarded(strategy: Strategy[P]) -> Strategy[P]:
    """The strategy, whose functions of parameters name it where they fail or return nonsense.

    They raise StrategyRefused with the function, the parameters and the line.
    """

    def checked(name: str, expected: str, is_right: Callable[[Any], bool]) -> Callable[[P], Any]:
        function = getattr(strategy, name)

        def called(params: P) -> Any:
            try:
                found = function(params)
            except BacktestError:
                raise
            except (Exception, SystemExit) as error:
                why = f"fails: {type(error).__name__}: {error}{_line_of(error)}"
            else:
                if is_right(found):
                    return found
                why = f"returns {found!r:.200}, {expected}"
            given = ", ".join(f"{n} {v}" for n, v in params.model_dump().items())
            raise StrategyRefused(f"{strategy.name}: {name}() {why}; given {given or 'nothing'}")

        return called

    def are_names(found: Any) -> bool:
        return isinstance(found, tuple | list) and all(isinstance(name, str) for name in found)

    def is_whole(found: Any) -> bool:
        return isinstance(found, int) and not isinstance(found, bool) and found >= 0

    return replace(
        strategy,
        columns=checked("columns", "no tuple of names", are_names),
        stops=checked("stops", "no StopRules", lambda found: isinstance(found, StopRules)),
        cooldown=checked("cooldown", "no whole number from 0", is_whole),
        sizing=strategy.sizing
        and checked("sizing", "no sizing", lambda found: isinstance(found, get_args(Sizing))),
    )


def _readonly(values: np.ndarray) -> np.ndarray:
    view = values.view()
    view.flags.writeable = False
    return view


def _line_of(error: BaseException) -> str:
    """Where an error of a strategy arose, as ` (file line n)`: not inside of a library."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    last = [*frames[-1:], *own][-1:]
    return "".join(f" ({frame.filename} line {frame.lineno})" for frame in last)
