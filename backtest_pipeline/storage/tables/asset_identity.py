"""The table `asset_identity`: remarks on which coin an asset really is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from backtest_pipeline.market.asset_identity import Remark


def replace_remarks(
    connection: Connection, ids: Mapping[str, int], remarks: Sequence[Remark]
) -> None:
    """Replace all stored remarks on these assets.

    Unchanged rows are not written.

    Args:
        connection: connection of the transaction.
        ids: ids of the checked assets, by symbol.
        remarks: remarks; those on other assets are ignored.
    """
    rows = sorted((ids[r.asset], r) for r in remarks if r.asset in ids)
    connection.execute(
        text("""
            WITH given AS (
                SELECT id, tf, trait, timestamptz 'epoch' + first_us * interval '1 microsecond'
                           AS first_ts,
                       timestamptz 'epoch' + last_us * interval '1 microsecond' AS last_ts,
                       detail, related
                FROM unnest(CAST(:ids AS int[]), CAST(:timeframes AS text[]),
                            CAST(:traits AS text[]), CAST(:first AS bigint[]),
                            CAST(:last AS bigint[]), CAST(:details AS text[]),
                            CAST(:related AS text[]))
                     AS u (id, tf, trait, first_us, last_us, detail, related)
            ), -- Batches of other timeframes write the same rows at the same time.
            alone AS MATERIALIZED (
                SELECT pg_advisory_xact_lock(hashtext('asset_identity'))
                WHERE EXISTS (SELECT 1 FROM given) OR EXISTS (
                    SELECT 1 FROM asset_identity WHERE id = ANY (CAST(:looked_at AS int[])))
            ), gone AS (
                DELETE FROM asset_identity a
                WHERE id = ANY (CAST(:looked_at AS int[])) AND (SELECT count(*) FROM alone) >= 0
                  AND NOT EXISTS (SELECT 1 FROM given g
                                  WHERE (g.id, g.tf, g.trait) = (a.id, a.tf, a.trait))
            )
            INSERT INTO asset_identity AS a (id, tf, trait, first_ts, last_ts, detail, related)
            SELECT * FROM given WHERE (SELECT count(*) FROM alone) >= 0
            ON CONFLICT (id, tf, trait) DO UPDATE SET first_ts = excluded.first_ts,
                last_ts = excluded.last_ts, detail = excluded.detail,
                related = excluded.related, updated_at = now()
            WHERE (a.first_ts, a.last_ts, a.detail, a.related)
                  IS DISTINCT FROM (excluded.first_ts, excluded.last_ts, excluded.detail,
                                    excluded.related)
        """),
        {
            "looked_at": list(ids.values()),
            "ids": [id_ for id_, _ in rows],
            "timeframes": [r.timeframe for _, r in rows],
            "traits": [r.trait.value for _, r in rows],
            "first": [r.first_ts for _, r in rows],
            "last": [r.last_ts for _, r in rows],
            "details": [r.detail for _, r in rows],
            "related": [r.related for _, r in rows],
        },
    )


def remarks_of(connection: Connection, symbols: Sequence[str]) -> list[dict[str, Any]]:
    """All stored remarks on these assets, one row (asset, trait, detail) per trait."""
    rows = connection.execute(
        text("""
            SELECT DISTINCT ON (a.symbol, i.trait) a.symbol AS asset, i.trait, i.detail
            FROM asset_identity i JOIN dim_assets a USING (id) JOIN dim_timeframe t USING (tf)
            WHERE a.symbol = ANY(:symbols) ORDER BY a.symbol, i.trait, t.tf_days_nominal DESC
        """),
        {"symbols": list(symbols)},
    )
    return [dict(row) for row in rows.mappings()]
