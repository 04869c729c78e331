"""The leaderboard and the negative controls as Dagster runs, and what their checks notice."""

from __future__ import annotations

import dagster as dg

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.defs.running import (
    QUIET,
    check_of,
    failure_of,
    judged,
    metadata_of,
    rectangle,
    require_success,
    run_job,
)
from backtest_pipeline_tests.sql import execute_sql


def test_the_leaderboard_is_published_and_found_sound(
    four_store: Database, instance: dg.DagsterInstance
) -> None:
    run = judged(instance, "leaderboard_job", "leaderboard")
    require_success(run)
    metadata = metadata_of(run)
    assert metadata["ranked"] == 24
    assert metadata["gate_set"] == "default"
    assert metadata["registered_after_results"] is False
    table = metadata["best_by_significance"]
    assert isinstance(table, dg.TableMetadataValue)
    assert len(table.records) == 10
    assert check_of(run).passed
    # A run that comes after the board is missed until the next one.
    require_success(run_job(instance, "refresh", rectangle("S-GAMMA|1D", "S-GAMMA|1D")))
    definition = build_definitions().resolve_implicit_global_asset_job_def()
    only = definition.get_subset(
        asset_selection=set(),
        asset_check_selection={dg.AssetCheckKey(dg.AssetKey("leaderboard"), "ranks_and_coverage")},
    )
    late = check_of(only.execute_in_process(QUIET, instance=instance))
    assert not late.passed
    assert late.metadata["runs_missing"].value == 6


def test_gates_that_do_not_exist_fail_the_run_with_their_name(
    store: Database, instance: dg.DagsterInstance
) -> None:
    run = judged(instance, "leaderboard_job", "leaderboard", gates="defalt")
    assert not run.success
    assert "did you mean default" in failure_of(run)


def test_the_false_positive_rate_is_measured_and_too_high_a_one_fails_the_check(
    one_store: Database, instance: dg.DagsterInstance
) -> None:
    few = {"searches": 40, "n_bars": 400}
    run = judged(instance, "negative_controls_job", "negative_controls", **few)
    require_success(run)
    assert metadata_of(run)["searches"] == 80
    good = check_of(run)
    assert good.passed
    rate = good.metadata["random_walk_rate"].value
    assert isinstance(rate, float)
    assert rate <= 0.05
    execute_sql(
        one_store,
        "UPDATE negative_controls SET n_significant = 3, rate = 0.075, upper_bound = 0.2"
        " WHERE world = 'shuffled_bars'",
    )
    again = judged(instance, "negative_controls_job", "negative_controls", **few)
    require_success(again)
    bad = check_of(again)
    assert not bad.passed
    assert bad.metadata["shuffled_bars_rate"].value == 0.075
    assert bad.description is not None
    assert "shuffled_bars: 7.5%" in bad.description
