"""The asset `walk_forward`: walk-forwards of every strategy on the stored features."""

import dagster as dg

from backtest_pipeline.defs.automation.selections import begin_step
from backtest_pipeline.defs.metadata import table_schema
from backtest_pipeline.defs.resources import (
    SimulationResource,
    WalkForwardResource,
    WorkspaceResource,
)
from backtest_pipeline.defs.stage_assets import Refresh, StageRun, renew_columns, stage_asset
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.results import WalkForwardResult
from backtest_pipeline.pipeline.runs.summary import runs_figures, walk_forward_summary
from backtest_pipeline.pipeline.stage import Batches
from backtest_pipeline.pipeline.stages.walk_forward.walk_forward_stage import WalkForwardStage
from backtest_pipeline.research.validation.walk_forward import FOLD_METRICS

_COLUMNS = table_schema(
    ("run_id", "uuid", "stitched out-of-sample run, split walk_forward in backtest_runs"),
    ("fold", "integer", "number of the fold, from 0"),
    ("train_start", "timestamptz", "close of the first training bar"),
    ("train_end", "timestamptz", "close of the last training bar"),
    ("test_start", "timestamptz", "close of the first test bar"),
    ("test_end", "timestamptz", "close of the last test bar"),
    ("params", "jsonb", "parameters chosen in training"),
    ("score", "double", "training objective of the chosen parameters"),
    ("n_combinations", "integer", "combinations evaluated in training"),
    *((f"train_{name}", "double", "chosen parameters, in training") for name in FOLD_METRICS),
    *((f"test_{name}", "double", "chosen parameters, out of sample") for name in FOLD_METRICS),
)


@stage_asset(
    ins={"features": dg.AssetIn("cmc_features")},
    group_name="research",
    kinds={"postgres", "parquet"},
    metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "walk_forward_folds"},
    description="Walk-forward of every strategy: parameters chosen on each training window and "
    "traded on the bars after it; all folds, and the stitched out-of-sample run. "
    "Materialize before a preset is trusted; each verdict says why.",
)
def walk_forward(
    context: dg.AssetExecutionContext,
    config: Refresh,
    store: WorkspaceResource,
    simulation: SimulationResource,
    walk: WalkForwardResource,
    features: Batches,
) -> StageRun:
    begin_step(context)
    stage = WalkForwardStage(store.workspace, simulation.config(), walk.plan())
    renew_columns(store.workspace, features.partitions, stage.signals, config)
    return StageRun(
        features, stage, walk_forward_summary, config.full_rebuild, runs_figures(stage.name)
    )


def ad_hoc_walk_forward(result: WalkForwardResult) -> dg.AssetObservation:
    """The event of a walk-forward with options of its own, stored beside those of the asset.

    The partition is not materialized by it: that takes the walk-forwards of every strategy.
    """
    return dg.AssetObservation(
        "walk_forward",
        partition=str(Partition(result.symbol, result.timeframe)),
        metadata={
            "run_id": str(result.run_id),
            "strategy": result.strategy,
            "folds": result.n_folds,
            "verdict": result.verdict,
            **({"reason": result.reason} if result.reason else {}),
        },
    )
