"""Runs of the code location's jobs in this process, and what they report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.automation.selections import selected_keys
from backtest_pipeline.defs.partitions import RANGE_END, RANGE_START, by_asset_and_timeframe

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_job(
    instance: dg.DagsterInstance,
    job: str,
    tags: Mapping[str, str],
    config: Mapping[str, Any] | None = None,
    **resources: Any,
) -> dg.ExecuteInProcessResult:
    definition = build_definitions(**resources).resolve_job_def(job)
    return definition.execute_in_process(
        {**QUIET, **(config or {})}, instance=instance, tags=tags, raise_on_error=False
    )


def run_asset(
    instance: dg.DagsterInstance,
    asset: str,
    tags: dict[str, str],
    config: dict[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    job = build_definitions().resolve_implicit_global_asset_job_def()
    chosen = job.get_subset(asset_selection={dg.AssetKey(asset)})
    return chosen.execute_in_process(
        {**QUIET, **(config or {})}, instance=instance, tags=tags, raise_on_error=False
    )


def rectangle(first: str, last: str) -> dict[str, str]:
    return {RANGE_START: first, RANGE_END: last}


def materialized(instance: dg.DagsterInstance, asset: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def told(
    instance: dg.DagsterInstance, run: dg.ExecuteInProcessResult, asset: str
) -> dict[str, dg.AssetMaterialization]:
    """The materializations of an asset in a run, by partition key."""
    entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [e.asset_materialization for e in entries if e.asset_materialization is not None]
    own = [event for event in events if event.asset_key == dg.AssetKey(asset)]
    keys = [str(event.partition) for event in own]
    assert len(set(keys)) == len(keys), "a partition was reported twice"
    return dict(zip(keys, own, strict=True))


def selected(instance: dg.DagsterInstance, request: dg.RunRequest) -> set[str]:
    """The keys of those of the request's range that its run computes."""
    ends = dg.PartitionKeyRange(request.tags[RANGE_START], request.tags[RANGE_END])
    keys = by_asset_and_timeframe.get_partition_keys_in_range(ends, instance)
    run = dg.DagsterRun("refresh", tags=dict(request.tags), run_config=request.run_config)
    return set(selected_keys(run, keys))


def failure_of(run: dg.ExecuteInProcessResult) -> str:
    data = [event.event_specific_data for event in run.all_events if event.is_failure]
    return "\n".join(map(str, data))


def require_success(run: dg.ExecuteInProcessResult) -> None:
    assert run.success, failure_of(run)


def judged(
    instance: dg.DagsterInstance, job: str, asset: str, **config: object
) -> dg.ExecuteInProcessResult:
    definition = build_definitions().resolve_job_def(job)
    return definition.execute_in_process(
        {**QUIET, "ops": {asset: {"config": config}}}, instance=instance, raise_on_error=False
    )


def metadata_of(run: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = run.get_asset_materialization_events()
    found = event.materialization.metadata
    return {
        name: value if isinstance(value, dg.TableMetadataValue) else value.value
        for name, value in found.items()
    }


def check_of(run: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (evaluation,) = run.get_asset_check_evaluations()
    return evaluation
