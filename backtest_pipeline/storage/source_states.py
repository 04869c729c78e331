"""As which state of the source the stored bars were read (`source_states`), and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.postgres import copy

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


def write_states(
    cursor: Cursor, tf: str, ids: Mapping[str, int], states: Mapping[str, str], at_us: int
) -> None:
    """Record the states of the source, in the transaction that stores its bars.

    Args:
        cursor: its transaction holds the lock on these assets (`copy.lock_cells`).
        tf: timeframe of the bars.
        ids: id of each asset whose bars were compared with the source.
        states: the state of each asset. Of those without one the time of the read is recorded.
        at_us: microseconds since 1970 UTC, before the source was read.
    """
    copy.run(
        cursor,
        "INSERT INTO source_states AS s (id, tf, state, read_at)"
        " SELECT id, $1, state, timestamptz 'epoch' + $4::bigint * interval '1 microsecond'"
        " FROM unnest($2::int[], $3::text[]) AS u (id, state)"
        " ON CONFLICT (id, tf) DO UPDATE SET state = excluded.state, read_at = excluded.read_at"
        " WHERE excluded.state IS NULL OR s.state IS DISTINCT FROM excluded.state",
        tf,
        list(ids.values()),
        [states.get(asset) for asset in ids],
        at_us,
    )


def clock_us(connection: Connection) -> int:
    """The time by the database's clock, which is one for all hosts; microseconds since 1970 UTC."""
    query = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    return int(connection.execute(text(query)).scalar_one())


def read_since(
    cursor: Cursor, tf: str, ids: Mapping[str, int], states: Mapping[str, str], at_us: int
) -> set[str]:
    """The assets whose stored bars were read after a time, as another state of the source.

    Args:
        cursor: its transaction holds the lock on these assets (`copy.lock_cells`).
        tf: timeframe of the bars.
        ids: id of each asset.
        states: the state of the source at that time, of the assets of which it is known.
        at_us: the time, microseconds since 1970 UTC.
    """
    later = copy.fetch(
        cursor,
        "SELECT id, state FROM source_states WHERE tf = $1 AND id = ANY($2::int[])"
        " AND read_at > timestamptz 'epoch' + $3::bigint * interval '1 microsecond'",
        tf,
        list(ids.values()),
        at_us,
    )
    state_of = dict(zip(later["id"].to_pylist(), later["state"].to_pylist(), strict=True))
    return {
        asset
        for asset, id_ in ids.items()
        if id_ in state_of and (state_of[id_] is None or state_of[id_] != states.get(asset))
    }


def read_states(connection: Connection, partitions: Iterable[Partition]) -> dict[Partition, str]:
    """The recorded states, by partition; partitions without one are left out."""
    requested = set(partitions)
    rows = connection.execute(
        text(
            "SELECT a.symbol, s.tf, s.state FROM source_states s JOIN dim_assets a USING (id)"
            " WHERE a.symbol = ANY(:symbols) AND s.tf = ANY(:timeframes) AND s.state IS NOT NULL"
        ),
        {
            "symbols": list({p.asset for p in requested}),
            "timeframes": list({p.timeframe for p in requested}),
        },
    )
    states = {Partition(symbol, tf): state for symbol, tf, state in rows}
    return {partition: state for partition, state in states.items() if partition in requested}


def read_times(connection: Connection, timeframes: Sequence[str]) -> dict[Partition, datetime]:
    """When a source that does not tell its state was last read for bars, by partition."""
    rows = connection.execute(
        text(
            "SELECT a.symbol, s.tf, s.read_at FROM source_states s JOIN dim_assets a USING (id)"
            " WHERE s.tf = ANY(:timeframes) AND s.state IS NULL"
        ),
        {"timeframes": list(timeframes)},
    )
    return {Partition(symbol, tf): at for symbol, tf, at in rows}


def newest_bars(
    connection: Connection, dataset: str, trait: str
) -> list[tuple[Partition, int, bool]]:
    """The newest row of each partition of a dataset that has any, of assets that are not synthetic.

    Returns:
        Partition, stamp of its newest row in microseconds since 1970 UTC, and whether its asset has
        the trait at any timeframe.
    """
    rows = connection.execute(
        text("""
            SELECT a.symbol, v.tf, (extract(epoch FROM v.last_ts) * 1000000)::bigint,
                   EXISTS (SELECT FROM asset_identity i WHERE i.id = v.id AND i.trait = :trait)
            FROM dataset_versions v JOIN dim_assets a USING (id)
            WHERE v.dataset = :dataset AND v.n_rows > 0 AND NOT a.is_synthetic
            ORDER BY a.symbol, v.tf
        """),
        {"dataset": dataset, "trait": trait},
    )
    return [(Partition(symbol, tf), last, has_it) for symbol, tf, last, has_it in rows]
