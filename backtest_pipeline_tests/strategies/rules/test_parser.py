"""What the language has, and that everything else is refused at its place."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import backtest_pipeline
from backtest_pipeline.market.errors import RuleError
from backtest_pipeline.strategies.rules.functions import FUNCTIONS
from backtest_pipeline.strategies.rules.operators import ValueKind
from backtest_pipeline.strategies.rules.parser import parse
from backtest_pipeline.strategies.rules.program import Program

ROOT = Path(__file__).parents[3]


def parsed(text: Any) -> tuple[Program, int]:
    program = Program()
    names: dict[str, int | ValueKind] = {
        "window": program.parameter("window", ValueKind.NUMBER),
        "is_on": program.parameter("is_on", ValueKind.CONDITION),
        "score": ValueKind.NUMBER,
    }
    return program, parse(program, text, names, "my.toml: long_entry")


def refusal(text: Any) -> RuleError:
    with pytest.raises(RuleError) as found:
        parsed(text)
    return found.value


@pytest.mark.parametrize(
    "text",
    [
        "close > ema_50",
        "  close\n  > ema_50 and\r\n\tvolume > mean(volume, 2 * window, prior=True)",
        "not has_outlier or 0 < rsi_14 <= 30.5",
        "(close if is_on else open) > shift(close, 0)",
        "shift(close > open, 3)",
        "min(open, close, high, low) < 1e-3 + .5 + 5.",
        "score >= quantile(score, window, 0.9)",
        "close > highest(high, 20, prior=True) - 2 * atr(window)",
        "+close - -close > abs(-3)",
        "ema_10000 > 1 and std(close, 2, ddof=1) > 0 and std(close, 1, ddof=0) >= 0",
        f"{'(' * 60}close > 1{')' * 60}",
        f"close > {' + '.join(['1'] * 23)}",
    ],
)
def test_sound_rules_are_conditions(text: str) -> None:
    program, step = parsed(text)
    assert program.kinds[step] is ValueKind.CONDITION


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("clse > 3", 1, "unknown column or parameter 'clse'; did you mean close"),
        ("   clse > 3", 4, "did you mean close"),
        ("close > windw", 9, "did you mean window"),
        ("close > xyzzy", 9, r"name columns of your own in \[columns\]"),
        ("close > emaa(3)", 9, "unknown function 'emaa'; did you mean ema"),
        ("close(3) > 1", 1, "close is no function"),
        ("ema > 1", 1, r"ema is a function; write ema\(n\) or ema\(x, n\)"),
        ("shift(close, -1) > close", 14, "the future"),
        ("shift(close, 0 - 1) > close", 14, "the future"),
        ("shift(close, 1.5) > close", 14, "a whole number"),
        ("mean(close, 0) > 1", 13, "from 1 to 10,000, not 0"),
        ("mean(close, 10001) > 1", 13, "from 1 to 10,000"),
        ("std(close, 1, ddof=1) > 1", 12, "from 2 to 10,000"),
        ("mean(close, close) > 1", 13, "must be one number for all bars"),
        ("quantile(close, 9, 2) > 1", 20, "q of quantile.* from 0 to 1"),
        ("std(close, 20) > 1", 1, "std needs ddof"),
        ("std(close, 20, ddof=2) > 1", 16, "ddof must be 0 or 1"),
        ("std(close, 20, ddof=True) > 1", 16, "ddof must be 0 or 1"),
        ("highest(close, 20, prior=1) > 1", 20, "prior must be False or True"),
        ("mean(close, n=20) > 1", 1, r"mean is written mean\(x, n, prior=False\)"),
        ("mean(close, 20, before=True) > 1", 17, "mean is written"),
        ("ema(close, 20, prior=True) > 1", 16, "ema is written"),
        ("max(close) > 1", 1, "max is written"),
        ("max(*close, *open) > 1", 5, "not part of the language"),
        ("mean(close, 20, **open) > 1", 17, "mean is written"),
        ("ema_0 > 1", 1, "unknown column or parameter 'ema_0'"),
        ("ema_99999999999999999999 > 1", 1, "unknown column or parameter"),
        ("ema(close) > 1", 5, "must be one number for all bars"),
        ("close > 'abc'", 9, "'abc' is text"),
        ("close > b'abc'", 9, "is no number"),
        ("close > True", 9, "True is no number"),
        ("close > None", 9, "None is no number"),
        ("close > 2j", 9, "'2j' is no number"),
        ("close > 0x10", 9, "'0x10' is no number"),
        ("close > 1_000", 9, "'1_000' is no number"),
        ("1and close > 1", 1, "'1and' is no number"),
        ("close > 1e999", 9, "too large"),
        (f"close > {'9' * 400}", 9, "too large"),
        ("close > 1 / 0", 9, "a division by zero"),
        ("close > open / (2 - 2)", 9, "a division by zero"),
        ("close > 1e300 * 1e300", 9, "never defined"),
        ("close > 2 + sqrt(0 - 1)", 13, "never defined"),
        ("log(0) > 1", 1, "never defined"),
        ("not close", 5, "`not` takes conditions"),
        ("close > 1 and volume", 15, "`and` takes conditions"),
        ("(close > 1) + 1 > 2", 2, r"`\+` takes numbers"),
        ("(close > 1) > 0", 2, "a comparison takes numbers"),
        ("mean(close > 1, 3) > 0", 6, r"mean\(\) takes numbers"),
        ("crosses_above(close > 1, 3)", 15, "takes numbers"),
        ("close > (1 if close else 2)", 15, "`if` takes conditions"),
        ("close > (1 if is_on else close > 2)", 10, "a number here and a condition there"),
        ("close ** 2 > 1", 1, "there is no power"),
        ("close % 2 > 1", 1, "there is no remainder"),
        ("close // 2 > 1", 1, "no whole division"),
        ("close @ '1W' > 1", 1, r"write at\('1W', x\)"),
        ("(close > 1) & (open > 1)", 1, "join conditions by `and`"),
        ("~(close > 1)", 1, "negate a condition by `not`"),
        ("close == 1", 1, "compared by < <= > >="),
        ("close != 1", 1, "compared by < <= > >="),
        ("close in open", 1, "there is no such operator"),
        ("close.values > 1", 1, "a name has no dot"),
        ("close[1] > 1", 1, r"shift\(x, n\) is x of n bars before"),
        ("(lambda: 0)() > 1", 2, "functions cannot be defined"),
        ("(x := 3) > 1", 2, "nothing is assigned"),
        ("f'{close}' > 1", 1, "text only names a timeframe"),
        ("[close for close in open] > 1", 1, "not part of the language"),
        ("{close: 1} > 1", 1, "not part of the language"),
        ("(close, open) > 1", 1, "not part of the language"),
        ("(yield) > 1", 2, "not part of the language"),
        ("(await close) > 1", 2, "not part of the language"),
        ("__import__('os').system('ls')", 1, "a name has no dot"),
        ("abs(1)(2) > 1", 1, "only a function is followed by brackets"),
        ("(1)(2) > 1", 1, "only a function is followed by brackets"),
        ("close = 1", 7, "cannot be read"),
        ("close >", 8, "cannot be read"),
        ("(close > 1", 1, "never closed"),
        ("close > 1)", 10, "unmatched"),
        ("close > 1 # always", 11, "comments stand outside its quotes"),
        ("close \\\n > 1", 7, "has no meaning in a rule"),
        ("close > 1\x00", 10, "has no meaning in a rule"),
        ("\uff43lose > 1", 1, "not ASCII"),
        ("close > \ud800", 9, "not ASCII"),
        ("", 1, "the rule is empty"),
        (" \n ", 1, "the rule is empty"),
        ("at('1X', close) > 1", 4, "unknown timeframe '1X'"),
        ("at(close, 3) > 1", 4, "a timeframe in quotes"),
        ("at('1W', clse) > 1", 10, "did you mean close"),
        ("at('1W', at('1M', close)) > 1", 10, "inside of at"),
        ("rank_pct(close > 1) > 1", 10, "takes numbers"),
        ("rank_pct(2) > 1", 10, "the same for all assets"),
        ("close > rank_pct(close - rank_pct(open))", 18, "inside of rank_pct"),
        ("at('1W', 1 - rank_pct(close)) > 1", 10, r"rank_pct\(\) inside of at"),
    ],
)
def test_what_the_language_does_not_have_is_refused_at_its_place(
    text: str, column: int, reason: str
) -> None:
    error = refusal(text)
    assert error.column == column
    assert re.search(reason, error.reason)
    assert str(error).startswith("my.toml: long_entry, line 1, column ")


def test_the_message_shows_the_line_and_points_at_the_place() -> None:
    error = refusal("close > 1 and\n  volume > mean(volme, 20)\n  and close > 2")
    assert (error.line, error.column) == (2, 17)
    first, *shown = str(error).splitlines()
    assert first.startswith("my.toml: long_entry, line 2, column 17: unknown column or parameter")
    assert shown == ["      volume > mean(volme, 20)", "                    ^"]


def test_a_long_line_is_shown_around_the_place() -> None:
    message = str(refusal(f"{'close > 1 and ' * 20}clse > 1"))
    assert max(map(len, message.splitlines())) < 130
    shown, caret = message.splitlines()[-2:]
    assert shown[caret.index("^") :].startswith("clse")


@pytest.mark.parametrize("text", [3, True, None, ["close > 1"], {"a": 1}])
def test_a_rule_is_text(text: Any) -> None:
    assert "a rule is text in quotes" in str(refusal(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a" * 1_000_000, "1,000,000 characters are more than 2,000"),
        (f"close > {'1 + ' * 480}1", "nested more than 24 deep"),
        (f"{'not ' * 498}close", "nested more than 24 deep"),
        (f"{'-' * 1_900}close", "nested|cannot be read"),
        (f"{'(' * 900}close{')' * 900}", "cannot be read"),
        (f"{'abs(' * 200}close{')' * 200}", "nested more than 24 deep|cannot be read"),
        (f"close{' < 1' * 210}", "more than 200 parts"),
        (" and ".join(["close > 1"] * 120), "more than 200 parts"),
    ],
)
def test_texts_are_bounded_in_length_size_and_depth(text: str, reason: str) -> None:
    error = refusal(text)
    assert error.column is not None
    assert re.search(reason, error.reason)


def test_a_period_or_window_of_a_parameter_is_left_to_its_value() -> None:
    program, _ = parsed("mean(close, window) > ema(2 * window)")
    assert [limit.name for limit in program.limits] == ["n of mean()", "the period of ema"]


@pytest.mark.parametrize("folder", ["strategies/rules", "plans", "strategist", "strategist/llm"])
def test_no_text_is_ever_run(folder: str) -> None:
    forbidden = {"eval", "exec", "compile", "pickle", "marshal", "importlib", "__import__", "open"}
    paths = sorted((Path(backtest_pipeline.__path__[0]) / folder).glob("*.py"))
    assert len(paths) > 4
    for path in paths:
        tree = ast.parse(path.read_text())
        found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        found |= {
            f"{node.func.value.id}.{node.func.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", "")
                names = {alias.name for alias in node.names}
                # Files of the package itself, such as prompts, are no code.
                found |= (
                    names if (module, names) == ("importlib", {"resources"}) else {module, *names}
                )
        assert not found & forbidden, path.name
        assert not {name for name in found if name.endswith((".eval", ".query", ".literal_eval"))}


def test_the_page_has_every_function_and_no_other() -> None:
    page = (ROOT / "docs/rules.md").read_text()
    table = page.partition("| expression | gives |")[2].partition("\n\n")[0]
    first = [row.split("|")[1] for row in table.splitlines()[2:]]
    shown = {
        found.func.id
        for cell in first
        for text in cell.split("`")[1::2]
        for found in ast.walk(_tree(text))
        if isinstance(found, ast.Call) and isinstance(found.func, ast.Name)
    }
    assert shown == FUNCTIONS.keys()


def _tree(text: str) -> ast.AST:
    return ast.parse(text.replace(", ...", ""), mode="eval")
