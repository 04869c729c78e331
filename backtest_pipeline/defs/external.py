"""The asset chain on an external feature table: observed, copied into snapshots, never written."""

from __future__ import annotations

import dagster as dg

from backtest_pipeline.defs.assets.judgement import negative_controls
from backtest_pipeline.defs.assets.stages import (
    OWNERS,
    feature_snapshots,
    signals,
    walk_forward,
)
from backtest_pipeline.defs.assets.table_schemas import CMC_FEATURES
from backtest_pipeline.defs.automation import refresh_job
from backtest_pipeline.defs.partitions import (
    RANGE_END,
    RANGE_START,
    by_asset_and_timeframe,
    rectangles,
    register_partitions,
    timeframes_partitions,
)
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.pipeline.stages.external_changes import Changes, by_timeframes, changes
from backtest_pipeline.pipeline.stages.external_features import ExternalReader
from backtest_pipeline.storage.external.names import ExternalNames
from backtest_pipeline.storage.external.watermarks import read_watermarks

TABLE = dg.AssetKey("cmc_features")
SNAPSHOTS = feature_snapshots.key
_MOST_RUNS = 4
_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def external_table(names: ExternalNames) -> dg.AssetSpec:
    """The external feature table as an asset that is materialized elsewhere."""
    return dg.AssetSpec(
        TABLE,
        partitions_def=by_asset_and_timeframe,
        group_name="market",
        kinds={"postgres"},
        owners=OWNERS,
        metadata={
            "dagster/table_name": names.table,
            "dagster/column_schema": CMC_FEATURES,
            "filters": {column: "|".join(values) for column, values in names.filters.items()},
        },
        description="The external feature table. The sensor external_features reports here which "
        "partitions have changed; this project never writes to the table.",
    )


def external_chain(names: ExternalNames) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The assets that replace those that build features, or that read built features."""
    from_snapshots = {TABLE: SNAPSHOTS, dg.AssetKey("bars"): SNAPSHOTS}
    readers = [
        asset.with_attributes(asset_key_replacements=from_snapshots)
        for asset in (signals, walk_forward, negative_controls)
    ]
    return [external_table(names), feature_snapshots, _reading_rows(readers[0]), *readers[1:]]


def _reading_rows(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The asset with a further dependency on the external table, whose whole rows it reads."""
    return asset.map_asset_specs(
        lambda spec: spec.replace_attributes(deps=[*spec.deps, dg.AssetDep(TABLE)])
    )


@dg.sensor(
    name="external_features",
    job=refresh_job,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches the external feature table: reports changed partitions, adds new assets, "
    "and launches a refresh of outdated partitions.",
)
def watermark_sensor(
    context: dg.SensorEvaluationContext, store: WorkspaceResource
) -> dg.SensorResult:
    reader = ExternalReader(store.workspace)
    ours = set(timeframes_partitions.get_partition_keys())
    seen = {p: w.version for p, w in reader.watermarks.items() if p.timeframe in ours}
    with store.workspace.database.begin() as connection:
        taken = read_watermarks(connection)
    changed = changes(seen, taken, context.cursor)
    register_partitions(context.instance, sorted({p.asset for p in seen}))
    under_way = context.instance.get_runs_count(
        dg.RunsFilter(job_name=refresh_job.name, statuses=_UNDER_WAY)
    )
    return dg.SensorResult(
        asset_events=[
            dg.AssetMaterialization(
                TABLE,
                partition=str(partition),
                tags={"dagster/data_version": version},
                metadata={
                    "rows": reader.watermarks[partition].n_rows,
                    "newest": dg.MetadataValue.timestamp(
                        reader.watermarks[partition].last_ts / 1e6
                    ),
                },
            )
            for partition, version in changed.news.items()
        ],
        # A running refresh picks up most changes; the rest is requested after it.
        run_requests=[] if under_way else refreshes(context.instance, changed),
        cursor=changed.cursor,
    )


def refreshes(instance: dg.DagsterInstance, changed: Changes) -> list[dg.RunRequest]:
    """Run requests that cover the outdated partitions: exact ranges, or one range around them all.

    More than `_MOST_RUNS` exact ranges are replaced by a single one.
    """
    if not changed.outdated:
        return []
    tags = [
        tags
        for assets, timeframes in by_timeframes(changed.outdated)
        for tags in rectangles(instance, assets, timeframes)
    ]
    if len(tags) > _MOST_RUNS:
        known = instance.get_dynamic_partitions("asset")
        names = timeframes_partitions.get_partition_keys()
        at = [(known.index(p.asset), names.index(p.timeframe)) for p in changed.outdated]
        (a, b), (t, u) = ((min(axis), max(axis)) for axis in zip(*at, strict=True))
        tags = [{RANGE_START: f"{known[a]}|{names[t]}", RANGE_END: f"{known[b]}|{names[u]}"}]
    return [
        dg.RunRequest(run_key=f"{changed.run_key}/{i}", tags=these) for i, these in enumerate(tags)
    ]
