"""The assets `bars` and `cmc_features`: market data by asset and timeframe."""

from collections.abc import Sequence

import dagster as dg

from backtest_pipeline.defs.automation.automation_conditions import INPUT_CHANGED
from backtest_pipeline.defs.automation.selections import begin_step
from backtest_pipeline.defs.metadata import table_schema
from backtest_pipeline.defs.partitions import partitions_of
from backtest_pipeline.defs.resources import SourceResource, WorkspaceResource
from backtest_pipeline.defs.stage_assets import (
    Refresh,
    StageRun,
    stage_asset,
    with_days,
)
from backtest_pipeline.market.features import FEATURE_COLUMNS, FEATURES
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.runs.summary import Summary, bars_summary, features_summary
from backtest_pipeline.pipeline.stage import Batches
from backtest_pipeline.pipeline.stages.bars import BarsStage, bar_batches
from backtest_pipeline.pipeline.stages.features import FeaturesStage, stored_bars, stored_features
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.versions import BARS_CODE, FEATURES_CODE
from backtest_pipeline.pipeline.workspace import Workspace

BARS = table_schema(
    ("asset", "string", "symbol"),
    ("ts", "timestamp", "close stamp, UTC"),
    *((name, "double", "") for name in ("open", "high", "low", "close", "volume")),
    ("gap_bars", "double", "source bars missing since the previous bar"),
)
_DEFINITIONS = {feature.name: feature.definition for feature in FEATURES}
CMC_FEATURES = table_schema(
    *((name, kind, _DEFINITIONS.get(name, "")) for name, kind in FEATURE_COLUMNS)
)


@stage_asset(
    load=stored_bars,
    group_name="market",
    kinds={"python", "parquet"},
    code_version=BARS_CODE,
    metadata={"dagster/column_schema": BARS},
    description="Validated, complete bars of one asset at one timeframe, resampled from the "
    "source, stored as content-addressed Parquet with their dataset version. "
    "Materialize for new assets and days; a partition says which source rows were skipped.",
)
def bars(
    context: dg.AssetExecutionContext,
    config: Refresh,
    store: WorkspaceResource,
    source: SourceResource,
) -> StageRun:
    partitions = with_days(store.workspace, partitions_of(begin_step(context)))
    assets = sorted({p.asset for p in partitions})
    reader = SourceReader(source.source(), assets, store.workspace)
    stage = BarsStage(store.workspace, reader)

    def summary(workspace: Workspace, stored: Sequence[Partition]) -> Summary:
        return bars_summary(workspace, stored, reader.unread)

    return StageRun(bar_batches(reader, partitions), stage, summary, config.full_rebuild)


@stage_asset(
    load=stored_features,
    ins={"stored": dg.AssetIn("bars")},
    automation_condition=INPUT_CHANGED,
    group_name="market",
    kinds={"postgres", "parquet"},
    code_version=FEATURES_CODE,
    metadata={"dagster/column_schema": CMC_FEATURES, "dagster/table_name": "cmc_features"},
    description="The 112 feature columns of each bar in `cmc_features`, and its EMAs in "
    "`cmc_ema_multi_tf_u`. "
    "Materialize after bars; docs/features.md defines each column.",
)
def cmc_features(
    context: dg.AssetExecutionContext,
    config: Refresh,
    store: WorkspaceResource,
    stored: Batches,
) -> StageRun:
    begin_step(context)
    wanted = stored.of(with_days(store.workspace, stored.partitions))
    return StageRun(wanted, FeaturesStage(store.workspace), features_summary, config.full_rebuild)
