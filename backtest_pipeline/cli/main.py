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
    help="Crypto features to trusted backtests: bars, features, signals, backtests, portfolios.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _found in iter_modules(cli.__path__):
    if _found.name != "main":
        _commands = getattr(import_module(f"{cli.__name__}.{_found.name}"), "app", None)
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
        console.print("interrupted; what was stored stays, run the command again to go on")
        sys.exit(130)


if __name__ == "__main__":
    main()
