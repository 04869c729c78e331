"""Edits of a user's own strategy: each version that was tried is a trial, and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.execution import declare, execute
from backtest_pipeline.pipeline.ranking.deflation import strategies_tried
from backtest_pipeline.pipeline.results import RunResult, SweepResult, WalkForwardResult
from backtest_pipeline.pipeline.specs import RunSpec, SweepSpec, WalkForwardSpec
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.metrics.significance import (
    deflated_sharpe_ratio,
    probabilistic_sharpe_ratio,
)
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.strategies.known_strategies import look_again
from backtest_pipeline_tests.own_strategies import own_strategies, write
from backtest_pipeline_tests.pipeline.markets import refresh, until
from backtest_pipeline_tests.sql import rows, scalar

DIP = {"symbol": "S-ALPHA", "strategy": "dip_rules"}
GRID = {"params": {"n": [10, 20, 30, 40]}}
RULES = """
name = "dip_rules"
long_entry = "close < mean(close, n) - 2.0 * std(close, n, ddof=1)"
long_exit = "close > mean(close, n)"
[params]
n = { default = 20, min = 2, max = 100 }
"""
PRESET = """[presets.dip_rules_20]
n = 20
"""
Edit = Callable[[float], None]


@pytest.fixture
def edit(tmp_path: Path) -> Iterator[Edit]:
    """Changes the constant of the rules."""
    folder = tmp_path / "strategies"
    write(folder, "dip_rules.toml", RULES)

    def change(width: float) -> None:
        _write(folder, RULES.replace("2.0", str(width)))

    with own_strategies(folder):
        yield change


def _write(folder: Path, text: str) -> None:
    write(folder, "dip_rules.toml", text)
    look_again()


def ran(workspace: Workspace, **spec: Any) -> RunResult:
    result = execute(workspace, load_settings(bars=""), RunSpec.model_validate({**DIP, **spec}))
    assert isinstance(result, RunResult)
    return result


def swept(workspace: Workspace) -> SweepResult:
    spec = SweepSpec.model_validate({**DIP, **GRID})
    result = execute(workspace, load_settings(bars=""), spec)
    assert isinstance(result, SweepResult)
    return result


def walked(workspace: Workspace, **spec: Any) -> WalkForwardResult:
    asked = WalkForwardSpec.model_validate({**DIP, **GRID, **spec})
    result = execute(workspace, load_settings(bars=""), asked)
    assert isinstance(result, WalkForwardResult)
    return result


def counted(result: RunResult) -> float | None:
    return result.significance["n_trials"]


def test_five_edits_are_five_trials_and_the_last_is_deflated_by_five(
    workspace: Workspace, edit: Edit
) -> None:
    counts, last = [], None
    for width in (1.0, 1.25, 1.5, 1.75, 2.0):
        edit(width)
        last = ran(workspace)
        counts.append(counted(last))
    assert counts == [1, 2, 3, 4, 5]
    assert last is not None
    (own,) = rows(
        workspace.database,
        "SELECT t.sharpe, t.n_obs, t.skew, t.kurtosis FROM trials t JOIN backtest_runs USING"
        f" (trial_id) WHERE run_id = '{last.run_id}'",
    )
    moments = (own["sharpe"], own["n_obs"], own["skew"], own["kurtosis"])
    expected = deflated_sharpe_ratio(*moments, 1 / (own["n_obs"] - 1), 5)
    assert last.significance["dsr"] == pytest.approx(float(expected))
    assert float(expected) < float(probabilistic_sharpe_ratio(*moments))
    assert strategies_tried(workspace)["dip_rules"].n_trials == 5


def test_the_same_rules_again_are_no_new_trial(
    workspace: Workspace, edit: Edit, tmp_path: Path
) -> None:
    first = ran(workspace)
    _write(tmp_path / "strategies", f"# A comment, and other spacing.\n{RULES}\n\n")
    assert ran(workspace).run_id == first.run_id
    edit(1.0)
    assert counted(ran(workspace)) == 2
    edit(2.0)
    again = ran(workspace)
    assert (again.run_id, counted(again)) == (first.run_id, 2)


def test_a_sweep_before_and_after_an_edit_counts_twice(workspace: Workspace, edit: Edit) -> None:
    assert counted(swept(workspace).best_run) == 4
    edit(1.5)
    assert counted(swept(workspace).best_run) == 8
    assert counted(swept(workspace).best_run) == 8
    edit(2.0)
    assert counted(swept(workspace).best_run) == 8
    assert counted(ran(workspace, start="2022-01-01")) == 8 * 2, "one more window was shown"


def test_a_refresh_after_an_edit_counts_and_a_shipped_strategy_has_no_version(
    workspace: Workspace, edit: Edit, tmp_path: Path
) -> None:
    source, partition = until("2025-06-01"), Partition("S-ALPHA", "1W")
    for width in ("2.0", "1.0"):
        _write(tmp_path / "strategies", RULES.replace("2.0", width) + PRESET)
        refresh(workspace, source, [partition])
    count = "SELECT count(DISTINCT set_id) FROM trials WHERE strategy = 'dip_rules'"
    assert scalar(workspace.database, count) == 2
    shipped = (
        "SELECT bool_and(strategy_version IS NULL AND set_id = md5(symbol || ' ' || tf || ' ' ||"
        " config_hash || ' ' || params::text)::uuid) FROM trials WHERE strategy <> 'dip_rules'"
    )
    assert scalar(workspace.database, shipped) is True


def test_each_version_of_a_walk_forward_is_one_that_it_is_judged_by(
    workspace: Workspace, edit: Edit
) -> None:
    assert walked(workspace).n_walk_forwards == 1
    edit(1.5)
    assert walked(workspace).n_walk_forwards == 2
    assert walked(workspace).n_walk_forwards == 2


def test_an_edit_of_a_declared_walk_forward_is_another_chance(
    workspace: Workspace, edit: Edit
) -> None:
    declare(workspace, load_settings(bars=""), WalkForwardSpec.model_validate({**DIP, **GRID}))
    first = walked(workspace)
    assert (first.n_walk_forwards, first.declared_at is not None) == (1, True)
    walked(workspace, test_days=100)
    assert walked(workspace).n_walk_forwards == 1, "what is tried undeclared does not count"
    for n, width in enumerate((1.0, 1.5), 2):
        edit(width)
        edited = walked(workspace)
        assert (edited.n_walk_forwards, edited.declared_at) == (n, first.declared_at)
