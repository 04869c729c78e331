"""The walk-forward asset on a real store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from backtest_pipeline.defs.partitions import RANGE_END, RANGE_START, register_partitions
from backtest_pipeline.defs.resources import WalkForwardResource
from backtest_pipeline.defs.schedules import weekly_walk_forward
from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.pools.staged_batches import run_stage
from backtest_pipeline.pipeline.pools.work_pool import Threads
from backtest_pipeline.pipeline.stages.features import stored_features
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_stage import WalkForwardStage
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.table_checks import violations
from backtest_pipeline_tests.defs.conftest import Stored, copy_of
from backtest_pipeline_tests.defs.running import (
    materialized,
    rectangle,
    require_success,
    run_job,
    told,
)
from backtest_pipeline_tests.pipeline.conftest import copied
from backtest_pipeline_tests.sql import count, execute_sql, scalar

ALPHA = rectangle("S-ALPHA|1D", "S-ALPHA|1D")
SHORT = WalkForwardResource(train_days=500, test_days=500)


@pytest.fixture(scope="module")
def walked_once(
    template: Database, one_once: Stored, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stored]:
    """What a walk-forward of S-ALPHA|1D leaves."""
    partitions, artifacts = [Partition("S-ALPHA", "1D")], tmp_path_factory.mktemp("walked") / "a"
    for workspace in copied(template, *one_once, artifacts):
        features = stored_features(workspace, partitions)
        stage = WalkForwardStage(workspace, SimulationConfig(), SHORT.plan())
        assert run_stage(features, stage, pool=Threads(1)).counts == {"stored": 1}
        workspace.database.close()
        yield workspace.database.where.rpartition("/")[2], artifacts


@pytest.fixture
def walked_store(template: Database, walked_once: Stored, tmp_path: Path) -> Iterator[Database]:
    """`store` after that."""
    yield from copy_of(template, walked_once, tmp_path / "artifacts")


def test_folds_runs_and_verdicts_are_stored_and_found_again(
    one_store: Database, instance: dg.DagsterInstance
) -> None:
    run = run_job(instance, "walk_forward_job", ALPHA, walk=SHORT)
    require_success(run)
    assert materialized(instance, "walk_forward") == {"S-ALPHA|1D"}
    # Six signals are registered, of three strategies.
    assert count(one_store, "walk_forward_runs") == 3
    assert count(one_store, "backtest_runs WHERE split = 'walk_forward'") == 3
    folds = count(one_store, "walk_forward_folds")
    assert folds == scalar(one_store, "SELECT sum(n_folds) FROM walk_forward_runs") > 6
    assert count(one_store, "trials WHERE source = 'walk_forward'") > 1000
    (event,) = told(instance, run, "walk_forward").values()
    found = event.metadata
    assert found["runs"].value == 3
    assert found["folds"].value == folds
    (check,) = run.get_asset_check_evaluations()
    assert check.passed

    again = run_job(instance, "walk_forward_job", ALPHA, walk=SHORT)
    (event,) = told(instance, again, "walk_forward").values()
    metadata = event.metadata
    assert metadata["partitions_unchanged"].value == 1
    assert metadata["rows_written"].value == 0


DAMAGE = {
    "tested_twice": "SET train_end = train_start, test_start = test_start - interval '20 days'"
    " WHERE fold = 1",
    "bars_untested": "SET test_end = test_end - interval '2 days' WHERE fold = 0",
    "folds_missing": "SET fold = 9 WHERE fold = 0",
    "other_bars_than_the_run": "SET n_test = n_test + 1",
}


def test_the_check_sees_bars_that_are_not_tested_just_once(
    walked_store: Database, instance: dg.DagsterInstance
) -> None:
    with walked_store.begin() as connection:
        assert set(violations(connection, "walk_forward").values()) == {0}
    for rule, change in DAMAGE.items():
        with walked_store.begin() as connection:
            connection.execute(sa.text(f"UPDATE walk_forward_folds {change}"))
            assert violations(connection, "walk_forward")[rule] > 0, rule
            connection.rollback()
    execute_sql(walked_store, "DELETE FROM walk_forward_folds WHERE fold = 0")
    run = run_job(instance, "walk_forward_job", ALPHA, walk=SHORT)
    (check,) = run.get_asset_check_evaluations()
    assert not check.passed
    assert check.metadata["folds_missing"].value != 0


def test_rollups_and_the_refresh_do_not_see_out_of_sample_runs(
    walked_store: Database, instance: dg.DagsterInstance
) -> None:
    require_success(run_job(instance, "refresh", ALPHA))
    require_success(run_job(instance, "portfolio_rollups_job", rectangle("1D", "1D")))
    members = """
        SELECT count(*) FROM portfolio_runs p, unnest(p.member_run_ids) AS member
        JOIN backtest_runs r ON r.run_id = member WHERE p.is_current AND r.split {} 'full'
    """
    assert scalar(walked_store, members.format("=")) > 0
    assert scalar(walked_store, members.format("<>")) == 0
    assert count(walked_store, "backtest_runs WHERE is_current") == 6 + 3


def test_bars_that_fill_no_fold_are_a_remark_and_no_failure(
    one_store: Database, instance: dg.DagsterInstance
) -> None:
    run = run_job(instance, "walk_forward_job", ALPHA, walk=WalkForwardResource(train_days=9000))
    require_success(run)
    (event,) = told(instance, run, "walk_forward").values()
    assert "more bars are needed" in str(event.metadata["why"].value)
    assert event.metadata["dagster/row_count"].value == 0


def test_the_weekly_schedule_asks_for_everything_in_one_run() -> None:
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(
            instance,
            scheduled_execution_time=datetime(2026, 1, 3, 3, 10, tzinfo=UTC),
            instance_ref=instance.get_ref(),
        )
        assert isinstance(weekly_walk_forward(context), dg.SkipReason)
        register_partitions(instance, ["A0", "A5"])
        request = weekly_walk_forward(context)
    assert isinstance(request, dg.RunRequest)
    assert request.tags[RANGE_START].startswith("A0|")
    assert request.tags[RANGE_END].startswith("A5|")


def test_a_resource_with_a_misspelt_word_says_which() -> None:
    with pytest.raises(UnknownName, match="did you mean rolling"):
        WalkForwardResource(mode="roling").plan()
    with pytest.raises(UnknownName, match="did you mean random"):
        WalkForwardResource(search="randm").plan()
