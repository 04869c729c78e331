"""Columns that rank an expression among all assets, computed from the assets that there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from backtest_pipeline.market.cross_section import is_rank, rank_pct
from backtest_pipeline.market.errors import RuleError
from backtest_pipeline.market.features.derive import with_indicators
from backtest_pipeline.market.panel import Panel
from backtest_pipeline.strategies.rules.evaluation import Settled
from backtest_pipeline.strategies.rules.expressions import step_of
from backtest_pipeline.strategies.rules.operators import VALUE
from backtest_pipeline.strategies.rules.program import RANK, Program


class RankedColumns:
    """Columns such as `rank_pct(rsi_14)`, each by the expression in its name.

    Args:
        names: the columns.

    Raises:
        RuleError: for a name that is no expression of docs/rules.md, with the place.
    """

    def __init__(self, names: Iterable[str]) -> None:
        program = Program()
        steps = {name: _ranked(program, name) for name in names}
        self._settled = Settled(program, {})
        self._wanted = {name: (step, VALUE) for name, step in steps.items()}

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that are ranked, or that what is ranked is computed from."""
        return self._settled.columns(self._wanted.values())

    def values(self, panel: Panel) -> dict[str, np.ndarray]:
        """What is ranked in each column, at each row; the rows of an asset follow from it alone.

        Args:
            panel: assets, each from its first bar on, with the columns of `reads`, or bars that
                they can be computed from.
        """
        known = with_indicators(panel, self.reads)
        values = self._settled.computed(known, list(self._wanted.values()))
        return dict(zip(self._wanted, values, strict=True))


def with_ranks(universe: Panel, names: Sequence[str]) -> Panel:
    """A panel of all assets with those of the columns added that are ranks among them."""
    missing = [name for name in names if is_rank(name) and name not in universe.columns]
    if not missing:
        return universe
    return universe.with_columns(rank_pct(universe, RankedColumns(missing).values(universe)))


def _ranked(program: Program, name: str) -> int:
    """The step of what is ranked in a column of this name."""
    where = f"column {name:.60}"
    found = program.steps[step_of(program, name, where)]
    if found.operator != RANK:
        raise RuleError(where, "this is no column; write rank_pct(x) alone", name, 0)
    return found.operands[0]
