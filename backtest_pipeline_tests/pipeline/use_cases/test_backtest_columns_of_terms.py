"""Stops and sizings that a run itself names read columns of a user's own, as those of rules do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtest_pipeline.market.errors import UnknownColumn
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.runs.identity import RunTerms
from backtest_pipeline.pipeline.specs import RunSpec, SweepSpec
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.use_cases.backtest import backtest, sweep_on_demand
from backtest_pipeline.pipeline.use_cases.walk_forward import prepare_walk_forward, run_walk_forward
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.schedule import Schedule
from backtest_pipeline_tests.own_columns import scores, with_columns
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel
from backtest_pipeline_tests.sql import column

MARKET = StaticSource({"1D": daily_panel({"A": 380, "B": 380})})
TERMS: dict[str, Any] = {
    "stops": {"trailing": "0.02 + 0.1 * score"},
    "sizing": {"mode": "expression", "fraction": "0.2 + score / 2"},
}


def traded(store: Workspace, **more: Any) -> Mapping[str, Any]:
    spec = RunSpec(strategy="ema_crossover", symbol="A", timeframe="1D", **{**TERMS, **more})
    return backtest(store, MARKET, spec, ["A"]).runs[0]


def test_a_run_is_that_of_the_columns_that_its_stops_and_sizing_read(
    workspace: Workspace, tmp_path: Path
) -> None:
    frame = scores("AB")
    with with_columns(workspace, tmp_path, {"model.csv": frame}) as (store, put):
        first = traded(store)
        put("model.csv", frame.assign(other=0.0))
        assert traded(store)["run_id"] == first["run_id"]
        put("model.csv", frame.assign(score=1 - frame["score"]))
        other = traded(store)
        assert other["run_id"] != first["run_id"]
        assert other["total_return"] != first["total_return"]
        ranked = traded(store, stops={"trailing": "0.1 * rank_pct(close)"}, sizing=None)
        (tmp_path / "columns" / "model.csv").unlink()
        runs = [str(one["run_id"]) for one in (first, other, ranked)]
        assert [one.verdict for one in replay_runs(store, runs)] == [ReplayVerdict.SAME] * 3
        with pytest.raises(UnknownColumn, match="score"):
            traded(store)


def test_a_sweep_and_a_walk_forward_have_them_too(workspace: Workspace, tmp_path: Path) -> None:
    axes: dict[str, Any] = {"fast": [5, 10], "slow": [20, 30]}
    with with_columns(workspace, tmp_path, {"model.csv": scores("A")}) as (store, _):
        spec = SweepSpec(strategy="ema_crossover", symbol="A", timeframe="1D", params=axes, **TERMS)
        swept = sweep_on_demand(store, MARKET, spec, most=10)
        single = traded(store, params={"fast": 5, "slow": 20})
        found = swept.table["total_return"].loc[5, 20]
        np.testing.assert_allclose(found, single["total_return"])
        # The run adds no trial to those of the sweep: it read the same rows of the same columns.
        assert column(store, "SELECT count(DISTINCT trial_id) FROM trials") == [4]
        terms = RunTerms(spec.config())
        plan = WalkForwardPlan(Schedule(150, 60))
        prepared = prepare_walk_forward(
            store, MARKET, asset="A", tf="1D", terms=terms, schedule=plan.schedule
        )
        run = run_walk_forward(
            store, prepared, strategy="ema_crossover", params=axes, terms=terms, plan=plan
        )
        (replayed,) = replay_runs(store, [str(run["run_id"])])
        assert replayed.verdict is ReplayVerdict.SAME
