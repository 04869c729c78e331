"""The IO manager of this project's assets: it runs stages into the store, and loads what is stored.

A stage asset returns a recipe, not data. When the IO manager runs the stage, it computes and writes
Postgres and Parquet batch by batch, skips what is already stored, and reports each batch to Dagster
as it is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
from pydantic import Field

from backtest_pipeline.defs import metadata, stored_events
from backtest_pipeline.defs.automation.selections import SelectedPart, selected_keys
from backtest_pipeline.defs.event_log.reported_partitions import ReportedPartitions
from backtest_pipeline.defs.partitions import partitions_of
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.stage_assets import LOADERS, StageRun
from backtest_pipeline.pipeline.monitoring.counters import count_stage
from backtest_pipeline.pipeline.pools.staged_batches import run_stage
from backtest_pipeline.pipeline.stage import Batches, Outcome, unheard
from backtest_pipeline.pipeline.stored_frames import read_frame
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.postgres.statistics import analyze_keys


class StageIOManager(dg.ConfigurableIOManager):
    """Runs stages into the store, and loads what is stored.

    An asset that reads one of these gets a pandas frame, or an Arrow table where its argument is
    annotated as `pyarrow.Table`; the stage assets of this project read lazy batches.
    """

    store: dg.ResourceDependency[WorkspaceResource]
    parts: list[SelectedPart] = Field(
        default=[],
        description="parts of the run's range, to compute these alone; where any is given, the "
        f"run needs the tag {stored_events.DEFERRED}=true",
    )

    def handle_output(self, context: dg.OutputContext, obj: StageRun) -> None:
        """Run the stage.

        Partitions that failed earlier in the run are left out. Those that fail here are passed on,
        and the last step that could still store something fails with all their names and reasons.
        """
        workspace, step = self.store.workspace, context.step_context
        instance = step.instance
        tags = stored_events.provenance(instance, stored_events.lineage_of(step))
        failed_before = stored_events.failed_so_far(instance, step.run_id)
        partitions = [p for p in obj.batches.partitions if str(p) not in failed_before]
        # The partition that a run is asked for alone is reported at the end, with the tables and
        # chart of the stage; the stored daily bars that mark it may be computed with it.
        asked = selected_keys(step.dagster_run, context.asset_partition_keys)
        alone = asked[0] if len(asked) == 1 else None
        # Of what the user has rebuilt, each partition's page shows the run.
        keys = [] if obj.rebuild else [str(p) for p in partitions if str(p) != alone]
        known = ReportedPartitions(instance, context.asset_key, step.dagster_run, tags, keys)
        events = _StageEvents(context, workspace, obj, tags, known, alone, {})
        report = run_stage(
            obj.batches.of(partitions),
            obj.stage,
            pool=workspace.pool,
            rebuild=obj.rebuild,
            progress=workspace.progress,
            retrying=workspace.database.retrying,
            analyze=partial(analyze_keys, workspace.database),
            listener=events.report if alone is None else unheard,
        )
        count_stage(workspace, report)
        about = metadata.of_stage(report, obj.summary(workspace, partitions))
        if alone is not None:
            events.report(report.outcomes, about)
        stored_events.observe(step, about, events.failed)
        failed = failed_before | events.failed
        if failed and (stored_events.is_last(step) or not events.n_stored):
            raise stored_events.failure(failed, events.n_stored)

    def load_input(self, context: dg.InputContext) -> Batches[Any] | pd.DataFrame | pa.Table:
        asset, kind = context.asset_key.path[-1], context.dagster_type.typing_type
        keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else None
        if kind is Batches:
            chosen = selected_keys(context.step_context.dagster_run, keys or ())
            return LOADERS[asset](self.store.workspace, partitions_of(chosen))
        frame = read_frame(self.store.workspace, asset, keys)
        return pa.Table.from_pandas(frame) if kind is pa.Table else frame


@dataclass
class _StageEvents:
    """What was reported to Dagster of a stage's partitions, as they were stored.

    Attributes:
        context: of the asset's output.
        workspace: the store.
        run: what is run.
        tags: what the partitions are made from.
        known: what was reported before the step began.
        alone: the key of the partition that the run is asked for, where it is a single one.
        failed: why partitions failed, by key.
        n_stored: how many are stored.
    """

    context: dg.OutputContext
    workspace: Workspace
    run: StageRun
    tags: Mapping[str, str]
    known: ReportedPartitions
    alone: str | None
    failed: dict[str, str]
    n_stored: int = 0

    def report(self, outcomes: Sequence[Outcome], about: Mapping[str, Any] | None = None) -> None:
        """Report what is stored and was not reported yet, and keep why others failed.

        Args:
            outcomes: of the stage.
            about: the tables and chart of the stage, for the partition that is asked for alone.
        """
        asset = self.context.asset_key
        stored, lost = self.run.stored(self.workspace, outcomes)
        same = set(self.known.same({str(rows.partition): rows.version for rows in stored}))
        events = [
            stored_events.materialization(
                asset,
                replace(
                    rows, metadata=_shown(rows, about if rows.partition == self.alone else None)
                ),
                self.tags,
            )
            for rows in stored
            if rows.partition not in same
        ]
        stored_events.report(self.context.step_context, events)
        self.known.take_from_plan(sorted(same))
        self.n_stored += len(stored)
        reasons = {o.partition: o.detail for o in outcomes if not o.is_stored} | lost
        self.failed |= {str(p): f"{asset.path[-1]}: {why}" for p, why in reasons.items()}


def _shown(rows: stored_events.StoredRows, about: Mapping[str, Any] | None) -> dict[str, Any]:
    if about is None:
        return metadata.brief(rows.metadata)
    return metadata.in_order({**rows.metadata, **about})
