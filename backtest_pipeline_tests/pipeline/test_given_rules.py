"""Rules that come with a spec: the same runs as from a file, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtest_pipeline.market.errors import InvalidInput, StrategyRefused, UnknownName
from backtest_pipeline.pipeline.execution import declare, execute
from backtest_pipeline.pipeline.jobs.requests import submit
from backtest_pipeline.pipeline.presets import active_presets
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.specs import JobSpec, WalkForwardSpec, spec_of
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.strategies.known_strategies import catalogue, look_again
from backtest_pipeline_tests.own_strategies import own_strategies, write
from backtest_pipeline_tests.sql import column

RULES = """
name = "cross"
long_entry = "crosses_above(close, mean(close, n))"
long_exit = "close < mean(close, n)"
[params]
n = { default = 5, min = 2, max = 50, grid = [5, 8] }
[presets.cross_5]
n = 5
"""
WEEKLY = {"symbol": "S-ALPHA", "timeframe": "1W"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with own_strategies(tmp_path / "strategies") as folder:
        yield folder


def _result(workspace: Workspace, **spec: Any) -> Any:
    return execute(workspace, load_settings(bars=""), spec_of({**WEEKLY, **spec}))


def test_rules_give_the_runs_of_a_file_of_the_same_rules(
    workspace: Workspace, folder: Path
) -> None:
    given = _result(workspace, rules=RULES, params={"n": 8})
    assert (given.strategy, given.params) == ("cross", {"n": 8})
    assert "cross" not in catalogue().known
    assert "cross_5" not in [preset.name for preset in active_presets(workspace)]
    assert column(workspace, "SELECT origin FROM strategy_sources") == [
        "rules that were given with a run"
    ]
    (replayed,) = replay_runs(workspace, [str(given.run_id)])
    assert replayed.verdict is ReplayVerdict.SAME
    write(folder, "cross.toml", RULES)
    assert _result(workspace, strategy="cross", params={"n": 8}) == given
    again = _result(workspace, rules=f"# another comment\n{RULES}", params={"n": 8})
    assert again == given


def test_other_rules_of_the_same_name_are_another_version(
    workspace: Workspace, folder: Path
) -> None:
    one = _result(workspace, rules=RULES)
    other = _result(workspace, rules=RULES.replace("close < mean", "close < 0.9 * mean"))
    assert one.run_id != other.run_id
    assert one.metrics["trade_count"] > other.metrics["trade_count"]
    assert column(workspace, "SELECT strategy FROM trials") == ["cross"] * 2
    found = replay_runs(workspace, [str(one.run_id), str(other.run_id)])
    assert [run.verdict for run in found] == [ReplayVerdict.SAME] * 2


def test_every_use_case_takes_rules(workspace: Workspace, folder: Path) -> None:
    assert _result(workspace, rules=RULES, kind="optimize").n_combinations == 2
    walk = {"rules": RULES, "train_days": 400, "test_days": 200}
    walked = _result(workspace, **walk, kind="walkforward")
    assert (walked.strategy, walked.n_walk_forwards) == ("cross", 1)
    both = {"symbols": ["S-ALPHA", "S-BETA"], "timeframe": "1W", "rules": RULES}
    settings = load_settings(bars="")
    assert len(execute(workspace, settings, spec_of({**both, "kind": "portfolio"})).run_ids) == 2
    asked = WalkForwardSpec.model_validate({**WEEKLY, **walk, "symbol": "S-BETA"})
    with pytest.raises(InvalidInput, match="cannot be declared any more"):
        declare(workspace, settings, asked)
    job = JobSpec(spec=spec_of({**WEEKLY, "rules": RULES}))
    assert submit(workspace.database, job, "ann", most_combinations=500).strategy == "cross"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"strategy": "rsi"}, "give the rules alone, or a strategy or preset"),
        ({"preset": "ema_9_21"}, "give the rules alone, or a strategy or preset"),
        ({"params": {"m": 3}}, "unknown parameter 'm'; known: n"),
        (
            {"rules": RULES.replace("close, n))", "close, m))", 1)},
            r"rules:3: long_entry, line 1, column 34: unknown column or parameter 'm'",
        ),
        ({"rules": 'name = "x"'}, "rules: there is no entry"),
        ({"rules": "name = '\ud83d'"}, "rules: character 9 is half of a surrogate pair"),
        ({"rules": "#" * 100_001}, "100,001 bytes are more than a file of rules has"),
        ({"rules": RULES.replace("cross", "rsi", 1)}, "named rsi, and so is another .*: shipped"),
        (
            {"rules": RULES.replace("cross", "macd_crossover", 1)},
            "named macd_crossover, and so is another strategy: shipped; give the rules another",
        ),
    ],
)
def test_what_is_wrong_with_rules_is_said(
    workspace: Workspace, folder: Path, spec: dict[str, Any], why: str
) -> None:
    with pytest.raises((InvalidInput, UnknownName), match=why):
        _result(workspace, **{"rules": RULES, **spec})


def test_rules_may_not_stand_in_for_a_file_of_their_name(
    workspace: Workspace, folder: Path
) -> None:
    write(folder, "cross.toml", RULES.replace("close < mean", "close < 0.9 * mean"))
    look_again()
    with pytest.raises(StrategyRefused, match=rf"named cross, .*: {folder}/cross\.toml; give"):
        _result(workspace, rules=RULES)
