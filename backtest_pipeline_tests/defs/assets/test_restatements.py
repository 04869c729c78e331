"""Restated history as a Dagster run, and what its check says."""

from __future__ import annotations

import dagster as dg

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.defs.running import (
    check_of,
    judged,
    metadata_of,
    require_success,
)
from backtest_pipeline_tests.sql import execute_sql


def test_a_look_at_untouched_history_passes(
    one_store: Database, instance: dg.DagsterInstance
) -> None:
    run = judged(instance, "restatements_job", "restatements")
    require_success(run)
    assert metadata_of(run)["restatements"] == 0
    assert check_of(run).passed


def test_restated_history_is_a_warning_with_its_assets(
    one_store: Database, instance: dg.DagsterInstance
) -> None:
    execute_sql(
        one_store,
        """
                INSERT INTO restatements
                SELECT gen_random_uuid(), id, tf, 'was', version, FALSE, 1, 0, 0, last_ts, last_ts,
                       '{"close": 0.5}'
                FROM dataset_versions WHERE dataset = 'features'
            """,
    )
    run = judged(instance, "restatements_job", "restatements")
    require_success(run)
    check = check_of(run)
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.metadata["assets"].value == ["S-ALPHA"]
