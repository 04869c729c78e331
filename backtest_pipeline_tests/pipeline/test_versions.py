"""Code that is moved, reworded or added makes nothing stale, an edited strategy its own runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backtest_pipeline.pipeline.replay.replay import replay_runs, todays_sample
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.code_archive import installed_folder
from backtest_pipeline.storage.run_tables.runs import current_runs
from backtest_pipeline_tests.pipeline.markets import refresh
from backtest_pipeline_tests.pipeline.walking_process import MARKET, PARTITIONS, walk
from backtest_pipeline_tests.sql import count, execute_sql

_ROOT = Path(__file__).parents[2]
_BY = "backtest_pipeline_tests.pipeline.refreshing_code"


class Copy:
    """A copy of the package that may be edited, and processes that run it on a store."""

    def __init__(self, folder: Path, workspace: Workspace) -> None:
        self.package = folder / "backtest_pipeline"
        self._workspace = workspace
        # With what is compiled, and the times that say of which source it is.
        shutil.copytree(installed_folder() / "backtest_pipeline", self.package)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.package / name
        text = path.read_text()
        assert text.count(old) >= 1, (name, old)
        path.write_text(text.replace(old, new))

    def move(self, name: str, to: str) -> None:
        """Move a module, and have all that import it know."""
        (self.package / name).rename(self.package / to)
        old, new = (x.removesuffix(".py").replace("/", ".") for x in (name, to))
        for path in self.package.rglob("*.py"):
            text = path.read_text()
            if f"backtest_pipeline.{old} import" in text:
                path.write_text(
                    text.replace(f"backtest_pipeline.{old} ", f"backtest_pipeline.{new} ")
                )

    def does(self, what: str) -> Any:
        found = subprocess.run(
            [
                *(sys.executable, "-P", "-m", _BY, what),
                *(self._workspace.database.conninfo, str(self._workspace.artifacts.root)),
            ],
            env={
                **os.environ,
                "PYTHONPATH": f"{self.package.parent}{os.pathsep}{_ROOT}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)


@pytest.fixture
def copy(tmp_path: Path, workspace: Workspace) -> Copy:
    return Copy(tmp_path / "copy", workspace)


def rows(workspace: Workspace, query: str) -> dict[Any, tuple[Any, ...]]:
    with workspace.database.begin() as connection:
        return {row[0]: tuple(row[1:]) for row in connection.execute(sa.text(query))}


def runs(workspace: Workspace, condition: str = "true") -> dict[Any, tuple[Any, ...]]:
    return rows(
        workspace,
        "SELECT run_id, signal_name, symbol, split, completed_at, is_current, code_version,"
        f" artifact_uri, xmin::text FROM backtest_runs WHERE {condition}",
    )


def signals(workspace: Workspace, condition: str) -> dict[Any, tuple[Any, ...]]:
    return rows(
        workspace,
        "SELECT DISTINCT s.signal_id || ' ' || s.id || ' ' || s.ts || s.action, s.xmin::text,"
        " t.updated_at FROM signals s JOIN signal_state t USING (signal_id, id, tf)"
        f" JOIN dim_signals d USING (signal_id) WHERE {condition}",
    )


def of_refresh(workspace: Workspace) -> set[Any]:
    with workspace.database.begin() as connection:
        return {run["run_id"] for run in current_runs(connection)}


ALL_STORED = {stage: {"stored": 2} for stage in ("bars", "features", "signals", "backtests")}
STAGES = (*ALL_STORED, "walk_forward")
UNCHANGED = {stage: {"unchanged": 2} for stage in STAGES}


def test_moved_and_reworded_code_computes_nothing_and_an_edited_strategy_its_own(
    workspace: Workspace, copy: Copy
) -> None:
    assert copy.does("refresh") == {**ALL_STORED, "walk_forward": {"stored": 2}}
    before = runs(workspace)
    assert {signal for signal, *_ in before.values()} >= {"ema_9_21", "rsi_mean_revert"}

    copy.edit("market/validation.py", "Which raw bars can be trusted", "Which bars are sound")
    copy.edit("strategies/ema_crossover.py", "Trend following:", "Follows trends:")
    copy.edit("strategies/rsi_mean_revert.py", "    if params", "    # By window.\n\n    if params")
    copy.move("strategies/bollinger_revert.py", "strategies/bands.py")
    copy.move("pipeline/stages/benchmark_assets.py", "pipeline/compared.py")
    added = (copy.package / "strategies/ema_crossover.py").read_text()
    added = added.replace('strategy="ema_crossover"', 'strategy="added"')
    (copy.package / "strategies/added.py").write_text(added)
    assert copy.does("refresh") == UNCHANGED
    assert runs(workspace) == before

    others = "NOT (d.strategy = 'ema_crossover')"
    events = signals(workspace, others)
    copy.edit("strategies/ema_crossover.py", "params.cooldown_bars,", "params.cooldown_bars + 5,")
    edited = copy.does("refresh")
    assert [stage for stage in STAGES if edited[stage] == {"stored": 2}] == list(STAGES[2:])
    assert signals(workspace, others) == events
    after = runs(workspace)
    of_edited = "strategy = 'ema_crossover'"
    kept = runs(workspace, f"NOT {of_edited}")
    assert kept == {run_id: row for run_id, row in before.items() if run_id in kept}
    new = {run_id: row for run_id, row in after.items() if run_id not in before}
    old = {run_id: row for run_id, row in runs(workspace, of_edited).items() if run_id in before}
    assert sorted(row[:3] for row in new.values()) == sorted(row[:3] for row in old.values())
    assert all(row[4] for row in new.values())
    assert not any(row[4] for row in old.values())
    assert copy.does("refresh") == UNCHANGED


def test_a_preset_that_is_registered_or_set_aside_leaves_the_runs_of_the_others(
    workspace: Workspace,
) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    before = runs(workspace)
    execute_sql(
        workspace,
        "INSERT INTO dim_signals (signal_id, name, strategy, params, is_active) VALUES"
        " (900, 'new', 'ema_crossover', '{\"fast\": 3, \"slow\": 8}', true)",
    )
    refresh(workspace, MARKET, PARTITIONS)
    added = {run_id: row for run_id, row in runs(workspace).items() if run_id not in before}
    assert sorted(row[:2] for row in added.values()) == [("new", "A"), ("new", "B")]
    assert runs(workspace, "signal_name <> 'new'") == before

    active = "UPDATE dim_signals SET is_active = {} WHERE name = :name"
    # One that shares its directory with others, too.
    for name in ("new", "ema_9_21"):
        gone = {run_id for run_id, row in runs(workspace).items() if row[0] == name}
        execute_sql(workspace, active.format("false"), name=name)
        refresh(workspace, MARKET, PARTITIONS)
        assert of_refresh(workspace) == {*before, *added} - gone
        execute_sql(workspace, active.format("true"), name=name)
        refresh(workspace, MARKET, PARTITIONS)
        assert of_refresh(workspace) == {*before, *added}
    untouched = "signal_name NOT IN ('new', 'ema_9_21')"
    assert runs(workspace, untouched) == {k: v for k, v in before.items() if v[0] != "ema_9_21"}


def test_a_change_of_the_engine_that_is_not_declared_is_found_and_blames_no_run(
    workspace: Workspace, copy: Copy
) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    walk(workspace)
    assert todays_sample(workspace, 5, seed=0) == []  # today's sources made them: replay proves it
    copy.edit("market/validation.py", "Which raw bars can be trusted", "Which bars are sound")
    assert [one["said"][:-1] for one in copy.does("check")] == [[]] * 5

    copy.edit("simulation/inputs.py", "fee_bps / 1e4", "fee_bps / 1.01e4")
    found = copy.does("check")
    assert len(found) == 5
    assert all(one["undeclared"] for one in found)
    assert not any(one["quarantine"] for one in found)
    assert found[0]["said"][0] == "the fingerprint differs"
    assert any("trade 1" in line for line in found[0]["said"])
    (told,) = [line for line in found[0]["said"] if "undeclared" in line]
    assert "Raise ENGINE_VERSION" in told
    copy.edit("simulation/engine.py", "ENGINE_VERSION = 2", "ENGINE_VERSION = 3")
    assert copy.does("check") == []
    assert count(workspace, "quarantined_runs") == 0
    assert replay_runs(workspace, list(runs(workspace))[:1])[0].verdict == "same"
