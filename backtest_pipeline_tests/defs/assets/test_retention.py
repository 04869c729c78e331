"""Retention as a Dagster run."""

from __future__ import annotations

import dagster as dg
import sqlalchemy as sa

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.defs.running import judged, metadata_of, require_success


def test_retention_says_what_went(one_store: Database, instance: dg.DagsterInstance) -> None:
    with one_store.begin() as connection:
        for statement in (
            "UPDATE backtest_runs SET completed_at = completed_at - interval '91 days'",
            "DELETE FROM dataset_versions WHERE dataset = 'backtests'",
        ):
            connection.execute(sa.text(statement))
    run = judged(instance, "retention_job", "retention")
    require_success(run)
    told = metadata_of(run)
    assert (told["runs_removed"], told["artifacts_left"]) == (6, 0)
    assert told["bytes_removed"] > 10_000
    with one_store.begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM backtest_runs")) == 0
        assert connection.scalar(sa.text("SELECT count(*) FROM trials")) == 6
