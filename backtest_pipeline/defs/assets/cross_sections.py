"""Cross-sections per timeframe."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from backtest_pipeline.defs.automation.automation_conditions import INPUT_CHANGED
from backtest_pipeline.defs.metadata import table_schema
from backtest_pipeline.defs.partitions import require_sound_run, timeframes_partitions
from backtest_pipeline.defs.resources import SimulationResource, WorkspaceResource
from backtest_pipeline.defs.stage_assets import OWNERS
from backtest_pipeline.defs.stored_events import PartitionReports, StoredRows
from backtest_pipeline.pipeline.result_rows import cross_section_result
from backtest_pipeline.pipeline.results import CrossSectionResult
from backtest_pipeline.pipeline.use_cases.cross_section import refresh_at
from backtest_pipeline.pipeline.versions import CROSS_SECTION_CODE
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.research.cross_section.information import FIGURES
from backtest_pipeline.simulation.config import SimulationConfig
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
    automation_condition=INPUT_CHANGED,
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
    reports = PartitionReports(context)
    known = context.instance.get_dynamic_partitions("timeframe")
    for tf in sorted(context.partition_keys, key=known.index):
        reports.add(tf, lambda tf=tf: _refreshed(store.workspace, tf, config.names, chosen))
    reports.end()


def _refreshed(
    workspace: Workspace, tf: str, names: Sequence[str], chosen: SimulationConfig
) -> StoredRows:
    found = refresh_at(workspace, tf, names, chosen)
    runs = [cross_section_result(workspace, run_id) for run_id in found.run_ids.values()]
    return _stored(tf, runs, found.n_new)


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
