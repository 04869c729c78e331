"""The chain per asset and timeframe: bars, features, signals, backtests."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from backtest_pipeline.defs.assets.table_schemas import (
    BACKTESTS,
    BARS,
    CMC_FEATURES,
    FEATURE_SNAPSHOTS,
    SIGNALS,
    WALK_FORWARD,
)
from backtest_pipeline.defs.io_managers import StageRun
from backtest_pipeline.defs.partitions import (
    by_asset_and_timeframe,
    partitions_of,
    require_sound_run,
)
from backtest_pipeline.defs.resources import (
    SimulationResource,
    SourceResource,
    WalkForwardResource,
    WorkspaceResource,
)
from backtest_pipeline.pipeline.stage import Batches
from backtest_pipeline.pipeline.stages.backtests import BacktestsStage
from backtest_pipeline.pipeline.stages.bars import BarsStage, SourceReader, bar_batches
from backtest_pipeline.pipeline.stages.external_features import (
    ExternalFeaturesStage,
    ExternalReader,
    external_features,
)
from backtest_pipeline.pipeline.stages.features import FeaturesStage
from backtest_pipeline.pipeline.stages.signals import SignalsStage, signals_of
from backtest_pipeline.pipeline.stages.walk_forward import WalkForwardStage
from backtest_pipeline.pipeline.versions import (
    BARS_CODE,
    EXTERNAL_FEATURES_CODE,
    FEATURES_CODE,
    all_runs_code,
    all_signals_code,
    all_walk_forwards_code,
)

OWNERS = ["team:quant-research"]


class Refresh(dg.Config):
    """Options of a refresh."""

    full_rebuild: bool = False
    """Recompute every partition, even where neither inputs nor code have changed."""


def _stage_asset(**specific: Any) -> Callable[[Callable[..., StageRun]], dg.AssetsDefinition]:
    """A Dagster asset partitioned by asset and timeframe, stored by a stage, one run per range."""
    return dg.asset(
        partitions_def=by_asset_and_timeframe,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="stages",
        owners=OWNERS,
        **specific,
    )


@_stage_asset(
    group_name="market",
    kinds={"python", "parquet"},
    code_version=BARS_CODE,
    metadata={"dagster/column_schema": BARS},
    description="Validated, complete bars of one asset at one timeframe, resampled from the "
    "source, stored as content-addressed Parquet with their dataset version.",
)
def bars(
    context: dg.AssetExecutionContext,
    config: Refresh,
    store: WorkspaceResource,
    source: SourceResource,
) -> StageRun:
    require_sound_run(context.run.tags)
    partitions = partitions_of(context.partition_keys)
    assets = sorted({p.asset for p in partitions})
    reader = SourceReader(source.source(), assets, store.workspace)
    stage = BarsStage(store.workspace, reader)
    return StageRun(bar_batches(reader, partitions), stage, config.full_rebuild)


@_stage_asset(
    ins={"stored": dg.AssetIn("bars")},
    group_name="market",
    kinds={"postgres", "parquet"},
    code_version=FEATURES_CODE,
    metadata={"dagster/column_schema": CMC_FEATURES, "dagster/table_name": "cmc_features"},
    description="The 112 feature columns of each bar in `cmc_features`, and its EMAs in "
    "`cmc_ema_multi_tf_u`.",
)
def cmc_features(
    context: dg.AssetExecutionContext,
    config: Refresh,
    store: WorkspaceResource,
    stored: Batches,
) -> StageRun:
    require_sound_run(context.run.tags)
    return StageRun(stored, FeaturesStage(store.workspace), config.full_rebuild)


@_stage_asset(
    deps=["cmc_features"],
    group_name="market",
    kinds={"python", "parquet"},
    code_version=EXTERNAL_FEATURES_CODE,
    metadata={"dagster/column_schema": FEATURE_SNAPSHOTS},
    description="The columns of the external feature table that strategies and the simulation "
    "read, as content-addressed Parquet with their dataset version; invalid rows are left out and "
    "counted.",
)
def feature_snapshots(
    context: dg.AssetExecutionContext, config: Refresh, store: WorkspaceResource
) -> StageRun:
    require_sound_run(context.run.tags)
    reader = ExternalReader(store.workspace)
    taken = external_features(reader, partitions_of(context.partition_keys))
    return StageRun(taken, ExternalFeaturesStage(store.workspace, reader), config.full_rebuild)


@_stage_asset(
    ins={"features": dg.AssetIn("cmc_features")},
    group_name="research",
    kinds={"postgres"},
    code_version=all_signals_code(),
    metadata={"dagster/column_schema": SIGNALS, "dagster/table_name": "signals"},
    description="Entry and exit signals of every active preset, each with the full feature row of "
    "its bar.",
)
def signals(
    context: dg.AssetExecutionContext,
    config: Refresh,
    store: WorkspaceResource,
    features: Batches,
) -> StageRun:
    require_sound_run(context.run.tags)
    stage = SignalsStage(store.workspace)
    return StageRun(signals_of(features, stage.signals), stage, config.full_rebuild)


@_stage_asset(
    ins={"stored": dg.AssetIn("signals")},
    group_name="research",
    kinds={"numba", "postgres", "parquet"},
    code_version=all_runs_code(),
    metadata={"dagster/column_schema": BACKTESTS, "dagster/table_name": "backtest_runs"},
    description="Backtests of every active preset: runs, trades and metrics in Postgres, equity "
    "and monthly returns in Parquet. A signal fills at the next bar's open.",
)
def backtests(
    context: dg.AssetExecutionContext,
    config: Refresh,
    store: WorkspaceResource,
    simulation: SimulationResource,
    stored: Batches,
) -> StageRun:
    require_sound_run(context.run.tags)
    stage = BacktestsStage(store.workspace, simulation.config())
    return StageRun(stored, stage, config.full_rebuild)


@_stage_asset(
    ins={"features": dg.AssetIn("cmc_features")},
    group_name="research",
    kinds={"postgres", "parquet"},
    code_version=all_walk_forwards_code(),
    metadata={"dagster/column_schema": WALK_FORWARD, "dagster/table_name": "walk_forward_folds"},
    description="Walk-forward of every strategy: parameters chosen on each training window and "
    "traded on the bars after it; all folds, and the stitched out-of-sample run.",
)
def walk_forward(
    context: dg.AssetExecutionContext,
    config: Refresh,
    store: WorkspaceResource,
    simulation: SimulationResource,
    walk: WalkForwardResource,
    features: Batches,
) -> StageRun:
    require_sound_run(context.run.tags)
    stage = WalkForwardStage(store.workspace, simulation.config(), walk.plan())
    return StageRun(features, stage, config.full_rebuild)
