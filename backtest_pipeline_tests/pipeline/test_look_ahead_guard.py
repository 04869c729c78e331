"""A strategy that looks ahead is refused at every door, and an honest one is probed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from pydantic import BaseModel

from backtest_pipeline import explore, generate_signals, load_bars, run_backtest, walk_forward
from backtest_pipeline.market.errors import LooksAhead, StrategyRefused
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline import look_ahead_guard
from backtest_pipeline.pipeline.api import build_features, robustness
from backtest_pipeline.pipeline.audits.negative_controls import Controls, run_negative_controls
from backtest_pipeline.pipeline.execution import execute
from backtest_pipeline.pipeline.look_ahead_guard import ends_of
from backtest_pipeline.pipeline.presets import left_out_presets
from backtest_pipeline.pipeline.specs import (
    PortfolioSpec,
    RobustnessSpec,
    RunSpec,
    SweepSpec,
    WalkForwardSpec,
)
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline.strategies.registry import strategies, strategy_of
from backtest_pipeline_tests.leaky import PEEKER, planted
from backtest_pipeline_tests.pipeline.markets import refresh, whole
from backtest_pipeline_tests.sql import count, execute_sql, scalar

HONEST_AT_0 = PEEKER.replace("ahead: int = 1", "ahead: int = 0")
SAMPLE = " on S-ETA of the built-in sample market, which every strategy is tried on"
ONE = {"symbol": "S-ALPHA", "strategy": "peeker", "timeframe": "1W"}


@pytest.fixture
def peeker(tmp_path: Path) -> Iterator[None]:
    with planted(tmp_path):
        yield


@pytest.fixture
def workspace(workspace: Workspace) -> Workspace:
    """A store that has probed no strategy yet."""
    execute_sql(workspace, "DELETE FROM strategy_probes")
    return workspace


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The strategies that are probed, one entry for each asset."""
    probed = []
    probe = look_ahead_guard.require_no_look_ahead

    def counted(panel: Any, strategy: Any, params: Any, asset: str) -> None:
        probed.append(strategy.name)
        probe(panel, strategy, params, asset)

    monkeypatch.setattr(look_ahead_guard, "require_no_look_ahead", counted)
    return probed


def asked(workspace: Workspace, kind: type[BaseModel] = RunSpec, **spec: Any) -> Any:
    found = kind.model_validate({**ONE, **spec})
    return execute(workspace, load_settings(bars=""), cast(RunSpec, found))


@pytest.mark.usefixtures("peeker")
@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (RunSpec, {**ONE}),
        (RobustnessSpec, {**ONE, "draws": 10}),
        (SweepSpec, {**ONE, "params": {"ahead": [1, 2]}}),
        (WalkForwardSpec, {**ONE, "params": {"ahead": [1, 2]}}),
        (PortfolioSpec, {"strategy": "peeker", "symbols": ["S-ALPHA", "S-BETA"]}),
    ],
)
def test_no_spec_stores_a_result(
    workspace: Workspace, kind: type[BaseModel], spec: dict[str, Any]
) -> None:
    for _ in range(2):
        with pytest.raises(
            LooksAhead, match=rf"peeker on .* looks ahead: .*{SAMPLE}; it reads close"
        ):
            execute(workspace, load_settings(bars=""), cast(RunSpec, kind.model_validate(spec)))
    assert count(workspace.database, "backtest_runs") == 0
    assert count(workspace.database, "trials") == 0
    assert count(workspace.database, "strategy_probes WHERE leak IS NOT NULL") == 1


@pytest.mark.usefixtures("peeker")
@pytest.mark.parametrize(
    "ask",
    [
        lambda bars: run_backtest(bars, "peeker", {}),
        lambda bars: generate_signals(build_features(bars), "peeker"),
        lambda bars: robustness(bars, "peeker", {}, draws=10),
        lambda bars: explore(bars, "peeker", {"ahead": [1, 2]}),
        lambda bars: walk_forward(bars, "peeker", {"ahead": [1, 2]}),
    ],
    ids=["run_backtest", "generate_signals", "robustness", "explore", "walk_forward"],
)
def test_no_function_of_the_python_api_returns_a_result(
    ask: Callable[[pd.DataFrame], Any],
) -> None:
    with pytest.raises(LooksAhead, match="No result of peeker is computed"):
        ask(load_bars(asset="S-BETA", timeframe="1W"))


def test_an_honest_strategy_is_probed_once(workspace: Workspace, probes: list[str]) -> None:
    ema = {"strategy": "ema_crossover", "params": {"fast": 9, "slow": 21}}
    asked(workspace, **ema)
    first = len(probes)
    assert set(probes) == {"ema_crossover"}
    asked(workspace, **ema)
    assert len(probes) == first
    asked(workspace, strategy="ema_crossover", params={"fast": 7, "slow": 22})
    assert len(probes) == first + 2, "the new parameters, on the sample market and the bars"
    assert count(workspace.database, "strategy_probes WHERE leak IS NOT NULL") == 0


def test_what_a_walk_forward_chose_is_probed_once(workspace: Workspace, probes: list[str]) -> None:
    plan = {"strategy": "ema", "params": {"fast": [4, 9, 14], "slow": [33]}, "timeframe": "1D"}
    walked = asked(workspace, WalkForwardSpec, **plan, mode="rolling")
    chosen = {fold.params["fast"] for fold in walked.folds}
    assert 9 in chosen, "which is at no end of a range, and probed for having been chosen"
    for fast in chosen:
        known = f'strategy_probes WHERE params @> \'{{"fast": {fast}, "slow": 33}}\''
        assert count(workspace.database, known) == 1
    first = len(probes)
    for fast in chosen:
        asked(workspace, strategy="ema", params={"fast": fast, "slow": 33}, timeframe="1D")
    asked(workspace, WalkForwardSpec, **plan, mode="rolling", step_days=180)
    assert len(probes) == first


def test_negative_controls_leave_out_what_looks_ahead(
    workspace: Workspace, tmp_path: Path, probes: list[str]
) -> None:
    refresh(workspace, whole(), [Partition("S-ALPHA", "1D")])
    probes.clear()
    controls = Controls(searches=20, n_bars=400)
    honest = run_negative_controls(workspace, controls)
    assert set(probes) <= set(strategies())
    assert count(workspace.database, "strategy_probes WHERE strategy = 'macd_crossover'") > 0
    probes.clear()
    run_negative_controls(workspace, Controls(searches=20, n_bars=401))
    assert not probes
    with planted(tmp_path):
        beside = run_negative_controls(workspace, controls)
    assert count(workspace.database, "strategy_probes WHERE leak IS NOT NULL") == 1
    assert beside[0]["control_id"] != honest[0]["control_id"]
    counts = ("n_trials", "n_naive", "n_significant", "n_families", "n_walk_forwards_passed")
    assert [[row[name] for name in counts] for row in beside] == [
        [row[name] for name in counts] for row in honest
    ]


def test_without_a_store_this_process_remembers(probes: list[str]) -> None:
    features = build_features(load_bars(asset="S-BETA", timeframe="1W"))
    look_ahead_guard._verdicts_here.clear()
    generate_signals(features, "rsi")
    first = len(probes)
    assert set(probes) == {"rsi_mean_revert"}
    generate_signals(features, "rsi")
    assert len(probes) == first


def test_parameters_that_look_ahead_refuse_the_code_under_all(
    workspace: Workspace, tmp_path: Path
) -> None:
    with planted(tmp_path, HONEST_AT_0):
        assert asked(workspace).run_id
        with pytest.raises(LooksAhead, match="Found with ahead 2"):
            asked(workspace, params={"ahead": 2})
        with pytest.raises(LooksAhead, match="Found with ahead 2"):
            asked(workspace)
    corrected = tmp_path / "corrected"
    corrected.mkdir()
    with planted(corrected, HONEST_AT_0.replace("shift(-params.ahead)", "shift(params.ahead)")):
        assert asked(workspace, params={"ahead": 2}).run_id


def test_what_fails_on_the_sample_market_says_so(workspace: Workspace, tmp_path: Path) -> None:
    failing = PEEKER.replace("shift(-params.ahead)", "missing()")
    with (
        planted(tmp_path, failing),
        pytest.raises(StrategyRefused, match=rf"peeker fails: .*; found{SAMPLE}"),
    ):
        asked(workspace)


def test_a_sweep_is_probed_at_the_ends_of_its_range(workspace: Workspace, tmp_path: Path) -> None:
    with planted(tmp_path, HONEST_AT_0), pytest.raises(LooksAhead, match="Found with ahead 1"):
        asked(workspace, SweepSpec, params={"ahead": [0, 1]})
    assert count(workspace.database, "trials") == 0


def test_ends_of_a_range_that_a_strategy_does_not_accept_are_left_out() -> None:
    ends = ends_of(strategy_of("ema_crossover"), {"fast": [5, 10, 30], "slow": [20, 50]})
    assert {(end["fast"], end["slow"]) for end in ends} == {(5, 20), (30, 50), (5, 50)}


def test_a_refresh_leaves_out_the_leaky_preset_and_computes_the_others(
    workspace: Workspace, tmp_path: Path, probes: list[str]
) -> None:
    database = workspace.database
    execute_sql(database, "INSERT INTO dim_signals VALUES (99, 'peeker', 'peeker', '{}', TRUE)")
    with planted(tmp_path):
        refresh(workspace, whole())
        assert list(left_out_presets(workspace)) == ["peeker"]
        first = len(probes)
        refresh(workspace, whole())
        assert len(probes) == first
    for table in ("signals", "backtest_runs"):
        assert scalar(database, f"SELECT count(*) FROM {table} WHERE signal_id = 99") == 0
        assert count(database, table) > 0


def test_a_strategy_that_knows_the_next_rank_is_refused_and_one_that_does_not_passes(
    workspace: Workspace, tmp_path: Path
) -> None:
    ranked = PEEKER.replace('panel["close"]).groupby', 'panel["rank_pct(rsi_14)"]).groupby')
    ranked = ranked.replace('later >= panel["close"]', "later >= 0.5")
    ranked = ranked.replace('("close",)', '("rank_pct(rsi_14)",)')
    with planted(tmp_path, ranked), pytest.raises(LooksAhead, match=r"peeker .* looks ahead"):
        asked(workspace)
    with planted(tmp_path, ranked.replace("ahead: int = 1", "ahead: int = 0")):
        asked(workspace)
