"""Cross-sections per timeframe."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from backtest_pipeline.defs import stored_events
from backtest_pipeline.defs.metadata import table_schema
from backtest_pipeline.defs.partitions import require_sound_run, timeframes_partitions
from backtest_pipeline.defs.resources import SimulationResource, WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.defs.stored_events import StoredRows
from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.pipeline.result_rows import cross_section_result
from backtest_pipeline.pipeline.results import CrossSectionResult
from backtest_pipeline.pipeline.stage import of_the_environment
from backtest_pipeline.pipeline.use_cases.cross_section import refresh_at
from backtest_pipeline.pipeline.versions import CROSS_SECTION_CODE
from backtest_pipeline.research.cross_section.information import FIGURES
from backtest_pipeline.simulation.metrics.metrics import FAMILY_METRICS, METRICS
from backtest_pipeline.storage.provenance import combined

_COLUMNS = table_schema(
    ("run_id", "uuid", "hash of strategy, data, configuration and code"),
    ("signal_name", "text", "name of the cross-section"),
    ("symbols", "text[]", "the universe"),
    ("tf", "text", "timeframe"),
    *((metric.name, metric.unit, metric.formula) for metric in (*METRICS, *FAMILY_METRICS)),
    *((name, "double precision", "of docs/cross-section.md") for name in FIGURES),
)


class CrossSections(dg.Config):
    """Which cross-sections."""

    names: list[str] = Field(
        default=[], description="names in the folder of strategies; all where empty"
    )


@dg.asset(
    partitions_def=timeframes_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="stages",
    deps=[
        dg.AssetDep(
            "cmc_features", partition_mapping=dg.MultiToSingleDimensionPartitionMapping("timeframe")
        )
    ],
    group_name="research",
    kinds={"numba", "postgres", "parquet"},
    owners=OWNERS,
    code_version=CROSS_SECTION_CODE,
    metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "backtest_runs"},
    description="For each timeframe, one run of each strategy that ranks the universe, with its "
    "information coefficients, signals and weights by date.",
)
def cross_sections(
    context: dg.AssetExecutionContext,
    config: CrossSections,
    store: WorkspaceResource,
    simulation: SimulationResource,
) -> None:
    require_sound_run(context)
    chosen = simulation.config()
    step = context.get_step_execution_context()
    tags = stored_events.provenance(context.instance, stored_events.lineage_of(step))
    failed: dict[str, str] = {}
    timeframes = sorted(
        context.partition_keys, key=context.instance.get_dynamic_partitions("timeframe").index
    )
    for tf in timeframes:
        try:
            found = refresh_at(store.workspace, tf, config.names, chosen)
        except BacktestError as error:
            if of_the_environment(error):
                raise
            failed[tf] = f"cross_sections: {error}"
            continue
        runs = [cross_section_result(store.workspace, run_id) for run_id in found.run_ids.values()]
        rows = _stored(tf, runs, found.n_new)
        stored_events.report(step, [stored_events.materialization(context.asset_key, rows, tags)])
    if failed:
        raise stored_events.failure(failed, len(timeframes) - len(failed))


def _stored(tf: str, runs: Sequence[CrossSectionResult], n_new: int) -> StoredRows:
    """What is stored of a timeframe's cross-sections, with their figures."""
    about: dict[str, object] = {"cross_sections_computed": n_new}
    for run in runs:
        about |= {
            f"{run.strategy}: {name}": value
            for name, value in (
                ("mean_ic", run.information["mean_ic"]),
                ("icir", run.information["icir"]),
                ("sharpe", run.metrics["sharpe"]),
                ("delisted", run.delisted),
            )
            if value is not None
        }
    if not runs:
        about["why"] = "the folder of strategies has no cross-section"
    return StoredRows(tf, combined(*sorted(r.result_fingerprint for r in runs)), len(runs), about)
