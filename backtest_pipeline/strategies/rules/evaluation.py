"""The steps of a program computed on a panel, and what they need for it.

Everything goes by the steps that are needed: those of a branch that the parameters do not choose
are not computed, and their columns are not asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.features.catalogue import FEATURES
from backtest_pipeline.market.features.derive import is_derived
from backtest_pipeline.market.panel import OHLCV, Panel
from backtest_pipeline.strategies.rules.longer_bars import LongerBars
from backtest_pipeline.strategies.rules.operators import (
    CHOICES,
    FACETS,
    FALSE,
    OPERATORS,
    TRUE,
    VALUE,
    Facet,
    ValueKind,
    column_of,
    defined,
)
from backtest_pipeline.strategies.rules.program import (
    AT,
    COLUMN,
    CONSTANT,
    INDICATOR,
    INDICATORS,
    PARAMETER,
    RANK,
    Limit,
    Program,
    Step,
)
from backtest_pipeline.strategies.rules.written import written
from backtest_pipeline.strategies.strategy import Lookback

Params = Mapping[str, float | bool]
Wanted = tuple[int, Facet]
"""A facet of a step."""

_CATALOGUE = {feature.name: Lookback(feature.rows, feature.recursive) for feature in FEATURES}
_NO_ROWS = np.zeros(1, np.int64)  # offsets of a panel without assets


class Settled:
    """A program with its parameters: what is one value for all bars is known.

    Args:
        program: its steps.
        params: a value for each of its parameters.
    """

    def __init__(self, program: Program, params: Params) -> None:
        self._program = program
        self._fixed: dict[Wanted, Any] = {}
        with np.errstate(all="ignore"):
            for step, is_fixed in enumerate(program.is_fixed):
                if is_fixed:
                    self._settle(step, params)

    def _settle(self, step: int, params: Params) -> None:
        found, kind = self._program.steps[step], self._program.kinds[step]
        for facet in FACETS[kind]:
            if found.operator == CONSTANT:
                value = np.float64(found.value)  # pyright: ignore[reportArgumentType]
            elif found.operator == PARAMETER:
                given = params[str(found.value)]
                value = np.float64(given) if facet is VALUE else np.bool_(given == (facet is TRUE))
            else:
                value = self._applied(step, facet, _NO_ROWS, self._fixed)
            self._fixed[step, facet] = value[()] if isinstance(value, np.ndarray) else value

    def number(self, step: int) -> float:
        """The value of a step that is one number for all bars; NaN if undefined."""
        return float(self._fixed[step, VALUE])

    def condition(self, step: int) -> bool | None:
        """Whether a step that is the same at all bars is true; None if undefined."""
        if self._fixed[step, TRUE]:
            return True
        return False if self._fixed[step, FALSE] else None

    def problem(self, limits: Iterable[Limit]) -> str | None:
        """The first operand that is out of its bounds; None if there is none."""
        for limit in limits:
            reason = limit.bounds.problem(limit.name, self.number(limit.step))
            if reason:
                return f"{limit.where}: {reason}"
        try:
            for step, found in enumerate(self._program.steps):
                if found.operator == RANK:
                    self._column(step)
        except InvalidInput as error:
            return str(error)
        return None

    def written(self, step: int) -> str:
        """The text of a step, with the values of its parameters in it; see `written.written`."""
        return written(self._program, step, self._known, self._chosen)

    def columns(self, wanted: Iterable[Wanted]) -> tuple[str, ...]:
        """The columns that are read for these, in the order of the program."""
        steps = sorted({step for step, _ in self._needed(wanted)})
        read: list[str] = []
        for step in steps:
            column = self._column(step)
            read += [column] if column is not None else []
            read += OHLCV if self._program.steps[step].operator == AT else ()
        return tuple(dict.fromkeys(read))

    def lookback(self, wanted: Iterable[Wanted]) -> Lookback | None:
        """How far back it is looked for these; None where that depends on the timeframe."""
        found: dict[int, Lookback] = {}
        for step in sorted({step for step, _ in self._needed(wanted)}):
            if self._program.steps[step].operator == AT:
                return None
            if self._program.steps[step].operator == RANK:
                ranked = self.lookback([(self._program.steps[step].operands[0], VALUE)])
                if ranked is None:
                    return None
                found[step] = ranked
                continue
            column = self._column(step)
            if column is not None:
                found[step] = lookback_of(column)
                continue
            operator = OPERATORS[self._program.steps[step].operator]
            operands = self._program.steps[step].operands
            before = [found[operand] for operand in operands if operand in found]
            window = self.number(operands[1]) if 1 in operator.bounds else 0
            more = operator.more_rows(int(window)) if operator.more_rows else 0
            found[step] = Lookback(
                max((one.rows for one in before), default=1) + more,
                operator.is_recursive or any(one.recursive for one in before),
            )
        return Lookback(
            max((one.rows for one in found.values()), default=1),
            any(one.recursive for one in found.values()),
        )

    def computed(self, panel: Panel, wanted: Sequence[Wanted]) -> list[np.ndarray]:
        """These facets of steps at each row of the panel.

        Returns:
            For each a column `(n_rows,)`: the value, float64, NaN where undefined; or where the
            condition is true or false, bool.
        """
        known, longer = dict(self._fixed), LongerBars(panel)
        needed = sorted(self._needed(wanted), key=lambda key: key[0])
        users = Counter([*wanted, *(of for key in needed for of in self._reads(*key))])
        with np.errstate(all="ignore"):
            for step, facet in needed:
                column, found = self._column(step), self._program.steps[step]
                if found.operator == AT:
                    known[step, facet] = self._at(found, facet, longer)
                elif column is None:
                    known[step, facet] = self._applied(step, facet, panel.offsets, known)
                else:
                    known[step, facet] = _read(panel, column, facet)
                # A column that nobody needs any more makes room in the processor's cache.
                for of in self._reads(step, facet):
                    users[of] -= 1
                    if not users[of] and of not in self._fixed:
                        del known[of]
        return [column_of(known[key], panel.offsets) for key in wanted]

    def _at(self, step: Step, facet: Facet, longer: LongerBars) -> np.ndarray:
        """A facet on bars of a longer timeframe, as each row of the panel knows it."""
        inner = [(step.operands[0], facet)]
        bars = longer.bars(str(step.value), self.columns(inner))
        if bars is None:
            return longer.nowhere(facet is VALUE)
        return longer.known(bars, self.computed(bars, inner)[0])

    def _needed(self, wanted: Iterable[Wanted]) -> set[Wanted]:
        """What has to be computed at each bar for these."""
        found: set[Wanted] = set()
        waiting = list(wanted)
        while waiting:
            key = waiting.pop()
            if key not in found and not self._program.is_fixed[key[0]]:
                found.add(key)
                waiting += self._reads(*key)
        return found

    def _reads(self, step: int, facet: Facet) -> list[Wanted]:
        """What a facet of a step is computed from."""
        found = self._program.steps[step]
        operator = OPERATORS.get(found.operator)
        if operator is None:
            return []
        chosen = self._chosen(step)
        if chosen is not None:
            return [(chosen, facet)]
        return [(found.operands[operand], of) for operand, of in operator.ways[facet].reads]

    def _chosen(self, step: int) -> int | None:
        """The branch that the parameters alone choose; None for what is no such choice."""
        found = self._program.steps[step]
        if found.operator not in CHOICES or not self._program.is_fixed[found.operands[0]]:
            return None
        condition, true, false = found.operands
        return {True: true, False: false, None: None}[self.condition(condition)]

    def _applied(
        self, step: int, facet: Facet, offsets: np.ndarray, known: Mapping[Wanted, Any]
    ) -> Any:
        chosen = self._chosen(step)
        if chosen is not None:
            return known[chosen, facet]
        way = OPERATORS[self._program.steps[step].operator].ways[facet]
        return way.compute(offsets, *(known[key] for key in self._reads(step, facet)))

    def _column(self, step: int) -> str | None:
        """The column that a step reads; None for any other step."""
        found = self._program.steps[step]
        if found.operator == COLUMN:
            return str(found.value)
        if found.operator == INDICATOR:
            return f"{found.value}_{self.number(found.operands[0]):.0f}"
        if found.operator == RANK:
            return f"{RANK}({self.written(found.operands[0])})"
        return None

    def _known(self, step: int) -> float | bool | None:
        """The value of a step that is the same at all bars."""
        is_number = self._program.kinds[step] is ValueKind.NUMBER
        return self.number(step) if is_number else self.condition(step)


def lookback_of(column: str) -> Lookback:
    """How far back a column of the panel looks; of one that is no feature, its own bar alone.

    Examples:
        >>> lookback_of("rsi_14")
        Lookback(rows=15, recursive=True)
    """
    kind, _, period = column.partition("_")
    if is_derived(column):
        return Lookback(int(period) + INDICATORS[kind], recursive=True)
    return _CATALOGUE.get(column, Lookback(1, recursive=False))


def _read(panel: Panel, name: str, facet: Facet) -> np.ndarray:
    column = panel[name]
    if facet is VALUE:
        return defined(np.asarray(column, np.float64))
    if column.dtype == np.bool_:
        return column if facet is TRUE else ~column
    other = ~(np.isnan(column) | (column == 0) | (column == 1))
    if other.any():
        row = int(other.argmax())
        raise InvalidInput(
            f"{panel.assets[int(panel.segment_of_row[row])]}|{panel.timeframe.name}: the column "
            f"{name!r} is declared a flag and is {float(column[row])!r} at "
            f"{panel.ts[row : row + 1].view('M8[us]')[0]} UTC; a flag is 0, 1, true, false or "
            f"empty: declare it a number and compare it, as {name} > 0.5"
        )
    return column == 1 if facet is TRUE else column == 0
