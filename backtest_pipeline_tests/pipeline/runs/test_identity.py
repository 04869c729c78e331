"""Runs of one configuration share a series while their bars are only appended to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import DAY_US
from backtest_pipeline.pipeline.runs.identity import (
    RunTerms,
    hash_of,
    simulation_config,
    without_defaults,
)
from backtest_pipeline.pipeline.stages.walk_forward.folds import WalkForwardPlan
from backtest_pipeline.pipeline.use_cases.walk_forward import prepare_walk_forward, run_walk_forward
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.validation.schedule import Schedule
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.trading.costs import CostModel
from backtest_pipeline.trading.sizing import ByExpression, FixedFractional
from backtest_pipeline.trading.stops import StopRules
from backtest_pipeline_tests.pipeline.markets import (
    StaticSource,
    as_new_process,
    daily_panel,
    refresh,
)
from backtest_pipeline_tests.pipeline.on_demand import backtest_once
from backtest_pipeline_tests.sql import scalar

PARTITIONS = [Partition(asset, "1D") for asset in "AB"]
PANEL = daily_panel({"A": 300, "B": 250})
WHOLE = StaticSource({"1D": PANEL})
TERMS = RunTerms(SimulationConfig())
LONG = "a" * 990  # with all its brackets an expression of two of them is too long


def shortened(days: int, assets: str = "AB") -> StaticSource:
    """The market without the last days of these assets."""
    stays = [asset not in assets for asset in PANEL.assets]
    early = PANEL.ts <= PANEL.ts.max() - days * DAY_US
    panel = PANEL.take(early | [stays[segment] for segment in PANEL.segment_of_row])
    return StaticSource({"1D": panel})


def restated(asset: str) -> StaticSource:
    """The market with another close of one bar."""
    close, row = PANEL["close"].copy(), PANEL.rows_of(asset).start + 100
    close[row] = (PANEL["low"][row] + close[row]) / 2
    return StaticSource({"1D": PANEL.with_columns({**PANEL.columns, "close": close})})


def current(workspace: Workspace) -> dict[tuple[str, str], tuple[UUID, UUID]]:
    """`run_id` and `series_id` of each current run, by asset and preset."""
    query = "SELECT symbol, signal_name, run_id, series_id FROM backtest_runs WHERE is_current"
    with workspace.database.begin() as connection:
        rows = connection.execute(sa.text(query)).all()
    return {(row.symbol, row.signal_name): (row.run_id, row.series_id) for row in rows}


def series(workspace: Workspace) -> dict[tuple[str, str], UUID]:
    return {key: series_id for key, (_, series_id) in current(workspace).items()}


def test_runs_on_appended_bars_are_others_of_the_same_series(workspace: Workspace) -> None:
    refresh(workspace, shortened(40), PARTITIONS)
    before = current(workspace)
    assert len({series_id for _, series_id in before.values()}) == len(before) == 12
    for market in (shortened(20), WHOLE):
        refresh(workspace, market, PARTITIONS)
    after = current(workspace)
    assert {key: series_id for key, (_, series_id) in before.items()} == series(workspace)
    assert not {run_id for run_id, _ in before.values()} & {run_id for run_id, _ in after.values()}


def test_a_restated_bar_begins_another_series_of_its_asset_alone(workspace: Workspace) -> None:
    refresh(workspace, WHOLE, PARTITIONS)
    before = series(workspace)
    refresh(workspace, restated("A"), PARTITIONS)
    after = series(workspace)
    assert {key[0] for key in before if before[key] != after[key]} == {"A"}
    assert {key[0] for key in before if before[key] == after[key]} == {"B"}
    # Nor does the old one go on where the source takes it back: runs were made in between.
    refresh(workspace, WHOLE, PARTITIONS)
    again = series(workspace)
    assert not set(again.values()) & {before[key] for key in before if key[0] == "A"}


def test_a_restart_and_a_full_rebuild_of_the_same_bars_go_on_with_the_series(
    workspace: Workspace,
) -> None:
    refresh(workspace, shortened(20), PARTITIONS)
    refresh(workspace, WHOLE, PARTITIONS)
    before = current(workspace)
    for rebuild in (False, True, True):
        refresh(as_new_process(workspace), WHOLE, PARTITIONS, rebuild=rebuild)
        assert current(workspace) == before


def test_a_full_rebuild_that_finds_new_bars_goes_on_with_the_series(workspace: Workspace) -> None:
    refresh(workspace, shortened(20), PARTITIONS)
    before = series(workspace)
    refresh(workspace, WHOLE, PARTITIONS, rebuild=True)
    assert series(workspace) == before


def test_a_new_store_of_the_same_bars_has_the_same_series(
    workspace: Workspace, fresh_store: Callable[[], Workspace]
) -> None:
    other = fresh_store()
    for store in (workspace, other):
        refresh(store, WHOLE, PARTITIONS)
    assert current(other) == current(workspace)


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("2*atr_14/close", "( 2 * atr_14 ) / close", True),
        # As a file of rules has it: such ids are those from before.
        ("(2 * atr_14) / close", "2 * atr_14 / close", True),
        ("2 * (atr_14 / close)", "2 * atr_14 / close", False),
        (f"{LONG}_a+{LONG}_b/close+1", f"{LONG}_a+({LONG}_b/close)+1", True),
    ],
)
def test_an_expression_is_one_however_it_is_spelled(text: str, other: str, same: bool) -> None:
    for given in (
        lambda text: SimulationConfig(stops=StopRules(trailing=text)),
        lambda text: SimulationConfig(sizing=ByExpression(text)),
    ):
        one, another = (without_defaults(simulation_config(given(t))) for t in (text, other))
        assert (hash_of(one) == hash_of(another)) is same
    as_written = {"stops": {"trailing": "(2 * atr_14) / close"}}
    written = SimulationConfig(stops=StopRules(trailing="(2 * atr_14) / close"))
    assert without_defaults(simulation_config(written)) == as_written | {"sizing": None}


@pytest.mark.parametrize("text", ["0.02*2", " 0.04 ", "0.04 if 1 < 2 else close"])
def test_an_expression_of_one_number_is_the_number(text: str) -> None:
    assert SimulationConfig(stops=StopRules(stop_loss=text)) == SimulationConfig(
        stops=StopRules(stop_loss=0.04)
    )
    assert SimulationConfig(sizing=ByExpression(text)) == SimulationConfig(
        sizing=FixedFractional(0.04)
    )


def test_a_number_out_of_bounds_is_refused_however_it_is_spelled() -> None:
    with pytest.raises(InvalidInput, match="stop_loss must be above 0 and below 1"):
        SimulationConfig(stops=StopRules(stop_loss="0.5 * 4"))
    with pytest.raises(InvalidInput, match="fraction must be above 0"):
        SimulationConfig(sizing=ByExpression("1 - 1"))


def test_another_configuration_is_another_series(workspace: Workspace) -> None:
    refresh(workspace, WHOLE, PARTITIONS)
    before = series(workspace)
    dearer = SimulationConfig(costs=CostModel(fee_bps=20.0))
    refresh(workspace, WHOLE, PARTITIONS, dearer)
    assert not set(before.values()) & set(series(workspace).values())


@pytest.mark.parametrize("benchmark", ["B", "universe"])
def test_the_bars_of_a_benchmark_count_as_those_of_the_asset(
    workspace: Workspace, benchmark: str
) -> None:
    def ids_of_a(market: StaticSource) -> tuple[UUID, UUID]:
        refresh(workspace, market, PARTITIONS)
        terms = replace(TERMS, benchmark=benchmark)
        run = backtest_once(workspace, market, signal="ema_9_21", asset="A", tf="1D", terms=terms)
        query = sa.text("SELECT run_id, series_id FROM backtest_runs WHERE run_id = :run_id")
        with workspace.database.begin() as connection:
            row = connection.execute(query, {"run_id": run["run_id"]}).one()
        return row.run_id, row.series_id

    run_id, series_id = ids_of_a(shortened(20, "B"))
    grown = ids_of_a(WHOLE)
    assert grown[0] != run_id
    assert grown[1] == series_id
    assert ids_of_a(restated("B"))[1] != series_id


def test_walk_forwards_have_a_series_too(workspace: Workspace) -> None:
    plan = WalkForwardPlan(Schedule(150, 60))

    def series_of_a(market: StaticSource) -> UUID:
        prepared = prepare_walk_forward(
            workspace, market, asset="A", tf="1D", terms=TERMS, schedule=plan.schedule
        )
        run_walk_forward(workspace, prepared, strategy="ema", params={}, terms=TERMS, plan=plan)
        query = "SELECT series_id FROM backtest_runs WHERE split = 'walk_forward' AND is_current"
        return scalar(workspace, query)

    first = series_of_a(shortened(20))
    assert series_of_a(WHOLE) == first
    assert series_of_a(restated("A")) != first
