"""What a file of rules says of the account: its stops, its cooldown and its sizing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from backtest_pipeline.market.errors import InvalidInput, UnknownName
from backtest_pipeline.strategies.rules.declarations import Place
from backtest_pipeline.strategies.rules.evaluation import Settled, Wanted
from backtest_pipeline.strategies.rules.operators import VALUE, Bounds, ValueKind
from backtest_pipeline.strategies.rules.parser import parse
from backtest_pipeline.strategies.rules.program import Limit, Program
from backtest_pipeline.strategies.rules.written import require_writable
from backtest_pipeline.trading.sizing import SIZINGS, ByExpression, Sizing
from backtest_pipeline.trading.stops import DISTANCES, StopRules

_STOPS = tuple(found.name for found in fields(StopRules))
_WHOLE_STOPS = ("atr_period", "max_bars")
_COOLDOWN = Bounds(0, 10_000)
_MODES = {name: kind for name, kind in SIZINGS.items() if kind is not ByExpression}
_FIXED = "fixed"


def _whole_fields(kind: type[Sizing]) -> tuple[str, ...]:
    hints = get_type_hints(kind)
    return tuple(name for name, hint in hints.items() if hint in (int, int | None))


_WHOLE_FIELDS = {kind: _whole_fields(kind) for kind in _MODES.values()}


class AccountRules:
    """The stops, the cooldown and the sizing of a file of rules.

    Args:
        raw: the file.
        program, names: as `parser.parse` takes them.
        place: the file, for messages.

    Raises:
        RuleError: for a key or an expression that cannot be read, with its place.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        program: Program,
        names: Mapping[str, int | ValueKind],
        place: Place,
    ) -> None:
        self._program, self._names = program, names
        self._stops = self._stop_steps(place.table(raw, "stops"), place.at("stops"))
        self._cooldown = self._fixed(raw.get("cooldown", 0), place.at("cooldown"))
        program.limits.append(
            Limit(self._cooldown, _COOLDOWN, "cooldown", str(place.at("cooldown")))
        )
        self.has_sizing = "sizing" in raw
        self._mode, self._sizing = _FIXED, dict[str, int]()
        if self.has_sizing:
            self._mode, self._sizing = self._sizing_steps(
                place.table(raw, "sizing"), place.at("sizing")
            )

    @property
    def wanted(self) -> list[Wanted]:
        """What it reads at each bar."""
        steps = [*self._stops.values(), *self._sizing.values()]
        return [(step, VALUE) for step in steps if not self._program.is_fixed[step]]

    def said(self, digests: Sequence[str]) -> dict[str, object]:
        """What of it changes what is computed, by digests of steps."""
        sizing = {name: digests[step] for name, step in self._sizing.items()}
        return {
            "stops": {name: digests[step] for name, step in self._stops.items()},
            "cooldown": digests[self._cooldown],
            **({"sizing": [self._mode, sizing]} if self.has_sizing else {}),
        }

    def stops(self, settled: Settled) -> StopRules:
        """The stops with given parameters; raises InvalidInput for one out of its bounds."""
        return StopRules(**self._values(settled, self._stops, _WHOLE_STOPS))

    def cooldown(self, settled: Settled) -> int:
        """The cooldown with given parameters."""
        return int(settled.number(self._cooldown))

    def sizing(self, settled: Settled) -> Sizing:
        """The sizing with given parameters; raises InvalidInput for one out of its bounds."""
        kind = _MODES[self._mode]
        values = self._values(settled, self._sizing, _WHOLE_FIELDS[kind])
        if isinstance(values.get("fraction"), str):
            return ByExpression(**values)
        return kind(**values)

    def problem(self, settled: Settled) -> str | None:
        """What given parameters make wrong in it; None if nothing."""
        checks = {"stops": self.stops, **({"sizing": self.sizing} if self.has_sizing else {})}
        for name, check in checks.items():
            try:
                check(settled)
            except InvalidInput as error:
                return f"{name}: {error}"
        return None

    def _stop_steps(self, stops: Mapping[str, Any], place: Place) -> dict[str, int]:
        place.require_keys(stops, _STOPS)
        return {
            name: (self._by_bar if name in DISTANCES else self._fixed)(value, place.at(name))
            for name, value in stops.items()
        }

    def _sizing_steps(self, sizing: Mapping[str, Any], place: Place) -> tuple[str, dict[str, int]]:
        mode = sizing.get("mode", _FIXED)
        if mode not in list(_MODES):  # it may be anything, a table too
            raise place.at("mode").error(str(UnknownName("sizing", f"{mode}"[:60], _MODES)))
        place.require_keys(sizing, ("mode", *(one.name for one in fields(_MODES[mode]))))
        steps = {
            name: (self._by_bar if mode == _FIXED else self._fixed)(value, place.at(name))
            for name, value in sizing.items()
            if name != "mode"
        }
        if mode == _FIXED and "fraction" not in steps:
            raise place.error("there is no fraction; write one, or a mode of another sizing")
        return mode, steps

    def _by_bar(self, value: object, place: Place) -> int:
        """The step of a number that may differ from bar to bar."""
        step = self._number(value, place)
        if not self._program.is_fixed[step]:
            try:
                require_writable(self._program, step)
            except InvalidInput as error:
                raise place.error(str(error)) from None
        return step

    def _fixed(self, value: object, place: Place) -> int:
        """The step of what is one number for a whole run."""
        step = self._number(value, place)
        if not self._program.is_fixed[step]:
            raise place.error(
                "this is one number for a whole run: a number, a parameter, or an expression of "
                "parameters, without columns"
            )
        return step

    def _values(
        self, settled: Settled, steps: Mapping[str, int], whole: Sequence[str]
    ) -> dict[str, Any]:
        """Numbers, and texts of what differs from bar to bar."""
        values: dict[str, Any] = {}
        for name, step in steps.items():
            if not self._program.is_fixed[step]:
                values[name] = settled.written(step)
                continue
            number = settled.number(step)
            values[name] = int(number) if name in whole and number.is_integer() else number
        return values

    def _number(self, value: object, place: Place) -> int:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = f"{value!r}"
        step = parse(self._program, value, self._names, str(place))
        if self._program.kinds[step] is not ValueKind.NUMBER:
            raise place.error("this is a condition and must be a number")
        return step
