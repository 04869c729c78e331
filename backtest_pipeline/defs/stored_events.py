"""Reports to Dagster what is stored: one event per partition, with the version of the stored rows.

Dagster gives every partition of a range run one and the same data version, and marks all of them
as materialized. Here a step reports each partition itself, and only those that are stored.

The only module that uses private parts of Dagster for that, because no public API does this:

- the run tag `dagster/defer_asset_events`, with which Dagster emits no materializations itself, and
  plans none where a run is created with it;
- `DagsterEvent.build_asset_materialization_planned_event`, `AssetMaterializationPlannedData` and
  `DefaultPartitionsSubset`, to plan what such a run computes;
- `DagsterEvent.asset_materialization` and `asset_observation` with `DagsterEventBatchMetadata`,
  which write the events at once and in batches;
- the tags of an event that staleness follows from, and the asset layer of a step's job.

For the reasons, and when this can be removed, see docs/adr/0001-private-dagster.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast
from uuid import uuid4

import dagster as dg
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventBatchMetadata,
)
from dagster._core.execution.context.system import StepExecutionContext

from backtest_pipeline.market.errors import BacktestError
from backtest_pipeline.pipeline.stage import of_the_environment

DEFERRED = "dagster/defer_asset_events"
# The storage id before all events. Dagster compares with what came up to the id, and takes 0 and
# NULL for "no comparison".
_BEFORE_ALL = "-2"
_BY_POINTER = "-"
_FAILED = "failed"
_SHOWN = 5


class Lineage(NamedTuple):
    """What an asset's staleness follows from: its code version and the assets that it reads."""

    code_version: str | None
    inputs: tuple[dg.AssetKey, ...]


@dataclass(frozen=True)
class StoredRows:
    """What is stored of an asset, or of one of its partitions.

    Attributes:
        partition: its key; None for an asset without partitions.
        version: hash of what the rows are, the asset's data version.
        rows: number of rows.
        metadata: further figures.
    """

    partition: str | None
    version: str
    rows: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


def lineage_of(step: StepExecutionContext) -> Lineage:
    """The lineage of the asset that a step computes."""
    node = step.job_def.asset_layer.asset_graph.get(_asset_of(step))
    return Lineage(node.code_version, tuple(sorted(node.parent_keys)))


def lineages_of(declared: dg.Definitions) -> dict[str, Lineage]:
    """The lineage of each asset by name, for jobs that compute several of them in one step."""
    specs = [
        spec
        for asset in declared.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.specs
    ]
    return {
        spec.key.to_user_string(): Lineage(
            spec.code_version, tuple(sorted({dep.asset_key for dep in spec.deps}))
        )
        for spec in specs
    }


def is_last(step: StepExecutionContext) -> bool:
    """Whether no other asset of the run reads the one that a step computes."""
    layer = step.job_def.asset_layer
    return layer.asset_graph.get(_asset_of(step)).child_keys.isdisjoint(layer.selected_asset_keys)


def is_first(step: StepExecutionContext) -> bool:
    """Whether this is the first step of a run, in the order in which steps are executed."""
    layer = step.job_def.asset_layer
    chosen = layer.selected_asset_keys
    roots = [k for k in chosen if layer.asset_graph.get(k).parent_keys.isdisjoint(chosen)]
    return _asset_of(step) == min(roots)


def is_deferred(run: dg.DagsterRun) -> bool:
    """Whether a run was created so that Dagster plans and reports no materializations of it."""
    return run.tags.get(DEFERRED) == "true"


def plan(step: StepExecutionContext, keys: Sequence[str]) -> None:
    """Report that the run is about to compute these partitions of each of its assets.

    Dagster does so when it creates a run, except for one that `is_deferred`.
    """
    run, batch = step.dagster_run, str(uuid4())
    log = step.instance.event_log_storage
    many = log.supports_partition_subset_in_asset_materialization_planned_events
    assets = sorted(step.job_def.asset_layer.selected_asset_keys)
    planned = [data for asset in assets for data in _planned(asset, keys, together=many)]
    for number, data in enumerate(planned, 1):
        event = DagsterEvent.build_asset_materialization_planned_event(
            run.job_name, data.asset_key.to_python_identifier(), data
        )
        metadata = DagsterEventBatchMetadata(batch, number == len(planned))
        step.instance.report_dagster_event(event, run.run_id, batch_metadata=metadata)


def _planned(
    asset: dg.AssetKey, keys: Sequence[str], *, together: bool
) -> list[AssetMaterializationPlannedData]:
    if together and keys:
        subset = DefaultPartitionsSubset(set(keys))
        return [AssetMaterializationPlannedData(asset, partitions_subset=subset)]
    return [AssetMaterializationPlannedData(asset, partition=key) for key in keys]


def provenance(instance: dg.DagsterInstance, lineage: Lineage) -> dict[str, str]:
    """The tags of an asset's events that say what it is made from; take them before reading it.

    A partition is stale once its code version is another one, or once the same partition of an
    input has an event with another data version than at the time of these tags.
    """
    if lineage.code_version is None:
        tags = {"dagster/data_version_is_user_provided": "true"}
    else:  # by which Dagster knows that versions mean something
        tags = {"dagster/code_version": lineage.code_version}
    for key in lineage.inputs:
        newest = next(iter(instance.fetch_materializations(key, limit=1).records), None)
        name = key.to_user_string()
        tags[f"dagster/input_data_version/{name}"] = _version_of(newest)
        tags[f"dagster/input_event_pointer/{name}"] = (
            str(newest.storage_id) if newest else _BEFORE_ALL
        )
    return tags


def _version_of(newest: dg.EventLogRecord | None) -> str:
    """The data version of an input without partitions; of others Dagster looks at the pointer."""
    if newest is not None and newest.partition_key is not None:
        return _BY_POINTER
    tags = (newest.event_log_entry.tags if newest else None) or {}
    return tags.get("dagster/data_version", "INITIAL")


def materialization(
    asset: dg.AssetKey, stored: StoredRows, tags: Mapping[str, str]
) -> dg.AssetMaterialization:
    """The event that says what is stored; `tags` are those of `provenance`."""
    return dg.AssetMaterialization(
        asset,
        partition=stored.partition,
        metadata={**stored.metadata, "dagster/row_count": stored.rows},
        tags={"dagster/data_version": stored.version, **tags},
    )


def result(stored: StoredRows) -> dg.MaterializeResult:
    """The result of an asset without partitions, with the same content as its event."""
    metadata = {**stored.metadata, "dagster/row_count": stored.rows}
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(stored.version))


def report(step: StepExecutionContext, events: Sequence[dg.AssetMaterialization]) -> None:
    """Store these events now, in batches; Dagster emits none of its own for this run."""
    _defer(step)
    batch = str(uuid4())
    for number, event in enumerate(events, 1):
        last = number == len(events)
        DagsterEvent.asset_materialization(step, event, DagsterEventBatchMetadata(batch, last))


def observe(
    step: StepExecutionContext, metadata: Mapping[str, Any], failed: Mapping[str, str]
) -> None:
    """Store an observation of a step's asset now: about the whole run, and what failed and why."""
    _defer(step)
    shown = {**metadata, **({_FAILED: dg.MetadataValue.json(dict(failed))} if failed else {})}
    DagsterEvent.asset_observation(step, dg.AssetObservation(_asset_of(step), metadata=shown))


def failed_so_far(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    """Why partitions failed in the steps of a run until now, by partition key."""
    found: dict[str, str] = {}
    for metadata in observations(instance, run_id):
        reasons = metadata.get(_FAILED)
        if isinstance(reasons, dg.JsonMetadataValue) and isinstance(reasons.data, dict):
            found = {**reasons.data, **found}  # what failed first is the reason of what follows
    return found


def observations(
    instance: dg.DagsterInstance, run_id: str, asset: str | None = None
) -> Iterable[Mapping[str, dg.MetadataValue]]:
    """The metadata of a run's observations, of one asset where given, oldest first."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION):
        observed = entry.asset_observation
        if observed is not None and asset in (None, observed.asset_key.to_user_string()):
            yield observed.metadata


def failure(failed: Mapping[str, str], n_stored: int) -> dg.Failure:
    """The failure that ends a run in which these partitions failed; the others are stored.

    It is raised in the last step only: where a run fails, Dagster marks each partition as failed
    that was planned and has no event, in every asset of the run.
    """
    reasons = [f"{key}: {why}" for key, why in failed.items()]
    text = "; ".join(reasons[:_SHOWN])
    if len(reasons) > _SHOWN:
        text += f"; and {len(reasons) - _SHOWN} more, see `{_FAILED}` in this event's metadata"
    if n_stored:
        text = f"{len(failed)} partitions failed, {n_stored} are stored: {text}"
    metadata = {_FAILED: dg.MetadataValue.json(dict(failed))}
    return dg.Failure(text, metadata=metadata, allow_retries=False)


class PartitionReports:
    """Reports one partition after the other to Dagster: what is stored of it, or why it failed.

    Args:
        context: of the step that works on them; what its asset reads is looked at now.
    """

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._asset, self._step = context.asset_key, context.get_step_execution_context()
        self._tags = provenance(context.instance, lineage_of(self._step))
        self._failed = failed_so_far(context.instance, context.run.run_id)
        self._n_stored = 0

    def left(self, keys: Sequence[str]) -> list[str]:
        """Those of the partitions that have not failed earlier in the run."""
        return [key for key in keys if key not in self._failed]

    def add(self, key: str, work: Callable[[], StoredRows]) -> None:
        """Work on a partition, and report its rows; one that failed earlier in the run is left out.

        Args:
            key: of the partition.
            work: stores its rows; what it raises of this package is the reason why it failed.
        """
        if key in self._failed:
            return
        try:
            stored = work()
        except BacktestError as error:
            if of_the_environment(error):
                raise
            self._failed[key] = f"{self._asset.path[-1]}: {error}"
            return
        report(self._step, [materialization(self._asset, stored, self._tags)])
        self._n_stored += 1

    def end(self) -> None:
        """Fail the run if a partition failed, in its last step or where nothing is stored."""
        observe(self._step, {"partitions": self._n_stored}, self._failed)
        if self._failed and (is_last(self._step) or not self._n_stored):
            raise failure(self._failed, self._n_stored)


def _defer(step: StepExecutionContext) -> None:
    # In memory only: the stored run keeps its planned events, so that what is in progress and what
    # failed is seen.
    cast("dict[str, str]", step.dagster_run.tags)[DEFERRED] = "true"


def _asset_of(step: StepExecutionContext) -> dg.AssetKey:
    return step.job_def.asset_layer.get_asset_key_for_node(step.node_handle)
