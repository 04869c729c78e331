"""Portfolios per timeframe."""

import dagster as dg

from backtest_pipeline.defs.assets.columns import PORTFOLIOS
from backtest_pipeline.defs.assets.stages import OWNERS
from backtest_pipeline.defs.metadata import of_summary
from backtest_pipeline.defs.partitions import require_sound_run, timeframes_partitions
from backtest_pipeline.defs.resources import SimulationResource, WorkspaceResource
from backtest_pipeline.pipeline.rollups import RollupConfig, roll_up, rollups_summary, store_rollups
from backtest_pipeline.storage.provenance import code_version


@dg.asset(
    partitions_def=timeframes_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[
        dg.AssetDep(
            "backtests", partition_mapping=dg.MultiToSingleDimensionPartitionMapping("timeframe")
        )
    ],
    group_name="research",
    kinds={"postgres", "parquet"},
    owners=OWNERS,
    code_version=code_version("market", "strategies", "simulation", "research"),
    metadata={"dagster/column_schema": PORTFOLIOS, "dagster/table_name": "portfolio_runs"},
    description="Each strategy over all assets of a timeframe in one equal-weight portfolio, "
    "rebalanced monthly with costs.",
)
def portfolio_rollups(
    context: dg.AssetExecutionContext, store: WorkspaceResource, simulation: SimulationResource
) -> dg.MaterializeResult:
    require_sound_run(context.run.tags)
    chosen = simulation.config()
    config = RollupConfig(chosen.costs, chosen.initial_cash)
    rollups = [
        rollup for tf in context.partition_keys for rollup in roll_up(store.workspace, tf, config)
    ]
    stored = store_rollups(store.workspace, rollups, config)
    return dg.MaterializeResult(metadata=of_summary(rollups_summary(rollups, stored)))
