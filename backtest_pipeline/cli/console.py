"""Where the command line writes: tables and messages to stdout, progress to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

# Piped output has no width of its own; 80 columns would cut the tables.
_WIDTH = None if sys.stdout.isatty() else 110
console = Console(width=_WIDTH)
errors = Console(stderr=True, width=_WIDTH)

_PERCENT = {"total_return", "benchmark_return", "max_drawdown", "win_rate"}
_TITLES = {
    "timeframe": "tf",
    "total_return": "return",
    "benchmark_return": "benchmark",
    "sharpe": "Sharpe",
    "max_drawdown": "max DD",
    "trade_count": "trades",
    "win_rate": "win rate",
    "fees_paid": "fees",
}


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error and leave."""
    errors.print(f"[bold red]error:[/] {message}", highlight=False, soft_wrap=True)
    sys.exit(code)


class StageBars:
    """Progress bars, one per stage, drawn as the stages report."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[StageBars]:
    """Progress bars on stderr while the block runs; a spinner shows that something is going on."""
    from rich.progress import SpinnerColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, disable=quiet) as progress:
        yield StageBars(progress)


def runs_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Runs with their main metrics; an undefined metric shows as a dash."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in rows[0]:
        is_text = isinstance(rows[0][name], str)
        title = _TITLES.get(name, name)
        table.add_column(title, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_shown(name, value) for name, value in row.items()))
    return table


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if name in _PERCENT:
        return f"{value:.1%}"
    if name == "trade_count" or isinstance(value, int):
        return f"{value:,.0f}"
    return f"{value:,.2f}"
