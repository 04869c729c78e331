"""The asset chain on an external feature table: observed, copied into snapshots, never written."""

import time

import dagster as dg

from backtest_pipeline.defs.asset_checks import grain_check
from backtest_pipeline.defs.assets.market import CMC_FEATURES, bars
from backtest_pipeline.defs.assets.signals import signals
from backtest_pipeline.defs.automation.automation_conditions import INPUT_CHANGED
from backtest_pipeline.defs.automation.declared import as_sensor
from backtest_pipeline.defs.automation.partition_freshness import freshness_check
from backtest_pipeline.defs.automation.selections import begin_step, run_over
from backtest_pipeline.defs.jobs import refresh_job
from backtest_pipeline.defs.metadata import table_schema
from backtest_pipeline.defs.partitions import (
    by_asset_and_timeframe,
    partitions_of,
    register_partitions,
)
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.defs.sensors import source_assets
from backtest_pipeline.defs.stage_assets import (
    OWNERS,
    Refresh,
    StageRun,
    stage_asset,
    with_days,
)
from backtest_pipeline.market.features import EMA_PERIODS, FEATURES, READ_COLUMNS
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.runs.summary import snapshots_summary
from backtest_pipeline.pipeline.stages.external.external_changes import Changes, changes
from backtest_pipeline.pipeline.stages.external.external_features import (
    ExternalFeaturesStage,
    external_features,
)
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader
from backtest_pipeline.pipeline.stages.features import stored_features
from backtest_pipeline.pipeline.use_cases.timeframes import project_timeframes
from backtest_pipeline.pipeline.versions import EXTERNAL_FEATURES_CODE
from backtest_pipeline.storage.external.names import ExternalNames
from backtest_pipeline.storage.external.watermarks import read_watermarks
from backtest_pipeline.storage.settings import load_settings

TABLE = dg.AssetKey("cmc_features")
SNAPSHOTS = dg.AssetKey("feature_snapshots")
_VERSION = "dagster/data_version"
_FROM_SNAPSHOTS = {TABLE: SNAPSHOTS, bars.key: SNAPSHOTS}
_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_DEFINITIONS = {feature.name: feature.definition for feature in FEATURES}
_SNAPSHOT_COLUMNS = table_schema(
    ("asset", "string", "symbol"),
    ("ts", "timestamp", "close stamp, UTC, as in the table"),
    *((name, "double", _DEFINITIONS[name]) for name in READ_COLUMNS),
    *((f"ema_{period}", "double", _DEFINITIONS[f"ema_{period}"]) for period in EMA_PERIODS),
)


@stage_asset(
    load=stored_features,
    deps=["cmc_features"],
    automation_condition=INPUT_CHANGED,
    group_name="market",
    kinds={"python", "parquet"},
    code_version=EXTERNAL_FEATURES_CODE,
    metadata={"dagster/column_schema": _SNAPSHOT_COLUMNS},
    description="The columns of the external feature table that strategies and the simulation "
    "read, as content-addressed Parquet with their dataset version; invalid rows are left out and "
    "counted.",
)
def feature_snapshots(
    context: dg.AssetExecutionContext, config: Refresh, store: WorkspaceResource
) -> StageRun:
    keys = begin_step(context)
    reader = ExternalReader(store.workspace)
    wanted = with_days(store.workspace, partitions_of(keys))
    taken = external_features(reader, wanted)
    stage = ExternalFeaturesStage(store.workspace, reader)
    return StageRun(taken, stage, snapshots_summary, config.full_rebuild)


snapshots_check = grain_check("feature_snapshots")
snapshots_freshness = freshness_check("feature_snapshots")


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


def on_external_features(declared: dg.Definitions, names: ExternalNames) -> dg.Definitions:
    """The definitions for an external feature table, with those of this module.

    The assets that build bars or features are left out, with their checks; assets that read
    features read the snapshots of the external table.
    """
    assets: dict[dg.AssetKey, dg.AssetsDefinition] = {
        asset.key: asset.with_attributes(asset_key_replacements=_FROM_SNAPSHOTS)
        for asset in declared.assets or ()
        if isinstance(asset, dg.AssetsDefinition) and asset.key not in (*_FROM_SNAPSHOTS, SNAPSHOTS)
    }
    assets[SNAPSHOTS] = feature_snapshots
    assets[signals.key] = _reading_rows(assets[signals.key])
    return dg.Definitions(
        assets=[external_table(names), *assets.values()],
        asset_checks=[
            check
            for check in declared.asset_checks or ()
            if all(key.asset_key in assets for key in check.check_keys)
        ],
        jobs=declared.jobs,
        schedules=declared.schedules,
        sensors=[sensor for sensor in declared.sensors or () if sensor is not source_assets],
    )


def _reading_rows(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The asset with a further dependency on the external table, whose whole rows it reads."""
    return asset.map_asset_specs(
        lambda spec: spec.replace_attributes(deps=[*spec.deps, dg.AssetDep(TABLE)])
    )


@dg.sensor(job=refresh_job, **as_sensor("external_features"))
def watermark_sensor(
    context: dg.SensorEvaluationContext, store: WorkspaceResource
) -> dg.SensorResult:
    reader = ExternalReader(store.workspace)
    database = store.workspace.database
    ours = project_timeframes(database, load_settings().timeframes)
    seen = {p: w.version for p, w in reader.watermarks.items() if p.timeframe in ours}
    with database.begin() as connection:
        taken = read_watermarks(connection)
    register_partitions(context.instance, sorted({p.asset for p in seen}), ours)
    under_way = context.instance.get_runs_count(
        dg.RunsFilter(job_name=refresh_job.name, statuses=_UNDER_WAY)
    )
    # A running refresh picks up most changes; the rest is requested after it.
    changed = changes(
        seen,
        taken,
        lambda: _reported(context.instance),
        context.cursor,
        time.time(),
        is_idle=not under_way,
    )
    return dg.SensorResult(
        asset_events=[
            dg.AssetMaterialization(
                TABLE,
                partition=str(partition),
                tags={_VERSION: version},
                metadata={
                    "rows": reader.watermarks[partition].n_rows,
                    "newest": dg.MetadataValue.timestamp(
                        reader.watermarks[partition].last_ts / 1e6
                    ),
                },
            )
            for partition, version in changed.news.items()
        ],
        run_requests=refreshes(context.instance, changed),
        cursor=changed.cursor,
    )


def _reported(instance: dg.DagsterInstance) -> dict[Partition, str]:
    """The version of each partition of the table that was last reported to Dagster."""
    found = instance.event_log_storage.get_latest_tags_by_partition(
        TABLE, dg.DagsterEventType.ASSET_MATERIALIZATION, [_VERSION]
    )
    return {Partition.parse(key): tags[_VERSION] for key, tags in found.items()}


def refreshes(instance: dg.DagsterInstance, changed: Changes) -> list[dg.RunRequest]:
    """One run over exactly the outdated partitions; none where no refresh is due."""
    if changed.run_key is None:
        return []
    over = run_over(instance, changed.outdated)
    return [dg.RunRequest(run_key=changed.run_key, run_config=over.config, tags=over.tags)]
