"""`backtest-pipeline`: the commands, each in the file of its name."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from backtest_pipeline import cli
from backtest_pipeline.cli.console import console, fail, print_json, stdout_for_json
from backtest_pipeline.market.errors import BacktestError, InvalidInput
from backtest_pipeline.market.field_problems import field_problems
from backtest_pipeline.storage import PRIVATE
from backtest_pipeline.storage.logs import redacted, set_up_logging

_INTERRUPTED = 130  # what Typer makes of Ctrl-C


class _Commands(TyperGroup):
    """The commands; what is wrong with an option is said as everywhere else."""

    def invoke(self, ctx: Any) -> Any:
        """What the command returns."""
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = "; ".join(field_problems(error.__cause__.errors()))
            raise


app = typer.Typer(
    cls=_Commands,
    help="Backtest strategies on crypto bars, and test how far the results can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        console.print(f"backtest-pipeline {version('backtest-pipeline')}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None: ...


for _module in iter_modules(cli.__path__):
    if _module.name != "main":
        _commands = getattr(import_module(f"{cli.__name__}.{_module.name}"), "app", None)
        if _commands is not None:
            app.add_typer(_commands)


def main() -> None:
    """Run the command; errors of this project become a message and exit code 1."""
    set_up_logging()
    before = os.umask(PRIVATE)
    try:
        with stdout_for_json() if "--json" in sys.argv else nullcontext():
            _run()
    finally:
        os.umask(before)


def _run() -> None:
    as_json = "--json" in sys.argv
    try:
        sys.exit(app(standalone_mode=not as_json))
    except typer.TyperException as error:  # of the arguments; without --json Typer prints it
        print_json({"error": {"code": InvalidInput.code, "message": error.format_message()}})
        fail(error.format_message(), code=2)
    except typer.Abort:
        fail("aborted: a question was not answered")
    except BacktestError as error:
        if as_json:
            print_json({"error": {"code": error.code, "message": redacted(str(error))}})
        fail(str(error))
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            console.print("interrupted: stored work is kept; run the command again to continue")
        raise


if __name__ == "__main__":
    main()
