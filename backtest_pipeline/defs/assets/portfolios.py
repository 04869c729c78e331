"""Portfolios per timeframe."""

import dagster as dg
from pydantic import Field

from backtest_pipeline.defs.metadata import of_summary, table_schema
from backtest_pipeline.defs.partitions import require_sound_run, timeframes_partitions
from backtest_pipeline.defs.resources import SimulationResource, WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.defs.stored_events import PartitionReports, StoredRows
from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig
from backtest_pipeline.pipeline.stages.rollups import (
    roll_up_each,
    rollups_summary,
    stored_portfolio_ids,
)
from backtest_pipeline.pipeline.versions import PORTFOLIO_CODE
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.portfolio.portfolio import SCHEDULES
from backtest_pipeline.research.portfolio.weights import SCHEMES
from backtest_pipeline.storage.provenance import combined

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
    io_manager_key="stages",
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
    "assets and one of all strategies, rebalanced on a schedule with costs. "
    "Materialize a timeframe after its backtests; the tables compare the schemes.",
)
def portfolio_rollups(
    context: dg.AssetExecutionContext,
    config: Rollup,
    store: WorkspaceResource,
    simulation: SimulationResource,
) -> None:
    require_sound_run(context)
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
    reports = PartitionReports(context)
    known = context.instance.get_dynamic_partitions("timeframe")
    wanted = reports.left(sorted(context.partition_keys, key=known.index))
    for tf, built in roll_up_each(store.workspace, wanted, rollup):
        reports.add(tf, lambda tf=tf, built=built: _stored(store.workspace, tf, built))
    reports.end()


def _stored(workspace: Workspace, tf: str, built: int | BacktestError) -> StoredRows:
    """What is stored of a timeframe's portfolios, with the tables and chart of its summary."""
    if isinstance(built, BacktestError):
        raise built
    ids = stored_portfolio_ids(workspace, tf)
    about = {"portfolios_formed": built, **of_summary(rollups_summary(workspace, [tf]))}
    if not ids:
        about["why"] = f"there are no current runs at {tf}; refresh backtests first"
    return StoredRows(tf, combined(*ids), len(ids), about)
