"""A table of features that belongs to somebody else, and a role that may only read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.storage.external.names import ExternalNames, filters_of, parts_of
from backtest_pipeline.storage.external.probe import FeatureTable, probe
from backtest_pipeline.storage.postgres.database import connect_database
from backtest_pipeline.storage.postgres.driver_errors import FEATURES_DSN
from backtest_pipeline_tests.external_table import grant_reading, make_external_table

FILTERS = "alignment_source=multi_tf,venue_id=1"


@dataclass(frozen=True)
class Theirs:
    """A database with the schema `theirs`, as its owner and as the reader reach it."""

    owner: str
    reader: str

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run statements as the owner; the rows of the last one."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)  # pyright: ignore[reportArgumentType, reportCallIssue]
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def open(
        self,
        table: str = "theirs.features",
        filters: str = FILTERS,
        *,
        emas: str = "",
        assets: str = "",
        joined: bool = False,
    ) -> FeatureTable:
        """The table as this project opens it: by the reader, or as the store's own role."""
        names = ExternalNames(
            parts_of(table),
            parts_of(emas) if emas else None,
            parts_of(assets) if assets else None,
            filters_of(filters),
        )
        dsn = self.owner if joined else self.reader
        database = connect_database(dsn, variable=FEATURES_DSN, read_only=True)
        try:
            return probe(database, names, joined=joined)
        except BacktestError:
            database.close()
            raise

    def content(self) -> dict[str, str]:
        """A hash of each table of the schema: equal where nothing was written."""
        tables = self.run(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'theirs' AND c.relkind IN ('r', 'v', 'm', 'S')"
        )
        return {
            name: self.run(
                sql.SQL("SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {} t")
                .format(sql.Identifier("theirs", name))
                .as_string()
            )[0][0]
            for (name,) in tables
        }


def make_theirs(conninfo: str, role: str, *, assets: int, rows: int) -> None:
    """Put the schema into a database, and let a new role read it."""
    with psycopg.connect(conninfo) as connection:
        timeframes = (("1D", 1), ("1W", 7))
        make_external_table(connection, assets=assets, rows=rows, timeframes=timeframes)
    with psycopg.connect(conninfo) as connection:
        grant_reading(connection, role, "secret")


def as_reader(conninfo: str, role: str) -> str:
    """The connection string of the role that may only read."""
    return make_conninfo(conninfo, user=role, password="secret")  # noqa: S106
