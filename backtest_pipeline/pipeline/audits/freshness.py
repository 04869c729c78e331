"""How old the newest bar of each partition is, compared with its timeframe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backtest_pipeline.market.asset_identity import Trait
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import CLOSE_STAMP_US, DAY_US, timeframe
from backtest_pipeline.pipeline.workspace import Workspace, retried
from backtest_pipeline.storage.source_states import newest_bars


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
        rows = newest_bars(connection, workspace.price_dataset, Trait.ENDED)
    ended = {partition.asset for partition, _, is_delisted in rows if is_delisted}
    of_live = [
        (partition, last + CLOSE_STAMP_US) for partition, last, is_over in rows if not is_over
    ]
    needed = {tf: timeframe(tf).last_closes(at_us)[1] for tf in {p.timeframe for p, _ in of_live}}
    late = {p: (at_us - end) / DAY_US for p, end in of_live if end < needed[p.timeframe]}
    return Freshness(len(of_live), late, tuple(sorted(ended)))
