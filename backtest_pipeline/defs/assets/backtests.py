"""The asset `backtests`: the stored signals of every active preset, simulated."""

import dagster as dg

from backtest_pipeline.defs.automation.automation_conditions import INPUT_CHANGED
from backtest_pipeline.defs.automation.selections import begin_step
from backtest_pipeline.defs.metadata import table_schema
from backtest_pipeline.defs.resources import SimulationResource, WorkspaceResource
from backtest_pipeline.defs.stage_assets import Refresh, StageRun, stage_asset
from backtest_pipeline.pipeline.runs.summary import backtests_summary, runs_figures
from backtest_pipeline.pipeline.stage import Batches
from backtest_pipeline.pipeline.stages.backtests import BacktestsStage
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRICS

_COLUMNS = table_schema(
    ("run_id", "uuid", "hash of all inputs"),
    ("signal_name", "text", "strategy with its parameters"),
    ("symbol", "text", "asset"),
    ("tf", "text", "timeframe"),
    *((m.name, "double", f"{m.formula} ({m.unit})") for m in (*METRICS, *FAMILY_METRICS)),
)


@stage_asset(
    ins={"stored": dg.AssetIn("signals")},
    automation_condition=INPUT_CHANGED,
    group_name="research",
    kinds={"numba", "postgres", "parquet"},
    metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "backtest_runs"},
    description="Backtests of every active preset: runs, trades and metrics in Postgres, equity "
    "and monthly returns in Parquet. A signal fills at the next bar's open. "
    "Materialize after signals; a partition has its best run, and the link to its report.",
)
def backtests(
    context: dg.AssetExecutionContext,
    config: Refresh,
    store: WorkspaceResource,
    simulation: SimulationResource,
    stored: Batches,
) -> StageRun:
    begin_step(context)
    stage = BacktestsStage(store.workspace, simulation.config())
    return StageRun(stored, stage, backtests_summary, config.full_rebuild, runs_figures(stage.name))
