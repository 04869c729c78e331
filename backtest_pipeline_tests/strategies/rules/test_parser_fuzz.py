"""Texts that nobody would write are parsed or refused at a place, and never run."""

from __future__ import annotations

import os
import random
import string
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from backtest_pipeline.market.errors import RuleError
from backtest_pipeline.strategies.rules import from_toml
from backtest_pipeline.strategies.rules.operators import ValueKind
from backtest_pipeline.strategies.rules.parser import parse
from backtest_pipeline.strategies.rules.program import Program
from backtest_pipeline_tests.strategies.rules.documented import TEXTS

EXAMPLES = int(os.environ.get("BACKTEST_EXAMPLES", "100")) * 100
SEEDS = [
    "close > ema_50 and crosses_above(rsi_14, low) or not has_outlier",
    "close > highest(high, n, prior=True) - 2 * std(close, 20, ddof=0)",
    "(close if volume > 1e3 else open) / shift(close, 3) < quantile(close, n, 0.5)",
    "__import__('os').system('touch x') > 1",
    "at('1W', rank_pct(close)) > 0.5",
    "rsi(n) / 2 < ema(close + 1, 12) <= -5 or between(close, low, high)",
]
PIECES = [
    *(
        "(",
        ")",
        ",",
        "'",
        '"',
        "not ",
        " and ",
        " or ",
        " if ",
        " else ",
        "**",
        "1e",
        "1e999",
        ":=",
    ),
    *("lambda x: ", "[", "]", "{", "}", "f'", "__class__", ".", "*", "-", "\\", "\n", "\x00", "#"),
    *(
        "\ud800",
        "\uff43",
        "close",
        "shift(",
        "9" * 30,
        "0x",
        "True",
        "await ",
        "yield ",
        "=",
        "==",
        ";",
    ),
]


def mutated(rng: random.Random, text: str) -> str:
    characters = list(text)
    for _ in range(rng.choice((1, 1, 2, 6))):
        at = rng.randint(0, len(characters))
        match rng.randint(0, 4):
            case 0:
                characters[at:at] = rng.choice(PIECES)
            case 1:
                del characters[at : at + rng.randint(1, 8)]
            case 2:
                characters[at:at] = rng.choice(string.printable) * rng.choice((1, 1, 1, 40))
            case 3:
                other = rng.randint(0, len(characters))
                characters[at:at] = characters[min(at, other) : max(at, other)][:200]
            case _:
                characters[at : at + 1] = rng.choice(
                    (*"0123456789+-*/<>() ", chr(rng.randrange(0x250)))
                )
    return "".join(characters)


@pytest.fixture(scope="module")
def never_run() -> Iterator[dict[str, Any]]:
    """Fails where anything is imported, opened or started; what an audit hook sees."""
    state = {"is_on": False, "seen": []}

    def look(event: str, args: tuple[Any, ...]) -> None:
        if state["is_on"] and event.split(".")[0] in ("exec", "import", "open", "os", "subprocess"):
            state["seen"].append((event, args))

    sys.addaudithook(look)
    yield state
    state["is_on"] = False


def refusal(never_run: dict[str, Any], work: Callable[[], object]) -> RuleError | None:
    """The error of reading a text, if it is refused; any other error is the test's."""
    never_run["is_on"] = True
    try:
        work()
    except RuleError as error:
        return error
    finally:
        never_run["is_on"] = False
    return None


def test_mutated_rules_are_parsed_or_refused_at_a_place(never_run: dict[str, Any]) -> None:
    rng = random.Random(20)  # noqa: S311 - no secret
    n_parsed = 0
    for i in range(EXAMPLES):
        text = mutated(rng, SEEDS[i % len(SEEDS)])
        program = Program()
        names: dict[str, int | ValueKind] = {"n": program.parameter("n", ValueKind.NUMBER)}
        error = refusal(never_run, partial(parse, program, text, names, "fuzz"))
        n_parsed += error is None
        if error is not None:
            assert error.line is not None, text
            assert error.column is not None, text
            assert error.line <= text.count("\n") + 1
    assert 0 < n_parsed < EXAMPLES / 2
    assert never_run["seen"] == []


def test_mutated_files_are_read_or_refused(never_run: dict[str, Any]) -> None:
    rng = random.Random(21)  # noqa: S311 - no secret
    for i in range(EXAMPLES // 20):
        content = mutated(rng, TEXTS[i % len(TEXTS)]).encode(errors="surrogatepass")
        error = refusal(never_run, partial(from_toml, content, "fuzz.toml"))
        assert error is None or str(error).startswith("fuzz.toml")
    assert never_run["seen"] == []
