"""Runs of strategies with stops and sizings of their own through every way to compute them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtest_pipeline.market.errors import StrategyRefused
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.specs import RunSpec, spec_of
from backtest_pipeline.pipeline.use_cases.backtest import backtest
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.own_strategies import DIP, own_strategies, write
from backtest_pipeline_tests.pipeline.markets import refresh, until
from backtest_pipeline_tests.sql import column

RULES = """
name = "sized"
long_entry = "crosses_above(close, ema_21)"
long_exit = "close < ema_21"
[params]
risk = { default = 0.02, above = 0, max = 1, grid = [0.01, 0.02] }
[stops]
trailing = "100 * risk * (high / low - 1)"
"""
STOPS = {"trailing": "2 * ((high / low) - 1)", "atr_period": 14}
NO_OTHERS = dict.fromkeys(("stop_loss", "take_profit", "trailing_atr", "max_bars"))
BY_BAR = RULES + '[sizing]\nfraction = "risk / (atr_14 / close)"\n'
BY_NUMBER = RULES + '[sizing]\nfraction = "10 * risk"\n'
ALL_OF_IT = {"sizing": {"mode": "fixed", "fraction": 1.0}}
ASKED = {"symbol": "S-ALPHA", "timeframe": "1D"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    with own_strategies(tmp_path / "strategies") as folder:
        yield folder


def result(workspace: Workspace, **spec: Any) -> Any:
    return execute(workspace, load_settings(bars=""), spec_of({**ASKED, **spec}))


def verdicts(workspace: Workspace, *run_ids: Any) -> list[ReplayVerdict]:
    return [run.verdict for run in replay_runs(workspace, [str(one) for one in run_ids])]


def test_a_run_has_the_sizing_of_its_strategy_unless_it_names_one(workspace: Workspace) -> None:
    plain = result(workspace, rules=RULES)
    configs = "SELECT config -> :of FROM backtest_runs WHERE run_id = :run"
    made = list[Any]()
    for rules, sizing in (
        (BY_BAR, {"mode": "expression", "fraction": "0.02 / (atr_14 / close)"}),
        (BY_NUMBER, {"mode": "fixed", "fraction": 0.2}),
    ):
        own = result(workspace, rules=rules)
        all_of_it = result(workspace, rules=rules, **ALL_OF_IT)
        assert column(workspace, configs, run=str(own.run_id), of="sizing") == [sizing]
        assert column(workspace, configs, run=str(own.run_id), of="stops") == [STOPS | NO_OTHERS]
        assert own.metrics["total_return"] != plain.metrics["total_return"]
        assert all_of_it.metrics == plain.metrics
        named = result(workspace, rules=rules, sizing=sizing, stops=STOPS)
        assert (named.run_id, named.config_hash) == (own.run_id, own.config_hash)
        made += [own.run_id, all_of_it.run_id]
    assert len({*made, plain.run_id}) == 5


def test_a_refresh_sizes_as_a_run_on_demand(workspace: Workspace, folder: Path) -> None:
    for name, rules in (("by_bar", BY_BAR), ("by_number", BY_NUMBER)):
        preset = f"[presets.{name}_3]\nrisk = 0.03\n"
        write(folder, f"{name}.toml", rules.replace('"sized"', f'"{name}"') + preset)
    source = until("2026-01-01")
    refresh(workspace, source, [Partition("S-ALPHA", "1D")])
    own, fingerprint = (
        f"SELECT {name} FROM backtest_runs WHERE strategy = :of"
        for name in ("run_id", "result_fingerprint")
    )
    made = list[Any]()
    for name in ("by_bar", "by_number"):
        (stored,), refreshed = (column(workspace, asked, of=name) for asked in (own, fingerprint))
        asked = RunSpec.model_validate({**ASKED, "strategy": name, "params": {"risk": 0.03}})
        (again,) = backtest(workspace, source, asked, ["S-ALPHA"], rebuild=True).runs
        assert str(again["run_id"]) == str(stored)
        assert column(workspace, fingerprint, of=name) == refreshed
        made.append(stored)
    assert verdicts(workspace, *made) == [ReplayVerdict.SAME] * 2


@pytest.mark.parametrize("rules", [BY_BAR, BY_NUMBER])
def test_a_sweep_s_trials_are_those_of_the_runs(workspace: Workspace, rules: str) -> None:
    swept = result(workspace, rules=rules, kind="optimize")
    assert swept.n_combinations == 2
    known = column(workspace, "SELECT trial_id FROM trials")
    for risk in (0.01, 0.02):
        result(workspace, rules=rules, params={"risk": risk})
    assert sorted(column(workspace, "SELECT trial_id FROM trials")) == sorted(known)
    returns = column(workspace, "SELECT total_return FROM trials")
    assert len(set(returns)) == 2


def test_each_fold_of_a_walk_forward_is_sized_by_its_own_choice_and_replayed(
    workspace: Workspace,
) -> None:
    made = list[Any]()
    for rules in (BY_BAR, BY_NUMBER):
        walk = {"kind": "walkforward", "train_days": 400, "test_days": 200, "rules": rules}
        walked = result(workspace, **walk)
        all_of_it = result(workspace, **walk, **ALL_OF_IT)
        assert walked.run_id != all_of_it.run_id
        assert walked.metrics["total_return"] != all_of_it.metrics["total_return"]
        made += [walked.run_id, all_of_it.run_id]
        # Replayed beside them: runs of one sizing each.
        made += [result(workspace, rules=rules, **own).run_id for own in ({}, ALL_OF_IT)]
    assert verdicts(workspace, *made) == [ReplayVerdict.SAME] * 8


SIZED, STOPPED = "sizing=lambda p: ByExpression({})", "stops=lambda p: StopRules(stop_loss={})"


def python(name: str, *functions: str) -> str:
    """A strategy in Python with functions of its parameters, and without a grid to probe."""
    head, _, tail = DIP.replace('"dip"', f'"{name}"').partition("    grid=")
    more = head + "".join(f"    {one},\n" for one in functions) + tail.partition("\n")[2]
    return more.replace("import Params,", "import ByExpression, Params, StopRules,")


def test_a_strategy_in_python_stops_and_sizes_by_expressions(
    workspace: Workspace, folder: Path
) -> None:
    by_atr = 'f"{0.01 * p.z} / (atr_14 / close)"'
    functions = (SIZED.format(by_atr), STOPPED.format("'2 * atr_14 / close'"))
    write(folder, "dip.py", python("dip", *functions))
    run = result(workspace, strategy="dip", params={"z": 1.0})
    configs = "SELECT config -> :of ->> :name FROM backtest_runs WHERE run_id = :run"
    told = {"sizing": "fraction", "stops": "stop_loss"}
    assert [
        column(workspace, configs, run=str(run.run_id), of=of, name=name)
        for of, name in told.items()
    ] == [["0.01 / (atr_14 / close)"], ["2 * atr_14 / close"]]
    assert verdicts(workspace, run.run_id) == [ReplayVerdict.SAME]


REFUSED = {
    "sized_by_score": (SIZED, "'score / 10'", "its sizing reads 'score'; name it in columns"),
    "stopped_by_score": (
        STOPPED,
        "'score / 10'",
        "its stop_loss reads 'score'; name it in columns",
    ),
    "peeks": (STOPPED, "'shift(close, -1) / close'", "a later bar is the future"),
    "decides": (SIZED, "'close > 3'", "this is a condition and must be a number"),
}


def test_an_expression_that_cannot_be_computed_is_refused(
    workspace: Workspace, folder: Path
) -> None:
    # Written at once, so that one process tries them all.
    for name, (function, expression, _) in REFUSED.items():
        write(folder, f"{name}.py", python(name, function.format(expression)))
    for name, (_, _, why) in REFUSED.items():
        with pytest.raises(StrategyRefused, match=why):
            result(workspace, strategy=name)
