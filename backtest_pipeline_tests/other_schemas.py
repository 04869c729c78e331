"""Stores whose schema is not the one that this release applies, and all that is in them."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.sql import execute_sql

_OLDER = """
    CREATE TABLE schema_migrations (
        name       TEXT PRIMARY KEY,
        sha256     TEXT NOT NULL,
        applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
    );
    INSERT INTO schema_migrations (name, sha256) VALUES
        ('0001_dimensions.sql', repeat('1', 64)), ('0004_runs.sql', repeat('4', 64)),
        ('0020_jobs.sql', repeat('2', 64));
    CREATE TABLE dim_assets (id INTEGER PRIMARY KEY, symbol TEXT NOT NULL UNIQUE);
    INSERT INTO dim_assets VALUES (1, 'S-ALPHA');
    CREATE TABLE backtest_runs (run_id UUID PRIMARY KEY, status TEXT NOT NULL);
    INSERT INTO backtest_runs VALUES (gen_random_uuid(), 'completed');
    CREATE TABLE backtest_jobs (job_id UUID PRIMARY KEY, status TEXT NOT NULL);
    INSERT INTO backtest_jobs VALUES (gen_random_uuid(), 'pending');
"""
_NEWER = """
    ALTER TABLE dim_assets ADD COLUMN listed_on DATE;
    INSERT INTO dim_assets (symbol) VALUES ('S-ALPHA');
    INSERT INTO schema_migrations (name, sha256)
    VALUES ('migrations/9001_listings.sql', repeat('9', 64))
"""


@dataclass(frozen=True)
class OtherSchema:
    """A store, and the sentence with which it is refused."""

    database: Database
    sentence: str

    def contents(self) -> dict[str, str]:
        """A hash of the columns and rows of every table, whatever schema it is in."""
        with self.database.begin() as connection:
            tables = connection.execute(
                sa.text("""
                    SELECT c.oid::regclass::text, (
                        SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum)
                        FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0)
                    FROM pg_class c
                    WHERE c.relkind = 'r' AND c.relnamespace NOT IN
                        ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
                """)
            ).all()
            rows = "SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {} t"
            return {
                table: f"{columns}: {connection.scalar(sa.text(rows.format(table)))}"
                for table, columns in tables
            }


def older_store(database: Database) -> OtherSchema:
    """An empty database as a release from before the baseline leaves it: the record of its files,
    and some tables as they were."""
    execute_sql(database, _OLDER)
    return OtherSchema(
        database,
        f"{database.where}: the store has an older schema that this release cannot migrate; "
        "start a new store (another BACKTEST_HOME or another database), or remove this one, and "
        "refresh to recompute its runs",
    )


def newer_store(database: Database) -> OtherSchema:
    """A migrated store to which a later release has applied a migration of its own."""
    execute_sql(database, _NEWER)
    return OtherSchema(
        database,
        f"{database.where}: the store was migrated by a newer release "
        "(migrations/9001_listings.sql); upgrade backtest-pipeline, or use another store",
    )
