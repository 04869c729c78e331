"""The tables of dataset versions, snapshots and data quality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlalchemy import Connection, text

from backtest_pipeline.market.errors import StoreOvertaken
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.postgres import copy

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

_SNAPSHOT_DATASETS = ("bars", "features")
COLUMNS = "columns:"
"""Begins the dataset of a set of columns of the user's own; the name of the set follows."""


def input_key(partition: Partition, dataset: str = "features") -> str:
    """What names an input of a run in its `dataset_version_ids`: `BTC|1D` for features.

    Of other datasets `BTC|1D|<dataset>`; the function of this name in SQL says the same.
    """
    return str(partition) if dataset == "features" else f"{partition}|{dataset}"


def dataset_of_key(key: str) -> tuple[Partition, str]:
    """The partition and the dataset that an `input_key` names."""
    asset, tf, *dataset = key.split("|", 2)
    return Partition(asset, tf), dataset[0] if dataset else "features"


def is_snapshot_dataset(dataset: str) -> bool:
    """Whether a dataset's rows are files that runs are computed from."""
    return dataset in _SNAPSHOT_DATASETS or dataset.startswith(COLUMNS)


@dataclass(frozen=True, order=True)
class DatasetVersion:
    """The stored version of one dataset for one partition.

    Attributes:
        version: hash of the stored content.
        input_version: version of its input.
        code_version: declared versions of the code that made it, or a hash of them and the
            configuration.
        generation: stays the same while rows are only appended (even if all are rewritten), and
            changes when a stored row changes or is removed.
        n_rows: number of rows; 0 is a valid result.
        first_ts, last_ts: microseconds UTC of the first and last row, None without rows.
        uris: artifacts that hold the rows, oldest rows first; empty if a table holds them.
    """

    version: str
    input_version: str
    code_version: str
    generation: str
    n_rows: int
    first_ts: int | None = None
    last_ts: int | None = None
    uris: tuple[str, ...] = ()

    def is_made_from(self, input_version: str, code_version: str) -> bool:
        return self.input_version == input_version and self.code_version == code_version


def read_versions(
    connection: Connection, dataset: str, partitions: Iterable[Partition]
) -> dict[Partition, DatasetVersion]:
    """The stored versions of a dataset, by partition; partitions without one are left out."""
    requested = set(partitions)
    rows = connection.execute(
        text("""
            SELECT a.symbol, v.tf, v.version, v.input_version, v.code_version, v.generation,
                   v.n_rows,
                   (extract(epoch FROM v.first_ts) * 1000000)::bigint,
                   (extract(epoch FROM v.last_ts) * 1000000)::bigint, v.uris
            FROM dataset_versions v JOIN dim_assets a USING (id)
            WHERE v.dataset = :dataset AND a.symbol = ANY(:symbols) AND v.tf = ANY(:timeframes)
        """),
        {
            "dataset": dataset,
            "symbols": list({p.asset for p in requested}),
            "timeframes": list({p.timeframe for p in requested}),
        },
    )
    versions = {
        Partition(row[0], row[1]): DatasetVersion(*row[2:-1], uris=tuple(row[-1])) for row in rows
    }
    return {partition: version for partition, version in versions.items() if partition in requested}


def all_partitions(connection: Connection, dataset: str) -> list[Partition]:
    """The partitions with a stored version of the dataset."""
    rows = connection.execute(
        text(
            "SELECT a.symbol, v.tf FROM dataset_versions v JOIN dim_assets a USING (id)"
            " WHERE v.dataset = :dataset ORDER BY a.symbol, v.tf"
        ),
        {"dataset": dataset},
    )
    return [Partition(*row) for row in rows]


def stored_versions(
    cursor: Cursor, dataset: str, tf: str, ids: Mapping[str, int]
) -> dict[str, DatasetVersion]:
    """The stored versions of a dataset at one timeframe, by asset, in the cursor's transaction."""
    rows = copy.fetch(
        cursor,
        "SELECT id, version, input_version, code_version, generation, n_rows, first_ts, last_ts,"
        " array_to_string(uris, ' ') AS uris"
        " FROM dataset_versions WHERE dataset = $1 AND tf = $2 AND id = ANY($3::int[])",
        dataset,
        tf,
        list(ids.values()),
    )
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for column in rows.itercolumns()
    ]
    by_id = {
        id_: DatasetVersion(*values, uris=tuple(uris.split()))
        for id_, *values, uris in zip(*(c.to_pylist() for c in columns), strict=True)
    }
    return {asset: by_id[i] for asset, i in ids.items() if i in by_id}


def write_versions(
    cursor: Cursor,
    dataset: str,
    ids: Mapping[str, int],
    versions: Mapping[Partition, DatasetVersion],
    *,
    made_from: str | None = None,
) -> None:
    """Record versions, each replacing the previous one, in the cursor's transaction.

    Versions whose rows are in snapshots remain readable by their hash after they are replaced.

    Args:
        cursor: its transaction holds the lock on these assets (`copy.lock_cells`).
        dataset: name of the dataset.
        ids: asset id of each symbol.
        versions: the versions to record.
        made_from: stored dataset that `input_version` refers to, if any.

    Raises:
        StoreOvertaken: if their input was replaced in the meantime; a newer version of this dataset
            may be stored already.
    """
    if made_from is not None:
        used: dict[str, dict[str, str]] = defaultdict(dict)
        for partition, version in versions.items():
            used[partition.timeframe][partition.asset] = version.input_version
        for tf, of_assets in used.items():
            require_versions(cursor, made_from, tf, ids, of_assets)
    rows = sorted((ids[p.asset], p.timeframe, v) for p, v in versions.items())
    copy.run(
        cursor,
        """
        WITH given AS (
            SELECT id, tf, version, input, code, generation, n_rows,
                   timestamptz 'epoch' + first_us * interval '1 microsecond' AS first_ts,
                   timestamptz 'epoch' + last_us * interval '1 microsecond' AS last_ts,
                   string_to_array(uris, ' ') AS uris
            FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                        $8::bigint[], $9::bigint[], $10::bigint[], $11::text[])
                 AS u (id, tf, version, input, code, generation, n_rows, first_us, last_us, uris)
        ), readable AS (
            INSERT INTO dataset_snapshots (dataset, id, tf, version, code_version, generation,
                n_rows, first_ts, last_ts, uris, follows)
            SELECT $1, id, tf, version, code, generation, n_rows, first_ts, last_ts, uris, (
                SELECT s.version FROM dataset_snapshots s
                WHERE (s.dataset, s.id, s.tf) = ($1, given.id, given.tf)
                    AND s.version <> given.version
                ORDER BY s.current_since DESC, s.version DESC LIMIT 1)
            FROM given
            WHERE $12::boolean AND n_rows > 0 AND cardinality(uris) > 0
            ON CONFLICT (dataset, id, tf, version) DO UPDATE SET
                code_version = excluded.code_version, generation = excluded.generation,
                uris = excluded.uris, follows = excluded.follows, current_since = now()
        )
        INSERT INTO dataset_versions (dataset, id, tf, version, input_version, code_version,
            generation, n_rows, first_ts, last_ts, uris, updated_at)
        SELECT $1, id, tf, version, input, code, generation, n_rows, first_ts, last_ts, uris, now()
        FROM given
        ON CONFLICT (dataset, id, tf) DO UPDATE SET
            version = excluded.version, input_version = excluded.input_version,
            code_version = excluded.code_version, generation = excluded.generation,
            n_rows = excluded.n_rows, first_ts = excluded.first_ts,
            last_ts = excluded.last_ts, uris = excluded.uris, updated_at = excluded.updated_at
        """,
        dataset,
        [id_ for id_, _, _ in rows],
        [tf for _, tf, _ in rows],
        [v.version for _, _, v in rows],
        [v.input_version for _, _, v in rows],
        [v.code_version for _, _, v in rows],
        [v.generation for _, _, v in rows],
        [v.n_rows for _, _, v in rows],
        [v.first_ts for _, _, v in rows],
        [v.last_ts for _, _, v in rows],
        [" ".join(v.uris) for _, _, v in rows],
        is_snapshot_dataset(dataset),
    )


def require_versions(
    cursor: Cursor, dataset: str, tf: str, ids: Mapping[str, int], used: Mapping[str, str]
) -> None:
    """Raise StoreOvertaken unless these versions, by asset, are still the stored ones."""
    stored = stored_versions(cursor, dataset, tf, {asset: ids[asset] for asset in used})
    replaced = [a for a, version in used.items() if a not in stored or stored[a].version != version]
    if replaced:
        raise StoreOvertaken(
            f"the {dataset} of {', '.join(sorted(replaced))} at {tf} were replaced while results "
            "were computed from them; try again"
        )


def mark_stale(cursor: Cursor, dataset: str, asset_id: int, tf: str) -> None:
    """Mark a partition's dataset stale, so that the next refresh recomputes it.

    Until then the stored rows remain the partition's dataset.
    """
    copy.run(
        cursor,
        "UPDATE dataset_versions SET input_version = ''"
        " WHERE dataset = $1 AND id = $2::int AND tf = $3",
        dataset,
        asset_id,
        tf,
    )


def mark_changed(cursor: Cursor, tf: str, ids: Sequence[int]) -> None:
    """Mark features that no longer match their version, so that they and all results are rebuilt.

    Args:
        cursor: cursor of the transaction.
        tf, ids: the partitions; their watermarks of an external table are deleted.
    """
    copy.run(
        cursor,
        "UPDATE dataset_versions SET version = '', code_version = ''"
        " WHERE dataset = 'features' AND tf = $1 AND id = ANY($2::int[])",
        tf,
        list(ids),
    )
    copy.run(
        cursor,
        "DELETE FROM external_watermarks WHERE tf = $1 AND id = ANY($2::int[])",
        tf,
        list(ids),
    )


@dataclass(frozen=True)
class QualityCount:
    """Number of rows of one partition that were skipped or flagged for one reason."""

    partition: Partition
    reason: str
    n_rows: int
    first_ts: int | None = None
    last_ts: int | None = None


def replace_quality(
    cursor: Cursor,
    dataset: str,
    ids: Mapping[str, int],
    partitions: Sequence[Partition],
    counts: Sequence[QualityCount],
) -> None:
    """Replace the recorded counts of these partitions.

    Unchanged rows are not written.
    """
    rows = sorted((ids[c.partition.asset], c.partition.timeframe, c.reason, c) for c in counts)
    keys = [[row[i] for row in rows] for i in range(3)]
    copy.run(
        cursor,
        """
        DELETE FROM data_quality WHERE dataset = $1
            AND (id, tf) IN (SELECT * FROM unnest($2::int[], $3::text[]))
            AND (id, tf, reason) NOT IN (SELECT * FROM unnest($4::int[], $5::text[], $6::text[]))
        """,
        dataset,
        [ids[p.asset] for p in partitions],
        [p.timeframe for p in partitions],
        *keys,
    )
    copy.run(
        cursor,
        """
        INSERT INTO data_quality AS q (dataset, id, tf, reason, n_rows, first_ts, last_ts)
        SELECT $1, id, tf, reason, n_rows,
               timestamptz 'epoch' + first_us * interval '1 microsecond',
               timestamptz 'epoch' + last_us * interval '1 microsecond'
        FROM unnest($2::int[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
             AS u (id, tf, reason, n_rows, first_us, last_us)
        ON CONFLICT (id, tf, dataset, reason) DO UPDATE SET n_rows = excluded.n_rows,
            first_ts = excluded.first_ts, last_ts = excluded.last_ts, updated_at = now()
        WHERE (q.n_rows, q.first_ts, q.last_ts)
              IS DISTINCT FROM (excluded.n_rows, excluded.first_ts, excluded.last_ts)
        """,
        dataset,
        *keys,
        [row[3].n_rows for row in rows],
        [row[3].first_ts for row in rows],
        [row[3].last_ts for row in rows],
    )


def quality_by_reason(
    connection: Connection, dataset: str, *, symbols: Sequence[str], timeframes: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows skipped or flagged, by reason, most frequent first.

    Source rows are recorded for each timeframe made from them; here they count once.
    """
    rows = connection.execute(
        text("""
            SELECT reason, sum(n_rows)::bigint AS rows, count(*) AS assets
            FROM (
                SELECT q.id, q.reason, max(q.n_rows) AS n_rows
                FROM data_quality q JOIN dim_assets a USING (id)
                WHERE q.dataset = :dataset AND a.symbol = ANY(:symbols)
                      AND q.tf = ANY(:timeframes)
                GROUP BY q.id, q.reason
            ) AS by_asset
            GROUP BY reason ORDER BY rows DESC, reason
        """),
        {"dataset": dataset, "symbols": list(symbols), "timeframes": list(timeframes)},
    )
    return [dict(row) for row in rows.mappings()]


def not_fetched_since(
    connection: Connection, *, symbols: Sequence[str], timeframes: Sequence[str]
) -> dict[str, datetime]:
    """Close of the first bar not fetched because the exchange was unreachable, by symbol."""
    rows = connection.execute(
        text("""
            SELECT a.symbol, min(q.first_ts)
            FROM data_quality q JOIN dim_assets a USING (id)
            WHERE q.dataset = 'bars' AND q.reason = 'not_fetched'
                  AND a.symbol = ANY(:symbols) AND q.tf = ANY(:timeframes)
            GROUP BY a.symbol ORDER BY a.symbol
        """),
        {"symbols": list(symbols), "timeframes": list(timeframes)},
    )
    return {symbol: since.astimezone(UTC) for symbol, since in rows}


def stored_partitions(connection: Connection, dataset: str) -> list[Partition]:
    """The partitions for which a dataset has rows."""
    rows = connection.execute(
        text("""
            SELECT a.symbol, v.tf FROM dataset_versions v JOIN dim_assets a USING (id)
            WHERE v.dataset = :dataset AND v.n_rows > 0 ORDER BY 1, 2
        """),
        {"dataset": dataset},
    )
    return [Partition(*row) for row in rows]
