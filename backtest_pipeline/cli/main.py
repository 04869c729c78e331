"""`backtest-pipeline`: the commands, each in the file of its name."""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules

import typer

from backtest_pipeline import cli
from backtest_pipeline.cli.console import console, fail
from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.storage.logs import set_up_logging

app = typer.Typer(
    help="Backtest strategies on crypto bars, and test how far the results can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _module in iter_modules(cli.__path__):
    if _module.name != "main":
        _commands = getattr(import_module(f"{cli.__name__}.{_module.name}"), "app", None)
        if _commands is not None:
            app.add_typer(_commands)


def main() -> None:
    """Run the command; errors of this project become a message and exit code 1."""
    set_up_logging()
    try:
        app()
    except BacktestError as error:
        fail(str(error))
    except KeyboardInterrupt:
        console.print("interrupted: stored work is kept; run the command again to continue")
        sys.exit(130)


if __name__ == "__main__":
    main()
