"""IO managers: they hand lazy batches to the stages that store them, and load what is stored.

What an asset returns is a recipe, not data; computing, writing Postgres and Parquet, and leaving
out what is already stored happen batch by batch when the IO manager runs the stage.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from backtest_pipeline.defs import metadata
from backtest_pipeline.defs.partitions import partitions_of
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import LOADERS, StageRun
from backtest_pipeline.pipeline.monitoring.counters import count_stage
from backtest_pipeline.pipeline.stage import Batches, StageReport, run_stage


class StageIOManager(dg.ConfigurableIOManager):
    """Runs stages into the store, and loads stored datasets as lazy batches."""

    store: dg.ResourceDependency[WorkspaceResource]

    def handle_output(  # pyright: ignore[reportIncompatibleMethodOverride] - may be a generator
        self, context: dg.OutputContext, obj: StageRun
    ) -> Iterator[Any]:
        workspace = self.store.workspace
        report = run_stage(
            obj.batches,
            obj.stage,
            workers=workspace.workers,
            rebuild=obj.rebuild,
            progress=workspace.progress,
            retrying=workspace.database.retrying,
        )
        count_stage(workspace, report)
        summary = obj.summary(workspace, obj.batches.partitions)
        found = metadata.of_stage(report, summary)
        if report.failed:
            yield from _report_good_partitions(context, report)
            raise dg.Failure(
                f"{len(report.failed)} of {len(report.outcomes)} partitions failed, the others "
                f"are stored; first: {report.failed[0].partition}: {report.failed[0].detail}",
                metadata=found,
                allow_retries=False,
            )
        if len(report.outcomes) == 1:
            context.add_output_metadata(found)
        else:
            # On the output the same tables would be written once for each partition.
            context.log_event(dg.AssetObservation(context.asset_key, metadata=found))
            about = "tables and chart of the whole run: see the observation beside this event"
            context.add_output_metadata({**metadata.counts_of(report), "report": about})

    def load_input(self, context: dg.InputContext) -> Batches[Any]:
        asset = context.asset_key.path[-1]
        return LOADERS[asset](self.store.workspace, partitions_of(context.asset_partition_keys))


def _report_good_partitions(context: dg.OutputContext, report: StageReport) -> Iterator[Any]:
    """Materializations of what is stored, in a step that is about to fail.

    Dagster takes logged events over when a generator yields; what is yielded itself is dropped
    by the failure that follows.
    """
    failed = {outcome.partition for outcome in report.failed}
    good = [outcome for outcome in report.outcomes if outcome.partition not in failed]
    for outcome in good:
        context.log_event(
            dg.AssetMaterialization(
                context.asset_key,
                partition=str(outcome.partition),
                metadata={"status": outcome.status.value, "rows": outcome.rows},
            )
        )
    for outcome in good[:1]:
        yield dg.AssetMaterialization(context.asset_key, partition=str(outcome.partition))
