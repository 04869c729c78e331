"""Where the command line writes: tables and messages to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from typing import Any, NoReturn, TextIO

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backtest_pipeline.cli.progress import Listener, progress_on
from backtest_pipeline.storage.logs import redacted

# Piped output has no width of its own; 80 columns would cut the tables.
_WIDTH = None if sys.stdout.isatty() else 110
console = Console(width=_WIDTH)
errors = Console(stderr=True, width=_WIDTH)

_PERCENT = {"total_return", "benchmark_return", "max_drawdown", "win_rate", "mean_turnover"}
_COUNTS = {"trade_count", "rows"}
_TITLES = {
    "world": "market",
    "timeframe": "tf",
    "total_return": "return",
    "benchmark_return": "benchmark",
    "sharpe": "Sharpe",
    "max_drawdown": "max DD",
    "trade_count": "trades",
    "win_rate": "win rate",
    "fees_paid": "fees",
    "diversification_benefit": "Sharpe gain",
    "effective_bets": "effective bets",
    "mean_turnover": "turnover",
}


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error with its secrets redacted, and exit."""
    errors.print(
        f"[bold red]error:[/] {escape(redacted(message))}", highlight=False, soft_wrap=True
    )
    sys.exit(code)


@contextmanager
def progress_shown() -> Iterator[Listener]:
    """A listener that shows the progress of stages on stderr while the block runs."""
    with progress_on(errors) as listener:
        yield listener


def say(line: str) -> None:
    """Print a line without markup or wrapping: names and paths may hold brackets and be long."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def say_where_the_cache_ends(not_fetched_since: Mapping[str, datetime]) -> None:
    """Print, for each asset whose exchange did not answer, where its cached bars end."""
    for asset, since in not_fetched_since.items():
        say(
            f"{asset}: the exchange did not answer, so cached bars were used; the bar closing at "
            f"{since:%Y-%m-%d %H:%M:%S} UTC and all later ones are missing"
        )


_json_to: TextIO | None = None


@contextmanager
def stdout_for_json() -> Iterator[None]:
    """Keep stdout for `print_json`: what else is printed, as by a strategy, goes to stderr."""
    global _json_to
    _json_to = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _json_to = None


def print_json(value: Mapping[str, Any]) -> None:
    """Print strict JSON; NaN and infinity are errors."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False), file=_json_to)


def rows_table(
    title: str, rows: Sequence[Mapping[str, Any]], *, percent: Collection[str] = _PERCENT
) -> Table:
    """A table of rows (at least one); an undefined value shows as a dash.

    Where it is too wide, texts are wrapped, but for the first column, which tells rows apart.

    Columns in `percent` hold fractions and are shown as percentages.
    """
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for position, name in enumerate(rows[0]):
        is_text = isinstance(rows[0][name], str)
        title = _TITLES.get(name, name)
        table.add_column(
            title, justify="left" if is_text else "right", no_wrap=not is_text or position == 0
        )
    for row in rows:
        table.add_row(*(escape(_shown(n, value, n in percent)) for n, value in row.items()))
    return table


def _shown(name: str, value: Any, is_percent: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if is_percent:
        return f"{value:.1%}"
    if name in _COUNTS or isinstance(value, int):
        return f"{value:,.0f}"
    return f"{value:,.2f}"
