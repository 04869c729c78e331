"""Files of rules: what they say, what is refused where, and what their hash follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtest_pipeline.market.errors import InvalidInput, RuleError
from backtest_pipeline.strategies.grid import parameter_grid
from backtest_pipeline.strategies.rules import from_toml, rule_hash
from backtest_pipeline.strategies.rules.rule_file import KEYS
from backtest_pipeline.strategies.strategy import (
    DeclaredColumn,
    Lookback,
    Strategy,
    conditions_of,
)
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.strategies.rules.by_loop import panel_of
from backtest_pipeline_tests.strategies.rules.documented import BY_NAME, PAGE

DIP = BY_NAME["dip"]
SMALL = 'name = "small"\nlong_entry = "close > 3"\n'


def read(text: str) -> Strategy[Any]:
    return from_toml(text.encode(), "my.toml")


def refusal(text: str) -> str:
    with pytest.raises(RuleError) as found:
        read(text)
    return str(found.value)


def held(text: str, columns: dict[str, list[Any]], **params: Any) -> dict[str, list[bool]]:
    strategy = read(text)
    conditions = conditions_of(strategy, panel_of(columns), strategy.parse(params))
    return {name: getattr(conditions, name).tolist() for name in vars(conditions)}


def test_the_example_of_the_page_is_a_strategy() -> None:
    strategy = read(DIP)
    params = strategy.parse({})
    assert strategy.name == "dip"
    assert strategy.description == "Buy a dip in an upward trend, sell when it is over."
    assert params.model_dump() == {
        "oversold": 30.0,
        "recovered": 60.0,
        "exit_bars": 20,
        "stop": 0.08,
        "calm": False,
    }
    assert strategy.columns(params) == ("open", "close", "ema_200", "rsi_14")
    assert strategy.columns(strategy.parse({"calm": True}))[-1] == "atr_14"
    assert strategy.stops(params) == StopRules(stop_loss=0.08, trailing_atr=3.0)
    assert strategy.cooldown(params) == 3
    assert strategy.lookback(params) == Lookback(200, recursive=True)
    assert strategy.grid == {"oversold": (20, 25, 30, 35), "recovered": (55, 60, 65, 70)}
    assert len(parameter_grid(strategy, {}, 100)) == 16


def test_a_rule_that_is_left_out_never_holds() -> None:
    found = held(SMALL, {"close": [1.0, 4.0]})
    assert found == {
        "long_entry": [False, True],
        "long_exit": [False, False],
        "short_entry": [False, False],
        "short_exit": [False, False],
    }


def test_a_variant_is_off_until_it_is_asked_for_and_filters_entries_alone() -> None:
    text = """
        name = "filtered"
        long_entry = "close > 1"
        long_exit = "close > 2"
        short_entry = "close > 1"
        [variants.big]
        entry = "volume > 5"
        [variants.long_only_up]
        long_entry = "close > open"
    """
    columns = {"close": [2.0, 3.0, 3.0], "open": [1.0, 1.0, 9.0], "volume": [6.0, 1.0, 6.0]}
    assert held(text, columns)["long_entry"] == [True, True, True]
    big = held(text, columns, big=True)
    assert (big["long_entry"], big["short_entry"]) == ([True, False, True],) * 2
    assert big["long_exit"] == [False, True, True]
    both = held(text, columns, big=True, long_only_up=True)
    assert (both["long_entry"], both["short_entry"]) == ([True, False, False], [True, False, True])
    assert read(text).columns(read(text).parse({})) == ("close",)


def test_parameters_are_typed_and_bounded() -> None:
    strategy = read(DIP)
    for given, reason in (
        ({"oversold": 3.0}, "oversold: .*must be at least 5"),
        ({"exit_bars": 20.5}, "exit_bars: must be a whole number"),
        ({"calm": 1}, "calm: must be true or false"),
        ({"overold": 20}, "unknown parameter 'overold'; did you mean oversold"),
        ({"stop": 1.5}, "stops: stop_loss must be above 0 and below 1"),
        ({"oversold": 50, "recovered": 50}, "oversold < recovered is required.*oversold 50.0"),
    ):
        with pytest.raises(InvalidInput, match=f"^dip: .*{reason}"):
            strategy.parse(given)


def test_a_window_follows_its_parameter_within_the_bounds_of_windows() -> None:
    text = (
        'name = "windowed"\n'
        'long_entry = "close >= mean(close, 2 * n) and shift(close, n - 2) > 0"\n'
        "[params]\nn = { default = 2, grid = [2, 3] }\n"
    )
    strategy = read(text)
    assert strategy.lookback(strategy.parse({"n": 30})) == Lookback(60, recursive=False)
    for n, reason in (
        (6_000, "n of mean.* to 10,000, not 12000"),
        (1, "the future"),
        (0, "from 1"),
    ):
        with pytest.raises(InvalidInput, match=rf"my.toml:2: long_entry: .*{reason}"):
            strategy.parse({"n": n})
    assert len(parameter_grid(strategy, {"n": [0, 1, 2, 3]}, 10)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "my.toml: name: a file of rules needs name"),
        ('name = "a b"', "my.toml:1: name: 'a b' cannot be a name"),
        ('name = "lambda"', "cannot be a name"),
        ("name = 3", "my.toml:1: name: a file of rules needs name, text in quotes"),
        ('name = "x"', "there is no entry; write long_entry or short_entry"),
        ("name = ]", "my.toml: this is not TOML: Invalid value (at line 1, column 8)"),
        (SMALL + SMALL, "this is not TOML: Cannot overwrite a value"),
        (f"x = {'[' * 3_000}", "my.toml: this is nested too deeply for TOML"),
        (f"x = {'9' * 9_000}", "my.toml: this is not TOML"),
        (f"x = 0x{'f' * 9_000}", "my.toml: a whole number of 36,000 bits is too large"),
        (f"x{'.x' * 2_000} = 1", "my.toml: x: unknown key 'x'"),
        (" " * 90_000, "my.toml: name: a file of rules needs name"),
        ("#" * 200_000, "my.toml: 200,000 bytes are more than a file of rules has (100,000)"),
        (SMALL + 'long_exi = "close < 1"', "my.toml:3: long_exi: unknown key 'long_exi'; did you"),
        (SMALL + 'sizing = "fixed"', "my.toml:3: sizing: this is a table: a line [sizing]"),
        (SMALL + 'long_exit = "close"', "long_exit: this is a number and must be a condition"),
        (SMALL + "long_exit = 3", "long_exit: a rule is text in quotes, not 3"),
        (SMALL + 'long_exit = "clse > 3"', "my.toml:3: long_exit, line 1, column 1: unknown"),
        (SMALL + "params = 3", "my.toml:3: params: this is a table"),
        (SMALL + "[params]\nclose = 3", "my.toml:4: params.close: 'close' is a feature already"),
        (SMALL + "[params]\nema_7 = 3", "'ema_7' is a feature already"),
        (SMALL + "[params]\nmean = 3", "'mean' is a function"),
        (SMALL + "[params]\njson = 3", "'json' is taken by the program"),
        (SMALL + "[params]\nmodel_x = 3", "'model_x' is taken by the program"),
        (
            SMALL + "[variants.copy]\nentry = 'close > 1'",
            "my.toml:3: variants.copy: 'copy' is taken",
        ),
        (SMALL + "[params]\nN = 3", "'N' cannot be a name"),
        (SMALL + "[params]\nn = 'a'", "a parameter is int, float, bool"),
        (SMALL + "[params]\nn = nan", "nan is no number"),
        (SMALL + "[params]\nn = 1e300", "is no number between"),
        (SMALL + "[params]\nn = { min = 3 }", "a parameter needs a default"),
        (SMALL + "[params]\nn = { default = 3, max = 2 }", "default: 3 is out of the par"),
        (SMALL + "[params]\nn = { default = 3, maxi = 2 }", "did you mean max"),
        (SMALL + "[params]\nn = { default = 3, min = 2.5 }", "2.5 is not whole"),
        (SMALL + "[params]\nn = { default = 3, type = 'text' }", "a parameter is int"),
        (SMALL + "[params]\nn = { default = 3, grid = 3 }", "this is a list of numbers"),
        (SMALL + "[params]\nn = { default = 3, max = 5, grid = [9] }", "9 is out of the par"),
        (SMALL + "[params]\nn = { default = true, min = 0 }", "neither range nor grid"),
        (SMALL + "[columns]\nscore = 'text'", "my.toml:4: columns.score: a column is 'number'"),
        (SMALL + "[columns]\nclose = 'number'", "'close' is a feature already"),
        (SMALL + "[columns]\n'a b' = 'number'", "'a b' cannot be read in a rule"),
        (SMALL + "[define]\nx = 'y + 1'\ny = 'close'", "my.toml:4: define.x, line 1, column 1"),
        (SMALL + "[params]\nx = 1\n[define]\nx = 'close'", "'x' is the name of another thing"),
        (SMALL + "[stops]\nstop_los = 0.1", "my.toml:4: stops.stop_los: unknown key"),
        (SMALL + "[stops]\natr_period = 'close'", "this is one number for a whole run"),
        (SMALL + "[params]\nn = 0\n[define]\nx = 'mean(close, n)'", "the defaults are not allowed"),
        (SMALL + "[stops]\nstop_loss = 2", "stop_loss must be above 0 and below 1"),
        (SMALL + "[stops]\nmax_bars = 2.5", "max_bars must be a whole number"),
        (SMALL + "cooldown = -1", "cooldown must be a whole number from 0"),
        (SMALL + "cooldown = true", "a rule is text in quotes, not True"),
        (SMALL + "require = 'a'", "this is a list of conditions on parameters"),
        (SMALL + "require = ['close > 1']", "'close > 1' reads a column"),
        (SMALL + "require = ['2 < 1']", "2 < 1 is required"),
        (SMALL + "variants = 3", "variants: this is a table"),
        (SMALL + "[variants]\nx = 3", "a variant is a table"),
        (SMALL + "[variants.x]\nlong_exit = 'close > 1'", "my.toml:4: variants.x.long_exit: unkn"),
        (SMALL + "[params]\nx = 1\n[variants.x]\nentry = 'close > 1'", "the name of another"),
    ],
)
def test_what_a_file_cannot_say_is_refused_with_its_line(text: str, message: str) -> None:
    assert message in refusal(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(RuleError, match=r"my.toml: byte 8 is not UTF-8"):
        from_toml(b'name = "\xff"', "my.toml")
    assert from_toml(b"\xef\xbb\xbf" + SMALL.encode(), "my.toml").name == "small"


def test_own_columns_are_asked_of_the_panel() -> None:
    text = SMALL.replace("close > 3", "score > 0.5 and in_index") + (
        '[columns]\nscore = "number"\nin_index = "flag"\n'
    )
    strategy = read(text)
    assert strategy.columns(strategy.parse({})) == ("score", "in_index")
    found = held(text, {"score": [0.6, 0.6, 0.4], "in_index": [1.0, 0.0, 1.0]})
    assert found["long_entry"] == [True, False, False]
    with pytest.raises(InvalidInput, match="small: the panel has no column 'in_index'"):
        held(text, {"score": [0.6]})
    assert strategy.declared["in_index"] == DeclaredColumn(
        "my.toml:5: columns.in_index", is_flag=True
    )


@pytest.mark.parametrize("flags", [[1.0, 0.0, np.nan], [True, False, False]])
def test_a_flag_is_true_false_or_undefined(flags: list[float]) -> None:
    text = SMALL.replace("close > 3", "not flag") + '[columns]\nflag = "flag"\n'
    assert held(text, {"flag": flags})["long_entry"] == [False, True, flags[2] is False]


@pytest.mark.parametrize("value", [0.37, 2.0, -1.0])
def test_a_flag_that_holds_another_number_is_an_error_at_its_bar(value: float) -> None:
    text = SMALL.replace("close > 3", "flag") + '[columns]\nflag = "flag"\n'
    told = rf"'flag' is declared a flag and is {value} at .*; a flag is 0, 1, .* flag > 0.5"
    with pytest.raises(InvalidInput, match=told):
        held(text, {"flag": [1.0, value, 0.0]})


BASE = """
name = "up"
long_entry = "close > ema(n) and volume > 2 * middle"
cooldown = 2
[params]
n = { default = 20, min = 2, grid = [10, 20] }
[define]
middle = "mean(volume, 10)"
[stops]
stop_loss = 0.1
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cooldown = 2\n", "# a comment\n\ncooldown   =  2  # and one more\n"),
        ("close > ema(n) and", "(close)>ema( n )  and"),
        ("2 * middle", "2.0 * middle"),
        ("middle", "average"),
        ("close > ema(n)", "ema(n) < close"),
        ('name = "up"', 'name = "up"\ndescription = "Buys what rises."'),
        ("min = 2, grid = [10, 20]", "grid = [ 10,20 ], min=2"),
        ("stop_loss = 0.1", 'stop_loss = "1e-1"'),
        ("[define]\n", '[define]\nunused = "close"\n'),
    ],
)
def test_the_hash_stays_where_the_same_is_said(old: str, new: str) -> None:
    assert old in BASE
    changed = BASE.replace(old, new)
    assert rule_hash(changed.encode(), "b.toml") == rule_hash(BASE.encode(), "a.toml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"up"', '"down"'),
        ("close >", "close >="),
        ("ema(n)", "wilder(close, n)"),
        ("2 * middle", "3 * middle"),
        ("(volume, 10)", "(volume, 11)"),
        ("default = 20", "default = 21"),
        ("min = 2", "min = 3"),
        ("[10, 20]", "[10, 21]"),
        ("cooldown = 2", "cooldown = 3"),
        ("stop_loss = 0.1", "stop_loss = 0.2"),
        ("stop_loss", "take_profit"),
        ("long_entry", "short_entry"),
        ("cooldown = 2", 'cooldown = 2\nlong_exit = "close < 1"'),
        ("cooldown = 2", 'cooldown = 2\nrequire = ["n > 3"]'),
        ("[stops]", '[variants.calm]\nentry = "close > 1"\n[stops]'),
    ],
)
def test_the_hash_changes_where_something_else_is_said(old: str, new: str) -> None:
    assert old in BASE
    assert rule_hash(BASE.replace(old, new).encode(), "a") != rule_hash(BASE.encode(), "a")


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert rule_hash(BASE.encode(), "a.toml") == "c9d27321a1d6c054"


def test_the_page_names_every_key() -> None:
    page = PAGE.read_text()
    for key in KEYS:
        assert f"`{key}`" in page or f"`[{key}" in page, key


def test_the_error_of_the_page_is_what_is_said() -> None:
    with pytest.raises(RuleError) as found:
        from_toml(DIP.replace("close > ema_200", "close > ema_2oo").encode(), "dip.toml")
    assert f"```\n{found.value}\n```" in PAGE.read_text()


def test_conditions_are_bool_columns_of_the_panel() -> None:
    strategy = read(SMALL)
    conditions = conditions_of(strategy, panel_of({"close": [1.0]}), strategy.parse({}))
    for name, column in vars(conditions).items():
        assert column.dtype == np.bool_, name
        assert column.shape == (1,), name
