"""The check of how old the newest bar of each partition is."""

import time

import dagster as dg

from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.pipeline.audits.freshness import freshness

_MOST_LATE = 100


def freshness_check(asset: str) -> dg.AssetChecksDefinition:
    """Whether the newest bar of each partition is as new as its timeframe makes it."""

    @dg.asset_check(
        asset=asset,
        name="freshness",
        description="No partition lacks the last two bars that have closed, except those of "
        "delisted assets and of the synthetic market. Dagster's own freshness policy sees the "
        "newest event of an asset only, of whatever partition.",
    )
    def freshness_of_partitions(store: WorkspaceResource) -> dg.AssetCheckResult:
        found = freshness(store.workspace, time.time_ns() // 1000)
        oldest = sorted(found.late.items(), key=lambda late: -late[1])
        return dg.AssetCheckResult(
            passed=not found.late,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "partitions": found.partitions,
                "late": len(found.late),
                "days_old": {str(p): round(days, 2) for p, days in oldest[:_MOST_LATE]},
                "delisted": list(found.delisted),
            },
            description=f"{len(found.late)} of {found.partitions} partitions are late"
            if found.late
            else "every partition has its newest bars",
        )

    return freshness_of_partitions


bars_freshness = freshness_check("bars")
