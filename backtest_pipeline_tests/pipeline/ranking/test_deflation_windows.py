"""Runs on windows of the user's own: what counts for them, and that the rule is said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import backtest_pipeline as bp
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.results import RunResult, SweepResult, WalkForwardResult
from backtest_pipeline.pipeline.runs.query import get_run
from backtest_pipeline.pipeline.runs.reports.report import report_page
from backtest_pipeline.pipeline.specs import RunSpec, SweepSpec, WalkForwardSpec
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.pipeline.markets import refresh, whole
from backtest_pipeline_tests.sql import scalar

EMA = {"symbol": "S-ALPHA", "strategy": "ema_crossover"}
SETS, WINDOWS, WALKS = "parameter sets", "parameter sets x windows shown", "walk-forwards"
FIRST: dict[str, Any] = {"start": "2021-01-01", "end": "2022-01-01"}
SECOND: dict[str, Any] = {"start": "2022-01-01", "end": "2023-01-01"}


def ran(workspace: Workspace, fast: int = 9, slow: int = 21, **spec: Any) -> RunResult:
    asked = RunSpec.model_validate({**EMA, "params": {"fast": fast, "slow": slow}, **spec})
    result = execute(workspace, load_settings(bars=""), asked)
    assert isinstance(result, RunResult)
    return result


def swept(workspace: Workspace, **spec: Any) -> SweepResult:
    grid = {"fast": [5, 9], "slow": [21, 40]}
    asked = SweepSpec.model_validate({**EMA, "params": grid, **spec})
    result = execute(workspace, load_settings(bars=""), asked)
    assert isinstance(result, SweepResult)
    return result


def walked(workspace: Workspace, **spec: Any) -> WalkForwardResult:
    grid = {"fast": [5, 9], "slow": [21, 40]}
    asked = WalkForwardSpec.model_validate({**EMA, "params": grid, **spec})
    result = execute(workspace, load_settings(bars=""), asked)
    assert isinstance(result, WalkForwardResult)
    return result


def counted(result: RunResult) -> tuple[float | None, str]:
    return result.significance["n_trials"], result.counting_rule.value


def deflated(result: RunResult, name: str) -> float:
    """A deflated Sharpe ratio that is defined."""
    value = result.significance[name]
    assert value is not None
    return value


def now(workspace: Workspace, result: RunResult) -> Any:
    """The count that is stored by now."""
    about = f"WHERE run_id = '{result.run_id}'"
    return scalar(workspace.database, f"SELECT n_trials FROM backtest_metrics {about}")


def test_a_run_on_a_window_counts_the_sets_times_the_windows_shown(workspace: Workspace) -> None:
    one = ran(workspace, **FIRST)
    assert counted(one) == (1, WINDOWS)
    assert one.significance["dsr"] == one.metrics["psr"]
    other = ran(workspace, **SECOND)
    assert counted(other) == (2, WINDOWS), "one set on two windows"
    assert now(workspace, one) == 2, "the best of two by now"
    third = ran(workspace, 5, 40, **SECOND)
    assert counted(third) == (4, WINDOWS), "two sets, two windows"
    assert deflated(other, "dsr") < (other.metrics["psr"] or 0)
    assert other.significance["n_trials_effective"] == 2
    assert deflated(third, "dsr") <= deflated(third, "dsr_effective")


def test_a_run_of_the_whole_history_counts_the_sets_alone(workspace: Workspace) -> None:
    ran(workspace, **FIRST)
    ran(workspace, **SECOND)
    ran(workspace, start="2023-01-01")
    full = ran(workspace, 5, 40)
    assert counted(full) == (2, SETS)
    assert counted(ran(workspace, 5, 40, **FIRST)) == (2 * 4, WINDOWS), "and it was shown as well"


def test_a_sweep_shows_its_window(workspace: Workspace) -> None:
    ran(workspace, **FIRST)
    found = swept(workspace, **SECOND)
    assert counted(found.best_run) == (4 * 2, WINDOWS)
    assert found.selection["n_trials"] == 4


def test_neither_training_windows_nor_refreshes_show_one(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    sets = scalar(
        workspace.database,
        "SELECT count(DISTINCT set_id) FROM trials WHERE family = 'ema_crossover'",
    )
    assert counted(ran(workspace, **FIRST)) == (sets, WINDOWS)
    stitched = walked(workspace)
    assert counted(stitched) == (1, WALKS)
    after = scalar(
        workspace.database,
        "SELECT count(DISTINCT set_id) FROM trials WHERE family = 'ema_crossover'",
    )
    assert after == sets + 3, "of four sets in training one was known"
    assert counted(ran(workspace, **FIRST)) == (after, WINDOWS)


def test_a_training_window_that_is_shown_later_counts(workspace: Workspace) -> None:
    bars = bp.load_bars(asset="S-ALPHA")
    grid = {"fast": [5, 9], "slow": [21, 40]}
    schedule = bp.Schedule(mode="rolling", embargo=0.0)
    walk = bp.walk_forward(
        bars, "ema", grid, asset="S-ALPHA", schedule=schedule, workspace=workspace
    )
    fold = walk.folds.iloc[3]
    window: dict[str, Any] = {
        "start": fold["train_start"].date().isoformat(),
        "end": (fold["train_end"].date() + timedelta(days=1)).isoformat(),
    }
    shown = ran(workspace, **window)
    trial = f"(SELECT trial_id FROM backtest_runs WHERE run_id = '{shown.run_id}')"
    source = scalar(workspace.database, f"SELECT source FROM trials WHERE trial_id = {trial}")
    assert source == "walk_forward"
    assert counted(shown) == (4, WINDOWS)
    assert counted(ran(workspace, **FIRST)) == (2 * 4, WINDOWS)


@pytest.mark.parametrize(("window", "rule"), [({}, SETS), (FIRST, WINDOWS)])
def test_the_rule_is_said_wherever_the_count_is(
    workspace: Workspace, window: dict[str, Any], rule: str
) -> None:
    result = ran(workspace, **window)
    assert get_run(workspace, result.run_id).counting_rule == rule
    assert rule in report_page(workspace, result.run_id).html
