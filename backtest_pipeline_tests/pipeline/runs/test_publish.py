"""A run is there whole or not at all, once, whoever publishes it and however that ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from backtest_pipeline.pipeline.audits.stored_tables import check_dataset
from backtest_pipeline.pipeline.pools.staged_batches import run_stage
from backtest_pipeline.pipeline.runs.identity import RunTerms, Window
from backtest_pipeline.pipeline.runs.summary import backtests_summary, run_curves
from backtest_pipeline.pipeline.stage import Batches
from backtest_pipeline.pipeline.stages.backtests import BacktestsStage
from backtest_pipeline.pipeline.stages.bars import BarsStage, bar_batches
from backtest_pipeline.pipeline.stages.features import FeaturesStage, stored_bars, stored_features
from backtest_pipeline.pipeline.stages.signals import SignalsStage
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.stages.tradable_signals import stored_signals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline.storage.run_tables.runs import current_runs
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline_tests.pipeline.markets import (
    StaticSource,
    as_new_process,
    assert_same,
    contents,
    daily_panel,
    refresh,
)
from backtest_pipeline_tests.pipeline.on_demand import backtest_once
from backtest_pipeline_tests.pipeline.processes import (
    MARKET,
    PARTITIONS,
    market_without,
    refreshing,
)
from backtest_pipeline_tests.sql import count, execute_sql
from backtest_pipeline_tests.waiting import LIMIT_S

DEAR = SimulationConfig(CostModel(fee_bps=80, slippage_bps=20))


def one_run(workspace: Workspace, config: SimulationConfig, **changes: Any):
    window = changes.pop("window", None) or Window()
    what: dict[str, Any] = {"signal": "ema_9_21", "asset": "A", "tf": "1D"} | changes
    return backtest_once(workspace, MARKET, terms=RunTerms(config, window), **what)


@pytest.mark.parametrize("rebuild", [False, True])
def test_processes_that_refresh_the_same_at_once_agree(
    workspace: Workspace, fresh_store: Callable[[], Workspace], rebuild: bool
) -> None:
    processes = [refreshing(workspace, rebuild=rebuild) for _ in range(2)]
    for process in processes:
        process.join(LIMIT_S)
    assert [process.exitcode for process in processes] == [0, 0]
    alone = fresh_store()
    refresh(alone, MARKET, PARTITIONS)
    assert_same(contents(workspace), contents(alone))
    assert not list(workspace.artifacts.root.rglob(".unfinished-*"))


def _late(stage: str, workspace: Workspace, overtake: Callable[[], object]) -> None:
    """A stage that is overtaken after it has loaded what it computes from."""
    overtaking = iter([overtake])

    def overtaken(batches: Batches[Any]) -> Batches[Any]:
        def load(tf: str, assets: Sequence[str]) -> Any:
            block = batches.load(tf, assets)
            next(overtaking, lambda: None)()
            return block

        return Batches(batches.partitions, load)

    partitions = [p for p in PARTITIONS if p.timeframe == "1D"]
    how: dict[str, Any] = {"rebuild": True, "retrying": workspace.database.retrying}
    if stage == "features":
        bars = overtaken(stored_bars(workspace, partitions))
        run_stage(bars, FeaturesStage(workspace), **how)
    elif stage == "signals":
        signals = SignalsStage(workspace)
        features = overtaken(stored_features(workspace, partitions))
        run_stage(signals.computed(features, rebuild=True), signals, **how)
    else:
        config = SimulationConfig()
        traded = overtaken(stored_signals(workspace, partitions))
        run_stage(traded, BacktestsStage(workspace, config), **how)


@pytest.mark.parametrize("stage", ["features", "signals", "backtests"])
def test_a_late_writer_does_not_put_older_results_in_the_place_of_newer_ones(
    workspace: Workspace, fresh_store: Callable[[], Workspace], stage: str
) -> None:
    refresh(workspace, market_without(9), PARTITIONS)
    _late(stage, workspace, lambda: refresh(workspace, MARKET, PARTITIONS))
    alone = fresh_store()
    refresh(alone, MARKET, PARTITIONS)
    assert_same(contents(workspace), contents(alone))


def test_a_run_has_all_that_it_takes_to_repeat_it(workspace: Workspace) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    runs = contents(workspace)["backtest_runs"]
    for name in ("snapshot_id", "code_version", "config_hash", "environment_hash", "engine"):
        assert runs[name].str.len().gt(3).all(), name
    with workspace.database.begin() as connection:
        rows = connection.execute(
            sa.text("""
                SELECT r.symbol || '|' || r.tf AS key, dataset_version_ids, v.version
                FROM backtest_runs r JOIN dataset_versions v USING (id, tf)
                WHERE v.dataset = 'features'
            """)
        ).all()
    assert len(rows) == 6 * len(PARTITIONS)
    versions = {key: version for key, _, version in rows}
    for key, used, _ in rows:
        days = [f"{key.partition('|')[0]}|1D"] if key.endswith("3D") else []
        assert used == {name: versions[name] for name in (key, *days)}


def test_the_same_inputs_give_the_same_runs_under_other_asset_ids(
    workspace: Workspace, fresh_store: Callable[[], Workspace]
) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    other = fresh_store()
    numbered = tuple((asset, 900 - i) for i, asset in enumerate("ABCDEF"))
    source = type(MARKET)(MARKET.panels, known_ids=numbered)
    refresh(other, source, PARTITIONS)
    with other.database.begin() as connection:
        ids = connection.execute(sa.text("SELECT DISTINCT id FROM backtest_runs")).scalars()
        assert set(ids) == set(range(895, 901))
    assert_same(contents(workspace), contents(other))


def test_repeating_a_publication_adds_nothing(workspace: Workspace) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    before = _counts(workspace)
    refresh(workspace, MARKET, PARTITIONS, rebuild=True)
    assert _counts(workspace) == before


@pytest.mark.parametrize(
    "other", [DEAR, SimulationConfig(direction=Direction.SHORT), SimulationConfig(initial_cash=7.0)]
)
def test_other_costs_or_direction_are_other_runs(
    workspace: Workspace, other: SimulationConfig
) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    with workspace.database.begin() as connection:
        first = {run["run_id"] for run in current_runs(connection)}
    refresh(workspace, MARKET, PARTITIONS, other)
    with workspace.database.begin() as connection:
        second = {run["run_id"] for run in current_runs(connection)}
        together = connection.scalar(sa.text("SELECT count(*) FROM backtest_runs"))
    assert len(first) == len(second) == 6 * len(PARTITIONS)
    assert not first & second
    assert together == len(first) + len(second)
    assert backtests_summary(workspace, PARTITIONS).numbers["runs"] == len(second)


def test_a_run_on_demand_is_the_one_of_the_batch(workspace: Workspace) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    before = _counts(workspace)
    known = contents(workspace)["backtest_runs"]
    for rebuild in (False, True):
        run = one_run(workspace, SimulationConfig(), rebuild=rebuild)
        assert run["run_id"] in set(known["run_id"])
        assert backtests_summary(workspace, PARTITIONS).numbers["runs"] == len(known)
        assert len(run_curves(workspace, run).equity) == 250
    assert _counts(workspace) == before


def test_a_run_on_demand_whose_files_are_damaged_is_made_again(workspace: Workspace) -> None:
    first = one_run(workspace, DEAR)
    folder = workspace.artifacts.root / first["artifact_uri"]
    (folder / "equity.parquet").unlink()
    workspace = as_new_process(workspace)
    again = one_run(workspace, DEAR)
    assert again["run_id"] == first["run_id"]
    assert len(run_curves(workspace, again).equity) == 250


def test_a_killed_stage_is_seen_as_stale(workspace: Workspace) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    stage = BacktestsStage(workspace, SimulationConfig())
    assert list(stage.stale(PARTITIONS)) == []
    execute_sql(workspace, "DELETE FROM dataset_versions WHERE dataset = 'backtests'")
    assert list(stage.stale(PARTITIONS)) == PARTITIONS


def _counts(workspace: Workspace) -> dict[str, int]:
    tables = ("backtest_runs", "backtest_trades", "backtest_metrics", "signals")
    return {table: count(workspace, table) for table in tables}


def test_signals_that_wait_to_be_computed_anew_break_no_rule_and_others_do(
    workspace: Workspace,
) -> None:
    refresh(workspace, MARKET, PARTITIONS)
    other = StaticSource({"1D": daily_panel(dict.fromkeys("ABCDEF", 250), seed=12)})
    of_3d = [p for p in PARTITIONS if p.timeframe == "3D"]
    reader = SourceReader(other, list("ABCDEF"))
    run_stage(bar_batches(reader, of_3d), BarsStage(workspace, reader))
    run_stage(stored_bars(workspace, of_3d), FeaturesStage(workspace))
    assert not any(check_dataset(workspace, "signals").values())
    with workspace.database.begin() as connection:
        connection.execute(sa.text("UPDATE signals SET close = close + 1 WHERE tf = '1D'"))
        changed = connection.scalar(sa.text("SELECT count(*) FROM signals WHERE tf = '1D'"))
    assert check_dataset(workspace, "signals")["close_differs"] == changed
