"""What a process knows: shipped strategies, the user's own, and those that are refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from backtest_pipeline.market.errors import StrategyRefused, UnknownName
from backtest_pipeline.market.features import build_features
from backtest_pipeline.sources.sample import SampleMarket
from backtest_pipeline.strategies.known_strategies import (
    catalogue,
    look_again,
    shipped,
    use_folder,
    use_sources,
)
from backtest_pipeline.strategies.own import loading
from backtest_pipeline.strategies.own.source import Source
from backtest_pipeline.strategies.registry import strategies, strategy_hash, strategy_of
from backtest_pipeline.strategies.strategy import conditions_of
from backtest_pipeline_tests.own_strategies import DIP, tried, write


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "strategies"
    write(folder, "dip.py")
    use_folder(folder, tried=tried())
    yield folder
    use_folder(None)


def test_a_file_is_a_strategy_beside_those_shipped(folder: Path) -> None:
    assert strategies().keys() == {*shipped(), "dip"}
    assert strategy_of("dip").parse({"z": 3.0}).model_dump() == {"z": 3.0, "length": 20}
    assert catalogue().known["dip"].origin == f"{folder}/dip.py"


def test_an_edit_is_seen_where_something_begins_and_not_before(folder: Path) -> None:
    before, others = strategy_hash("dip"), strategy_hash("ema_crossover")
    write(folder, "dip.py", DIP.replace("default=20", "default=30"))
    assert strategy_hash("dip") == before  # what has begun ends with what it began with
    look_again()
    assert strategy_hash("dip") != before
    assert strategy_of("dip").parse({}).model_dump()["length"] == 30
    assert strategy_hash("ema_crossover") == others


def test_two_edits_in_the_same_instant_and_of_the_same_size_are_both_seen(folder: Path) -> None:
    seen = []
    for length in ("30", "40", "50"):
        write(folder, "dip.py", DIP.replace("default=20", f"default={length}"))
        look_again()
        seen.append(strategy_of("dip").parse({}).model_dump()["length"])
    assert seen == [30, 40, 50]


def test_a_comment_gives_no_new_version_and_a_deleted_file_no_strategy(folder: Path) -> None:
    before = strategy_hash("dip")
    write(folder, "dip.py", DIP + "# a comment\n")
    look_again()
    assert strategy_hash("dip") == before
    (folder / "dip.py").unlink()
    look_again()
    with pytest.raises(UnknownName, match="unknown strategy 'dip'"):
        strategy_of("dip")


def test_a_file_that_fails_names_its_line_and_the_others_go_on(folder: Path) -> None:
    write(folder, "wrong.py", "x = 1\n1 / 0\n")
    look_again()
    assert "dip" in strategies()
    with pytest.raises(StrategyRefused, match=r"wrong cannot be used: .*wrong\.py line 2: Zero"):
        strategy_of("wrong")
    write(folder, "wrong.py", DIP.replace('name="dip"', 'name="wrong"'))
    look_again()
    assert strategy_of("wrong").name == "wrong"


def test_of_two_strategies_of_one_name_neither_is_taken(folder: Path) -> None:
    write(folder, "other.py")
    write(folder, "mine.py", DIP.replace('name="dip"', 'name="ema_crossover"'))
    look_again()
    with pytest.raises(StrategyRefused, match=r"dip\.py and .*other\.py; rename all but one"):
        strategy_of("dip")
    assert catalogue().known["ema_crossover"].origin == "shipped"
    assert "shipped and " in catalogue().refused["ema_crossover"]


BROKEN = [
    ('name="dip"', 'name="Dip!"', "its name 'Dip!' must be lower-case"),
    ('grid={"z"', 'grid={"w"', "its grid names 'w', which is no parameter"),
    ('{"z": 2.0, "length": 20}}', '{"z": -1.0}}', "parameters of preset dip_2_20 are refused"),
    ("params_type=Dip", "params_type=dict", "must be a class derived from Params"),
    (
        '("close",)',
        "(params.nothing,)",
        "with its defaults: dip: columns() fails: ",
    ),
    ('("close",)', '"close"', "columns() returns 'close', no tuple of names"),
    ("(1.0, 2.0)", "2.0", "its grid must be a mapping of parameters to lists of numbers"),
    ("(10, 20)", '("10", "20")', "its grid must be a mapping of parameters to lists of"),
    ('presets={"dip_2_20"', 'presets={"Dip 2/20"', "its preset 'Dip 2/20' must be lower-case"),
    ('{"z": 2.0, "length": 20}}', "None}", "preset dip_2_20 must be a mapping"),
    ('presets={"dip_2_20": {"z": 2.0, "length": 20}}', 'presets=["a"]', "its presets must be"),
    ("grid={", "stops=lambda params: 5,\n    grid={", "stops() returns 5, no StopRules"),
    ("grid={", "cooldown=lambda params: -1,\n    grid={", "cooldown() returns -1, no whole"),
]


def test_strategies_that_break_the_contract_are_refused(folder: Path) -> None:
    for n, (old, new, _) in enumerate(BROKEN):  # one process tries them all
        assert old in DIP
        write(folder, f"dip_{n}.py", DIP.replace(old, new))
    look_again()
    for n, (_, _, why) in enumerate(BROKEN):
        assert why in catalogue().refused[f"dip_{n}"]


def test_a_module_of_a_folder_that_cannot_be_read_refuses_that_folder_alone(folder: Path) -> None:
    write(folder, "pair/__init__.py", DIP.replace('name="dip"', 'name="pair"'))
    write(folder, "pair/scratch.py", "def f(:\n")  # nothing imports it
    write(folder, "wide/__init__.py", DIP.replace('name="dip"', 'name="wide"'))
    (folder / "wide" / "__init__.py").chmod(0o666)
    look_again()
    assert "dip" in strategies()
    assert catalogue().refused["pair"].startswith("pair/scratch.py line 1: invalid syntax")
    assert "may be written by every user" in catalogue().refused["wide"]


def test_of_two_files_of_one_name_that_fail_both_are_told(folder: Path) -> None:
    write(folder, "wrong.py", "1 / 0\n")
    write(folder, "wrong.toml", "name = 3\n")
    look_again()
    assert "wrong.py line 1" in catalogue().refused["wrong"]
    assert "wrong.toml" in catalogue().refused["wrong"]


def test_a_short_name_of_a_shipped_strategy_is_taken(folder: Path) -> None:
    write(folder, "rsi.py", DIP.replace('name="dip"', 'name="rsi"'))
    look_again()
    assert strategy_of("rsi").name == "rsi_mean_revert"
    assert "shipped, as short for rsi_mean_revert and " in catalogue().refused["rsi"]


def test_an_error_names_the_line_of_the_strategy_and_not_of_a_library(folder: Path) -> None:
    panel = build_features(SampleMarket().read(["S-ALPHA"]).panels["1D"])
    for wrong, why in (
        ('features["closing"]', r"dip fails: KeyError: 'closing' \(.*dip\.py line 14\)"),
        ('features["rsi_14"]', r"KeyError: 'rsi_14' .*; name it in the columns of the strategy"),
        ("exit(3)", r"dip fails: SystemExit: 3 \(.*dip\.py line 14\)"),
        ('features["close"].head(3)\n    return {"long_entry": close > 0}', "dip: rule on S-ALPHA"),
    ):
        write(folder, "dip.py", DIP.replace('features["close"]', wrong))
        look_again()
        dip = strategy_of("dip")
        with pytest.raises(StrategyRefused, match=why):
            conditions_of(dip, panel, dip.parse({}))


def test_a_strategy_cannot_change_what_it_reads(folder: Path) -> None:
    panel = build_features(SampleMarket().read(["S-ALPHA"]).panels["1D"])
    before = panel["close"].copy()
    text = DIP.replace(
        "conditions=per_asset(rule)", "conditions=lambda panel, params: spoil(panel)"
    )
    spoil = "def spoil(panel):\n    panel['close'][:] = 1.0\n\n\nclass Dip"
    write(folder, "dip.py", text.replace("class Dip", spoil, 1))
    look_again()
    dip = strategy_of("dip")
    with pytest.raises(StrategyRefused, match=r"dip fails: ValueError: .*read-only"):
        conditions_of(dip, panel, dip.parse({}))
    assert (panel["close"] == before).all()


def test_looking_again_reads_nothing_while_nothing_has_changed(folder: Path) -> None:
    time.sleep(0.1)
    use_folder(None)
    use_folder(folder)
    first = catalogue()
    look_again()
    assert catalogue() is first


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            '("close",)',
            '(("close",)[params.length - 20],)',
            r"columns\(\) fails: IndexError",
        ),
        ('("close",)', '("close",) if params.length < 30 else None', r"columns\(\) returns None"),
        (
            '("close",)',
            '("close",) if params.length < 30 else exit(3)',
            r"columns\(\) fails: SystemExit: 3 \(.*dip\.py line",
        ),
        ("grid={", "stops=lambda p: None if p.length == 30 else StopRules(),\n    grid={", "stops"),
    ],
)
def test_functions_of_parameters_that_fail_with_some_name_these(
    folder: Path, old: str, new: str, why: str
) -> None:
    importing = "from backtest_pipeline.trading.stops import StopRules\n"
    write(folder, "dip.py", importing + DIP.replace(old, new))
    look_again()
    strategy = strategy_of("dip")
    given = strategy.parse({"length": 30})

    def both() -> object:
        return strategy.columns(given), strategy.stops(given)

    with pytest.raises(StrategyRefused, match=rf"dip: {why}.*; given z 2.0, length 30"):
        both()


def test_a_validator_that_ends_the_process_is_an_error_of_the_strategy(folder: Path) -> None:
    validated = "    @field_validator('z')\n    def known(cls, z):\n        return z or exit(3)\n"
    text = DIP.replace("import Field", "import Field, field_validator").replace("gt=0", "ge=0")
    write(folder, "dip.py", text.replace("\n\ndef rule", f"\n{validated}\n\ndef rule", 1))
    look_again()
    with pytest.raises(StrategyRefused, match=r"parameters fail: SystemExit: 3 \(.*dip\.py line"):
        strategy_of("dip").parse({"z": 0.0})


def test_an_archived_source_is_known_without_a_folder(folder: Path) -> None:
    use_sources(Source.of({"dip.py": DIP.replace("default=20", "default=7").encode()}))
    assert strategy_of("dip").parse({}).model_dump()["length"] == 7
    use_sources()
    assert "dip" not in strategies()


def test_a_package_gives_strategies_and_one_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = loading.GROUP
    shipped_module = "backtest_pipeline.strategies.rsi_mean_revert"
    found = {
        "good": EntryPoint("good", f"{shipped_module}:STRATEGY", group),
        "gone": EntryPoint("gone", "no_such_package:STRATEGY", group),
        "odd": EntryPoint("odd", "json:dumps", group),
    }
    monkeypatch.setattr(loading, "entry_points", lambda group: list(found.values()))
    loading._packages.cache_clear()
    try:
        known = dict(loading.packages())
    finally:
        loading._packages.cache_clear()
    assert isinstance(known["good"], loading.Loaded)
    assert "ModuleNotFoundError" in str(known["gone"])
    assert "or correct the package's entry point" in str(known["gone"])
    assert "names no strategy" in str(known["odd"])
