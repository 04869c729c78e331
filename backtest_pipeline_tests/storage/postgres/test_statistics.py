"""The planner knows what was written in bulk, and is not asked to look again without a reason."""

from __future__ import annotations

from backtest_pipeline.pipeline.stages.backtests import BacktestsStage
from backtest_pipeline.pipeline.stages.bars import BarsStage
from backtest_pipeline.pipeline.stages.external.external_features import ExternalFeaturesStage
from backtest_pipeline.pipeline.stages.features import FeaturesStage
from backtest_pipeline.pipeline.stages.signals import SignalsStage
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_stage import WalkForwardStage
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.postgres.statistics import analyze_keys
from backtest_pipeline_tests.pipeline.markets import PARTITIONS, refresh, whole
from backtest_pipeline_tests.sql import column, distinct, execute_sql, scalar

STAGES = (
    *(BarsStage, FeaturesStage, ExternalFeaturesStage, SignalsStage, BacktestsStage),
    WalkForwardStage,
)
N_RUNS = "SELECT reltuples FROM pg_class WHERE oid = 'backtest_runs'::regclass"


def test_a_stage_has_the_planner_look_at_what_it_has_written(workspace: Workspace) -> None:
    assert scalar(workspace, N_RUNS) == -1
    refresh(workspace, whole(), PARTITIONS)
    assert scalar(workspace, N_RUNS) == scalar(workspace, "SELECT count(*) FROM backtest_runs")
    known = "SELECT attname FROM pg_stats WHERE tablename = 'backtest_trades'"
    assert "run_id" in distinct(workspace, known)
    assert "entry_price" not in distinct(workspace, known)


def test_tables_are_looked_at_again_once_they_have_grown(database: Database) -> None:
    execute_sql(database, "CREATE TABLE filled (x INTEGER PRIMARY KEY, y TEXT)")
    add = "INSERT INTO filled SELECT n FROM generate_series({}, {}) n"
    assert analyze_keys(database, ["filled"]) == []  # nothing in it
    execute_sql(database, add.format(1, 10_000))
    assert analyze_keys(database, ["filled"]) == ["filled"]
    assert column(database, "SELECT attname FROM pg_stats WHERE tablename = 'filled'") == ["x"]
    execute_sql(database, add.format(10_001, 10_500))
    assert analyze_keys(database, ["filled"]) == []
    execute_sql(database, add.format(10_501, 13_000))
    assert analyze_keys(database, ["filled", "nowhere"]) == ["filled"]


def test_stages_write_tables_that_there_are(database: Database) -> None:
    named = {table for stage in STAGES for table in stage.tables}
    there = distinct(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert named - there == set()
