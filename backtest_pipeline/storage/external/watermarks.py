"""Watermarks of the external table: a cheap check of which partitions have changed.

One grouped statement returns the number of rows, the first and last timestamp and the sum of
`updated_at` of every partition, so that any new, deleted or rewritten row shows. An index on the
filters, tf and id that includes ts and updated_at serves it without reading the table.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql
from sqlalchemy import Connection, text

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.external.probe import FeatureTable
from backtest_pipeline.storage.postgres import copy
from backtest_pipeline.storage.provenance import combined

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


@dataclass(frozen=True)
class Watermark:
    """The state of one partition.

    Attributes:
        version: hash that changes whenever the partition does.
        n_rows: rows that pass the filters.
        last_ts: newest timestamp, microseconds since 1970 UTC.
    """

    version: str
    n_rows: int
    last_ts: int


class Look(NamedTuple):
    """What one look at the table shows.

    Attributes:
        watermarks: by id and name of the timeframe, of rows that can be used.
        unusable: by id and name of the timeframe, how many rows have a stamp that is none, or an id
            that no asset can have.
    """

    watermarks: dict[tuple[int, str], Watermark]
    unusable: dict[tuple[int | None, str | None], int]


def current_watermarks(table: FeatureTable) -> dict[tuple[int, str], Watermark]:
    """The watermark of each (id, timeframe name) of the usable rows of the table."""
    return look_at(table).watermarks


def look_at(table: FeatureTable) -> Look:
    """Rows, stamps and the sum of `updated_at` of every partition, in one statement."""
    features = table.features
    written = sql.SQL("sum(extract(epoch FROM updated_at))" if table.stamped else "NULL")
    query = sql.SQL("""
        SELECT id, tf, count(*) FILTER (WHERE usable), count(*),
               (extract(epoch FROM min(ts) FILTER (WHERE usable)) * 1000000)::bigint,
               (extract(epoch FROM max(ts) FILTER (WHERE usable)) * 1000000)::bigint, {}
        FROM (SELECT *, {} AS usable FROM {} WHERE {}) r GROUP BY id, tf
    """).format(written, features.usable, features.identifier, features.filtered)
    with table.database.begin() as connection:
        rows = connection.exec_driver_sql(query.as_string().replace("%", "%%")).all()
    now_us = time.time_ns() // 1000
    marks, unusable = {}, {}
    for id_, tf, n, n_all, first, last, stamp in rows:
        if n_all > n:
            unusable[id_, tf] = n_all - n
        if n and tf is not None:
            # An unfinished bar is skipped, so that finishing it is a change too.
            seen = [n, first, last, stamp, last > now_us, *([n_all] if n_all > n else [])]
            marks[id_, tf] = Watermark(combined(table.identity, *map(str, seen)), n, last)
    return Look(marks, unusable)


def read_watermarks(connection: Connection) -> dict[Partition, str]:
    """The version of each partition that was last copied into snapshots."""
    rows = connection.execute(
        text(
            "SELECT a.symbol, w.tf, w.version FROM external_watermarks w JOIN dim_assets a"
            " USING (id)"
        )
    )
    return {Partition(symbol, tf): version for symbol, tf, version in rows}


def write_watermarks(
    cursor: Cursor, ids: Mapping[str, int], watermarks: Mapping[Partition, Watermark]
) -> None:
    """Record the watermarks of partitions copied into snapshots, in the cursor's transaction."""
    rows = sorted((ids[p.asset], p.timeframe, w) for p, w in watermarks.items())
    columns: Sequence[Sequence[object]] = [
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2].version for row in rows],
        [row[2].n_rows for row in rows],
        [row[2].last_ts for row in rows],
    ]
    copy.run(
        cursor,
        """
        INSERT INTO external_watermarks (id, tf, version, n_rows, last_ts, taken_at)
        SELECT id, tf, version, n_rows, timestamptz 'epoch' + last_us * interval '1 microsecond',
               now()
        FROM unnest($1::int[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
             AS u (id, tf, version, n_rows, last_us)
        ON CONFLICT (id, tf) DO UPDATE SET version = excluded.version, n_rows = excluded.n_rows,
            last_ts = excluded.last_ts, taken_at = excluded.taken_at
        """,
        *columns,
    )
