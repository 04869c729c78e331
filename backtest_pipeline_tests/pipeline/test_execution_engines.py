"""Runs, sweeps, walk-forwards, replays and the board, of runs by either engine."""

from __future__ import annotations

from typing import Any

import pytest

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.ranking.board_tables import shown_rows
from backtest_pipeline.pipeline.ranking.leaderboard import publish_leaderboard
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.results import RunResult, SweepResult, WalkForwardResult
from backtest_pipeline.pipeline.runs.compare import compare_runs
from backtest_pipeline.pipeline.runs.query import get_run
from backtest_pipeline.pipeline.specs import RunSpec, SweepSpec, WalkForwardSpec
from backtest_pipeline.pipeline.stages.backtests import BacktestsStage
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.trading.engine_names import EngineName
from backtest_pipeline_tests.pipeline.markets import refresh, whole
from backtest_pipeline_tests.sql import column

EMA = {"strategy": "ema", "symbol": "S-ALPHA", "direction": "long", "timeframe": "1D"}
ENGINES = [{}, {"engine": "vectorbt"}]
GRID = {"fast": [5, 10], "slow": [20, 50]}


def done(workspace: Workspace, spec: Any) -> Any:
    return execute(workspace, load_settings(bars=""), spec, "quant")


def same(ours: dict[str, float | None], theirs: dict[str, float | None]) -> None:
    for name, value in ours.items():
        assert theirs[name] == (None if value is None else pytest.approx(value, rel=1e-7)), name


def test_a_run_by_vectorbt_has_another_id_and_the_same_numbers(workspace: Workspace) -> None:
    spelled = done(workspace, RunSpec.model_validate({**EMA, "engine": "account"}))
    ours, theirs = (done(workspace, RunSpec.model_validate(EMA | e)) for e in ENGINES)
    assert isinstance(theirs, RunResult)
    assert spelled.run_id == ours.run_id != theirs.run_id
    assert (ours.engine, theirs.engine) == ("account", "vectorbt")
    same(ours.metrics, theirs.metrics)
    # Each engine's run of the same parameters is a trial of its own.
    assert (ours.significance["n_trials"], theirs.significance["n_trials"]) == (1, 2)
    made = get_run(workspace, theirs.run_id).provenance
    assert (made["engine"], made["engine_version"]) == ("vectorbt", "1.2.0+1")
    assert "vectorbt 1.2.0+1" in made["code_version"]
    again = done(workspace, RunSpec.model_validate({**EMA, "engine": "vectorbt"}))
    assert again.run_id == theirs.run_id
    differing = compare_runs(workspace, [ours.run_id, theirs.run_id])
    assert "engine" in [one.name for one in differing.config]


def test_sweeps_and_walk_forwards_of_both_engines_choose_the_same_and_replay(
    workspace: Workspace,
) -> None:
    sweeps = [
        done(workspace, SweepSpec.model_validate({**EMA, **e, "params": GRID})) for e in ENGINES
    ]
    assert all(isinstance(one, SweepResult) for one in sweeps)
    assert [c.params for c in sweeps[0].ranked] == [c.params for c in sweeps[1].ranked]
    same(sweeps[0].ranked[0].metrics, sweeps[1].ranked[0].metrics)
    assert sweeps[1].best_run.engine == "vectorbt"
    # Those of the other engine are counted too.
    assert column(workspace, "SELECT count(*) FROM trials") == [8]
    folds = {"train_days": 700, "test_days": 400, "params": GRID}
    walks = [
        done(workspace, WalkForwardSpec.model_validate({**EMA, **e, **folds})) for e in ENGINES
    ]
    assert all(isinstance(one, WalkForwardResult) for one in walks)
    assert walks[0].run_id != walks[1].run_id
    assert [fold.params for fold in walks[0].folds] == [fold.params for fold in walks[1].folds]
    same(walks[0].metrics, walks[1].metrics)
    # One worker for all: each imports vectorbt anew.
    runs = [*(one.best_run.run_id for one in sweeps), *(one.run_id for one in walks)]
    replays = replay_runs(workspace, runs)
    assert [one.verdict for one in replays] == [ReplayVerdict.SAME] * 4
    assert not any(one.remarks for one in replays)


def test_the_board_says_which_engine_and_ranks_no_mixture(workspace: Workspace) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    theirs = done(workspace, RunSpec.model_validate({**EMA, "engine": "vectorbt"}))
    board = publish_leaderboard(workspace)
    assert {row["engine"] for row in shown_rows(board)} == {"account"}
    (row,) = [row for row in board.rows if row["run_id"] == theirs.run_id]
    assert row["engine"] == "vectorbt"
    assert row["unranked"].startswith("simulated by vectorbt")


def test_what_vectorbt_cannot_hold_is_refused_before_anything_is_stored(
    workspace: Workspace,
) -> None:
    asked = {"strategy": "atr_breakout", "symbol": "S-ALPHA", "engine": "vectorbt"}
    with pytest.raises(InvalidInput, match="trailing_atr"):
        done(workspace, RunSpec.model_validate(asked))
    with pytest.raises(InvalidInput, match="funding"):
        done(
            workspace,
            RunSpec.model_validate({**EMA, **ENGINES[1], "costs": {"funding_bps_day": 1}}),
        )
    assert column(workspace, "SELECT count(*) FROM backtest_runs") == [0]
    with pytest.raises(InvalidInput, match="a refresh computes all presets"):
        BacktestsStage(workspace, SimulationConfig(engine=EngineName.VECTORBT))
