"""Dagster's own tables, made and used by Dagster, in the schema that we give it."""

from __future__ import annotations

import sqlalchemy as sa

from backtest_pipeline.storage.postgres.database import Database


def test_dagster_keeps_runs_and_events_in_its_schema(database: Database) -> None:
    import dagster as dg

    storage = {"postgres": {"postgres_url": database.dagster_url()}}

    @dg.asset
    def three() -> int:
        return 3

    with dg.instance_for_test(overrides={"storage": storage}) as instance:
        assert dg.materialize([three], instance=instance).success
        assert instance.get_latest_materialization_event(dg.AssetKey("three")) is not None
    query = sa.text("SELECT schemaname FROM pg_tables WHERE tablename = 'event_logs'")
    with database.begin() as connection:
        assert list(connection.scalars(query)) == ["dagster"]
