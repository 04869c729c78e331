"""How old the newest bar of each partition is, compared with its timeframe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text

from backtest_pipeline.market.asset_identity import Trait
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe
from backtest_pipeline.pipeline.workspace import Workspace, retried


@dataclass(frozen=True)
class Freshness:
    """Partitions whose newest bar is older than it should be.

    Attributes:
        partitions: number of partitions that were looked at.
        late: age of the newest bar in days, by partition.
        delisted: assets whose bars ended, which are not counted.
    """

    partitions: int
    late: Mapping[Partition, float]
    delisted: tuple[str, ...]


@retried
def freshness(workspace: Workspace, at_us: int) -> Freshness:
    """Which partitions lack the last two bars that have closed; the last alone may be on its way.

    The synthetic market is not looked at, which ends where it ends, nor are delisted assets.

    Args:
        workspace: the open store.
        at_us: the time, in microseconds since 1970 UTC.
    """
    with workspace.database.begin() as connection:
        rows = connection.execute(
            text("""
                SELECT a.symbol, v.tf, (extract(epoch FROM v.last_ts) * 1000000)::bigint,
                       EXISTS (SELECT FROM asset_identity i
                               WHERE i.id = v.id AND i.trait = :delisted)
                FROM dataset_versions v JOIN dim_assets a USING (id)
                WHERE v.dataset = :dataset AND v.n_rows > 0 AND NOT a.is_synthetic
                ORDER BY a.symbol, v.tf
            """),
            {"dataset": workspace.price_dataset, "delisted": Trait.ENDED.value},
        ).all()
    ended = {symbol for symbol, _, _, is_delisted in rows if is_delisted}
    of_live = [(Partition(s, tf), last + CLOSE_STAMP_US) for s, tf, last, d in rows if not d]
    needed = {tf: timeframe(tf).last_closes(at_us)[1] for tf in {p.timeframe for p, _ in of_live}}
    late = {p: (at_us - end) / DAY_US for p, end in of_live if end < needed[p.timeframe]}
    return Freshness(len(of_live), late, tuple(sorted(ended)))
