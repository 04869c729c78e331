"""`--help`: answers without loading what computes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import dagster as dg
import pytest

from backtest_pipeline.launch import was_interrupted

HEAVY = (
    "numpy",
    "pandas",
    "pyarrow",
    "sqlalchemy",
    "dagster",
    "vectorbt",
    "numba",
    "psycopg",
    "plotly",
    "optuna",
)


COMMANDS = (
    *("", "run", "explore", "robustness", "refresh", "demo", "doctor"),
    *("walk-forward", "leaderboard", "negative-controls", "register-gates"),
    *("bars", "bars pull", "bars list"),
    *("replay", "explain-diff", "runs", "runs list", "retention"),
    *("look-ahead", "serve", "keys", "keys create"),
    *("pool", "pool certificates", "pool scheduler", "pool worker", "pool status"),
)
# Each command has a process that has loaded the command line and nothing else.
_ASK = """
import contextlib, io, json, os, sys
from backtest_pipeline.cli.main import main
for command in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    sys.argv, told = ["backtest-pipeline", *command.split(), "--help"], io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        main()
    print(json.dumps([command, told.getvalue(), sorted(sys.modules)]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[str, set[str]]]:
    """By command: its help, and the packages that were loaded when it was printed."""
    found = subprocess.run(
        [sys.executable, "-c", _ASK, *COMMANDS], capture_output=True, text=True, check=True
    )
    answers = map(json.loads, found.stdout.splitlines())
    return {
        command: (text, {name.partition(".")[0] for name in modules})
        for command, text, modules in answers
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(told: dict[str, tuple[str, set[str]]], command: str) -> None:
    text, loaded = told[command]
    assert f"Usage: backtest-pipeline {command}".strip() in text
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.usefixtures("cli")
def test_an_error_in_a_process_of_its_own_is_one_message_and_no_traceback() -> None:
    command = [sys.executable, "-m", "backtest_pipeline.cli.main", "run", "--signal", "rsi"]
    found = subprocess.run(
        [*command, "--asset", "A", "--start", "soon"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.splitlines()[-1].startswith("error: --start: 'soon' is not a date")
    assert "Traceback" not in found.stderr


def test_the_help_of_a_portfolio_names_every_scheme_that_there_is() -> None:
    from backtest_pipeline.pipeline.specs import PortfolioSpec
    from backtest_pipeline.research.portfolio.weights import SCHEMES

    told = PortfolioSpec.model_fields["scheme"].description or ""
    assert all(name in told for name in SCHEMES)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run --json", "Missing option '--asset'."),
        ("strategies show --json", "Missing argument 'NAME'."),
        (
            "run --asset BTC --delay-bars 1.5 --json",
            "Invalid value for '--delay-bars': must be a whole number",
        ),
    ],
)
def test_errors_of_the_arguments_are_json_too(command: str, message: str) -> None:
    program = [sys.executable, "-m", "backtest_pipeline.cli.main", *command.split()]
    found = subprocess.run(program, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert json.loads(found.stdout) == {"error": {"code": "BAD_PARAMS", "message": message}}
    assert message in found.stderr


def test_an_interrupted_command_says_what_is_kept() -> None:
    interrupted = """
import os, signal, sys
from backtest_pipeline.cli.main import app, main
app.command("wait")(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.argv = ["backtest-pipeline", "wait"]
main()
"""
    done = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True)
    assert done.returncode == 130
    assert "stored work is kept" in done.stdout + done.stderr


@dg.op
def interrupted() -> None:
    signal.raise_signal(signal.SIGINT)


@dg.op
def failing() -> None:
    raise KeyError("no such asset")


@pytest.mark.parametrize(("op", "expected"), [(interrupted, True), (failing, False)])
def test_a_run_of_dagster_tells_an_interrupt_from_a_failure(
    op: dg.OpDefinition, expected: bool
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = dg.GraphDefinition("one", node_defs=[op]).execute_in_process(raise_on_error=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not run.success
    assert was_interrupted(run) is expected
