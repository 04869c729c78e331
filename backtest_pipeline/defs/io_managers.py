"""The IO manager of the stage assets: it runs stages into the store, and loads stored datasets.

An asset returns a recipe, not data. When the IO manager runs the stage, it computes and writes
Postgres and Parquet batch by batch, and skips what is already stored.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg

from backtest_pipeline.defs import metadata
from backtest_pipeline.defs.partitions import partitions_of
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import LOADERS, StageRun
from backtest_pipeline.pipeline.monitoring.counters import count_stage
from backtest_pipeline.pipeline.stage import Batches, StageReport, run_stage
from backtest_pipeline.storage.postgres.statistics import analyze_keys


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
            analyze=partial(analyze_keys, workspace.database),
        )
        count_stage(workspace, report)
        summary = obj.summary(workspace, obj.batches.partitions)
        stage_metadata = metadata.of_stage(report, summary)
        if report.failed:
            yield from _report_good_partitions(context, report)
            raise dg.Failure(
                f"{len(report.failed)} of {len(report.outcomes)} partitions failed and the others "
                f"are stored; first failure: {report.failed[0].partition}: "
                f"{report.failed[0].detail}",
                metadata=stage_metadata,
                allow_retries=False,
            )
        if len(report.outcomes) == 1:
            context.add_output_metadata(stage_metadata)
        else:
            # As output metadata, the same tables would be written once per partition.
            context.log_event(dg.AssetObservation(context.asset_key, metadata=stage_metadata))
            about = "for tables and chart of the whole run, see the observation next to this event"
            context.add_output_metadata({**metadata.counts_of(report), "report": about})

    def load_input(self, context: dg.InputContext) -> Batches[Any]:
        asset = context.asset_key.path[-1]
        return LOADERS[asset](self.store.workspace, partitions_of(context.asset_partition_keys))


def _report_good_partitions(context: dg.OutputContext, report: StageReport) -> Iterator[Any]:
    """Record materializations of the stored partitions, in a step that is about to fail.

    Dagster keeps the logged events once the generator yields; the event yielded last is itself
    dropped by the failure that follows.
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
