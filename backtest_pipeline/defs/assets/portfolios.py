"""Portfolios per timeframe."""

import dagster as dg
from pydantic import Field

from backtest_pipeline.defs.metadata import of_summary, table_schema
from backtest_pipeline.defs.partitions import require_sound_run, timeframes_partitions
from backtest_pipeline.defs.resources import SimulationResource, WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig
from backtest_pipeline.pipeline.stages.rollups import roll_up, rollups_summary
from backtest_pipeline.pipeline.versions import PORTFOLIO_CODE
from backtest_pipeline.research.portfolio.portfolio import SCHEDULES
from backtest_pipeline.research.portfolio.weights import SCHEMES

_COLUMNS = table_schema(
    ("run_id", "uuid", "hash of all inputs"),
    ("tf", "text", "timeframe"),
    ("signal_name", "text", "strategy with its parameters, or `all` strategies together"),
    ("scheme", "text", "weighting scheme"),
    ("n_members", "integer", "runs, or strategies' portfolios, in the portfolio"),
    ("n_rebalances", "integer", "number of rebalances"),
    ("left_out", "jsonb", "members that got no weight at a rebalance, counted by reason"),
    ("metrics", "jsonb", "metrics of the portfolio's equity, and of its diversification"),
    ("undefined", "jsonb", "why a metric is NULL"),
)


class Rollup(dg.Config):
    """How portfolios are built; see docs/portfolios.md."""

    schemes: list[str] = Field(default=list(SCHEMES), description=", ".join(SCHEMES))
    rebalance: str = Field(default="monthly", description=", ".join(SCHEDULES))
    lookback: int = Field(default=90, description="look-back of the weighting schemes, in bars")
    max_weight: float = Field(default=1.0, description="maximum weight of one member, fraction")


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
    code_version=PORTFOLIO_CODE,
    metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "portfolio_runs"},
    description="For each timeframe and weighting scheme, one portfolio of each strategy over all "
    "assets and one of all strategies, rebalanced on a schedule with costs.",
)
def portfolio_rollups(
    context: dg.AssetExecutionContext,
    config: Rollup,
    store: WorkspaceResource,
    simulation: SimulationResource,
) -> dg.MaterializeResult:
    require_sound_run(context.run.tags)
    chosen = simulation.config()
    rollup = RollupConfig(
        costs=chosen.costs,
        initial_cash=chosen.initial_cash,
        schemes=tuple(config.schemes),
        rebalance=config.rebalance,
        lookback=config.lookback,
        max_weight=config.max_weight,
        risk_free=chosen.risk_free,
    )
    timeframes = list(context.partition_keys)
    n_built = sum(roll_up(store.workspace, tf, rollup) for tf in timeframes)
    metadata = of_summary(rollups_summary(store.workspace, timeframes))
    return dg.MaterializeResult(metadata={"portfolios_formed": n_built, **metadata})
