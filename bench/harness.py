"""Timing in interleaved rounds, medians, and tables of results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.clock import Clock, Seconds


@dataclass(frozen=True)
class Table:
    """A heading, the column names, and rows of text or numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", _row(self.columns), _row(["---"] * len(self.columns))]
        return "\n".join([*lines, *(_row([shown(cell) for cell in row]) for row in self.rows)])


@dataclass(frozen=True)
class Report:
    """The report of one case: what was measured, and its tables."""

    title: str
    about: str
    tables: Sequence[Table] = field(default_factory=tuple)

    def markdown(self) -> str:
        return "\n\n".join([f"## {self.title}", self.about, *(t.markdown() for t in self.tables)])


def interleaved(
    candidates: Mapping[str, Callable[[], object]], repeats: int, clock: Clock | None = None
) -> dict[str, list[Seconds]]:
    """Time every candidate `repeats` times, one after the other in each round."""
    clock = clock or Clock()
    taken: dict[str, list[Seconds]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, work in candidates.items():
            begin = clock.now()
            work()
            taken[name].append(clock.now() - begin)
    return taken


def median(taken: Sequence[Seconds]) -> Seconds:
    """The median of each clock."""
    return Seconds(
        statistics.median(t.wall for t in taken),
        statistics.median(t.own for t in taken),
        statistics.median(t.server for t in taken),
    )


def shown(cell: str | float | int) -> str:
    """A cell as text: three digits for a number that is not whole."""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
