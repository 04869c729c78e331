"""The asset `signals`: entries and exits of every active preset."""

import dagster as dg

from backtest_pipeline.defs.automation.automation_conditions import INPUT_CHANGED
from backtest_pipeline.defs.automation.selections import begin_step
from backtest_pipeline.defs.metadata import table_schema
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import Refresh, StageRun, renew_columns, stage_asset
from backtest_pipeline.pipeline.runs.summary import signals_summary
from backtest_pipeline.pipeline.stage import Batches
from backtest_pipeline.pipeline.stages.signals import SignalsStage
from backtest_pipeline.pipeline.stages.tradable_signals import stored_signals

_COLUMNS = table_schema(
    ("signal_id", "integer", "row of dim_signals"),
    ("id", "integer", "asset"),
    ("tf", "text", "timeframe"),
    ("ts", "timestamptz", "close of the signal's bar; the order fills at the next open"),
    ("direction", "text", "long or short"),
    ("action", "text", "entry or exit"),
    ("close", "double", "close price of the signal's bar"),
    ("feature_snapshot", "jsonb", "the full feature row of that bar"),
)


@stage_asset(
    load=stored_signals,
    automation_condition=INPUT_CHANGED,
    ins={"features": dg.AssetIn("cmc_features")},
    group_name="research",
    kinds={"postgres"},
    metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "signals"},
    description="Entry and exit signals of every active preset, each with the full feature row of "
    "its bar. "
    "Materialize after cmc_features; a partition counts the signals of each preset.",
)
def signals(
    context: dg.AssetExecutionContext,
    config: Refresh,
    store: WorkspaceResource,
    features: Batches,
) -> StageRun:
    begin_step(context)
    stage = SignalsStage(store.workspace)
    renew_columns(store.workspace, features.partitions, stage.signals, config)
    conditions = stage.computed(features, rebuild=config.full_rebuild)
    return StageRun(conditions, stage, signals_summary, config.full_rebuild)
