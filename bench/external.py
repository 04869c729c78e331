"""Case `external`: reading the needed columns of a user's wide feature table."""

from __future__ import annotations

import os

import pandas as pd
import psycopg
import sqlalchemy as sa

from backtest_pipeline.market.features import FEATURES, READ_COLUMNS
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.storage.external.open_table import open_table
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.external.rows import read_panel
from backtest_pipeline.storage.external.watermarks import current_watermarks
from backtest_pipeline.storage.postgres.database import open_database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.external_table import ALIGNMENT, VENUE, make_external_table
from bench.clock import Clock, Seconds
from bench.harness import Report, Table, interleaved, median
from bench.store import fresh_store

_ASSETS, _ROWS = 250, 4_000
_REPEATS = 3
_OWN = "Arrow, 40 columns of one's own"
_MORE = [f.name for f in FEATURES if f.name not in READ_COLUMNS and f.sql_type != "BOOLEAN"][:40]
_INDEX = """
    CREATE INDEX ON theirs.features (alignment_source, venue_id, tf, id) INCLUDE (ts, updated_at)
"""


def run(*, quick: bool) -> Report:
    """Measure it."""
    assets, rows = (3, 100) if quick else (_ASSETS, _ROWS)
    with fresh_store() as settings:
        database = open_database(settings)
        with psycopg.connect(database.conninfo) as connection:
            make_external_table(connection, assets=assets, rows=rows)
        os.environ["BACKTEST_FEATURES_TABLE"] = "theirs.features"
        os.environ["BACKTEST_FEATURES_FILTERS"] = f"alignment_source={ALIGNMENT},venue_id={VENUE}"
        table = open_table(load_settings(), database)
        clock = Clock(settings.home)
        assert len(_MORE) == 40
        measured = _measure(table, database.engine, assets, clock)

        def looks() -> list[Seconds]:
            look = {"look": lambda: current_watermarks(table)}
            return interleaved(look, _REPEATS, clock)["look"]

        lookups = {"without an index": looks()}
        with psycopg.connect(database.conninfo, autocommit=True) as connection:
            connection.execute(_INDEX)
            connection.execute("VACUUM theirs.features")
        lookups["with the index of docs/external-features.md"] = looks()
        table.close()
        database.close()
    n = assets * rows
    return Report(
        "External features",
        f"A table of {n:,} rows and 114 columns, {assets} assets, its key with alignment_source "
        f"and venue_id; {len(READ_COLUMNS)} columns besides id and ts are read, and in their "
        "place 40 others, as strategies may read that have columns of one's own. Median of "
        f"{_REPEATS} rounds that take turns, files in the system's cache. CPU is that of this "
        "process and the server; on a machine that others use, trust it more than the clock.",
        [
            Table(
                "Reading what is needed",
                ("reader", "seconds", "CPU seconds", "rows/s", "rows per CPU second"),
                [_row(name, n, median(taken)) for name, taken in measured.items()],
            ),
            Table(
                "One look at all partitions",
                ("index", "seconds", "CPU seconds"),
                [(name, median(t).wall, median(t).cpu) for name, t in lookups.items()],
            ),
        ],
    )


def _row(name: str, n: int, taken: Seconds) -> tuple[str, float, float, float, float]:
    return name, taken.wall, taken.cpu, n / taken.wall, n / max(taken.cpu, 0.01)


def _measure(
    table: FeatureTable, engine: sa.Engine, assets: int, clock: Clock
) -> dict[str, list[Seconds]]:
    ids = list(range(1, assets + 1))
    names = [f"ID-{i}" for i in ids]
    columns = ", ".join(READ_COLUMNS)
    query = sa.text(
        f"SELECT id, ts, {columns} FROM theirs.features WHERE tf = '1D'"  # noqa: S608
        f" AND alignment_source = '{ALIGNMENT}' AND venue_id = {VENUE} ORDER BY id, ts"
    )

    def ours() -> object:
        return read_panel(table, timeframe("1D"), names, ids, READ_COLUMNS)

    def pandas() -> object:
        return pd.read_sql(query, engine)

    ours()  # reads the table into the cache for whoever comes first

    def more() -> object:
        return read_panel(table, timeframe("1D"), names, ids, _MORE)

    readers = {"Arrow, several sessions": ours, "pandas.read_sql": pandas, _OWN: more}
    return interleaved(readers, _REPEATS, clock)
