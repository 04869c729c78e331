"""Refreshing from a program: the same jobs and range runs that the Dagster UI launches."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from uuid import UUID

import dagster as dg

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.automation.selections import run_over
from backtest_pipeline.defs.beta import beta_used_knowingly
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.defs.partitions import (
    delete_partitions,
    register_partitions,
    timeframe_ranges,
)
from backtest_pipeline.defs.processes.launched_runs import terminate_runs
from backtest_pipeline.defs.processes.leased_runs import fail_dead_runs, leased_run
from backtest_pipeline.defs.resources import SourceResource, WorkspaceResource
from backtest_pipeline.defs.stored_events import (
    StoredRows,
    lineages_of,
    materialization,
    observations,
    provenance,
)
from backtest_pipeline.market.errors import InvalidInput
from backtest_pipeline.market.partitions import Partition, usable_symbols
from backtest_pipeline.pipeline.runs.summary import LEFT_OUT
from backtest_pipeline.pipeline.stage import Progress
from backtest_pipeline.pipeline.stages.external.external_reader import ExternalReader
from backtest_pipeline.pipeline.use_cases.timeframes import project_timeframes
from backtest_pipeline.pipeline.workspace import open_workspace
from backtest_pipeline.sources.base import require_known
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.settings import Settings, load_settings
from backtest_pipeline.storage.tables.dimensions import known_symbols
from backtest_pipeline.storage.tables.jobs import Job, request_cancel
from backtest_pipeline.storage.tables.timeframes import require_refreshed

_log = logging.getLogger(__name__)
# Everything is in Dagster's event log; the console belongs to the progress bars.
_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
_INTERRUPT = "dagster._core.errors.DagsterExecutionInterruptedError"
# Dagster puts an error's class before its message; ours speak for themselves.
_CLASS_OF_OURS = re.compile(
    r"^(backtest_pipeline\.market\.errors\.\w+|dagster\._core\.definitions\.events\.Failure): "
)
_BACKTESTS = dg.AssetKey("backtests")
_JOBS = ("refresh", "portfolio_rollups_job")
_BUILT = ("bars", "cmc_features", "signals", "backtests")
_EXTERNAL = ("feature_snapshots", "signals", "backtests")


@dataclass(frozen=True)
class RefreshResult:
    """The result of a refresh.

    Attributes:
        assets, timeframes: what was refreshed.
        run_ids: Dagster's runs.
        failures: messages of the steps that failed; empty where all went well.
        without_bars: partitions that the source has no complete bars of, and why; where there
            are very many, the first of them.
        left_out: a sentence on each part of the source that was not read or cannot be used.
    """

    assets: tuple[str, ...]
    timeframes: tuple[str, ...]
    run_ids: tuple[str, ...]
    failures: tuple[str, ...]
    without_bars: Mapping[str, str]
    left_out: tuple[str, ...] = ()


def refresh(
    *,
    bars: str,
    assets: Sequence[str] | None,
    timeframes: Sequence[str] | None,
    full_rebuild: bool,
    progress: Progress,
) -> RefreshResult:
    """Refresh bars to backtests for assets and timeframes, then the portfolios of these.

    Args:
        bars: file or folder of bars, or `binance:1h`; empty for the configured source.
        assets: symbols; all that the source has where None.
        timeframes: names; all that the project has where None.
        full_rebuild: compute also what has not changed.
        progress: called as stages advance.

    Raises:
        UnknownName: for an unknown asset or timeframe.
        InvalidInput: for a timeframe that this project is not partitioned by, or where neither
            the caller nor the source names an asset.
        KeyboardInterrupt: if Ctrl-C ended one of its runs.
    """
    settings = load_settings()
    source = SourceResource(path=settings.bars_of(bars))
    offered = offered_assets(settings, source, assets or ())
    known = offered.symbols
    wanted = known if assets is None else tuple(assets)
    if not wanted and offered.left_out:
        raise InvalidInput(f"no asset of the source can be used: {offered.left_out[0]}")
    if not wanted:
        raise InvalidInput("the source has no asset yet; name some with --assets BTCUSDT,ETHUSDT")
    require_known(wanted, known)
    database = open_database(settings)
    try:
        names = project_timeframes(database, settings.timeframes)
        chosen = names if timeframes is None else timeframes
        require_refreshed(chosen, names)
        with open_instance(settings, database) as instance:
            database.retrying("dead runs", lambda: fail_dead_runs(instance, database))
            register_partitions(instance, known, names)
            definitions = build_definitions(store=_store_reporting(progress), source=source)
            stages = _BUILT if settings.external is None else _EXTERNAL
            with beta_used_knowingly():
                jobs = [
                    definitions.resolve_job_def(name)
                    for name in ("refresh", "portfolio_rollups_job")
                ]
            result = _execute(
                jobs, database, instance, wanted, chosen, stages, full_rebuild, progress
            )
            left_out = dict.fromkeys((*offered.left_out, *result.left_out))
            return replace(result, left_out=tuple(left_out))
    finally:
        database.close()


def cancel_job(settings: Settings, database: Database, job_id: UUID, user: str) -> Job:
    """Cancel a job, and have Dagster end its run.

    The worker hears of it at its next heartbeat as well, so that a run whose code server cannot be
    reached stops all the same.

    Raises:
        JobNotFound: for an unknown job id.
        JobConflict: for a job that has ended.
    """
    with database.begin() as connection:
        job = request_cancel(connection, job_id, user)
    with open_instance(settings, database) as instance:
        try:
            terminate_runs(instance, job_id)
        except dg.DagsterError as error:
            _log.warning("job %s: Dagster could not end its run: %s", job_id, error)
    return job


def report_stored(asset: str, stored: StoredRows) -> None:
    """Report to Dagster what a command has stored of an asset without partitions.

    What is stored stays so where Dagster cannot be reached; that is logged.
    """
    lineage = lineages_of(build_definitions())[asset]
    with _instance_for_reports(asset) as instance:
        tags = provenance(instance, lineage)
        event = materialization(dg.AssetKey(asset), stored, tags)
        instance.report_runless_asset_event(event)


def report_seen(observation: dg.AssetObservation) -> None:
    """Report to Dagster what a command has stored beside an asset; fails as `report_stored`."""
    with _instance_for_reports(observation.asset_key.to_user_string()) as instance:
        instance.report_runless_asset_event(observation)


@contextmanager
def _instance_for_reports(asset: str) -> Iterator[dg.DagsterInstance]:
    settings = load_settings()
    with closing(open_database(settings)) as database:
        try:
            with open_instance(settings, database) as instance:
                yield instance
        except dg.DagsterError as error:
            _log.warning("%s is stored, but could not be reported to Dagster: %s", asset, error)


def forget_partitions(symbols: Iterable[str]) -> tuple[str, ...]:
    """Delete the Dagster partitions of those of the assets that the store does not know.

    Otherwise every nightly refresh would fail on assets that no source has. Returns the symbols of
    the deleted partitions.
    """
    settings = load_settings()
    database = open_database(settings)
    try:
        with database.begin() as connection:
            gone = set(symbols) - set(known_symbols(connection))
        with open_instance(settings, database) as instance:
            return tuple(delete_partitions(instance, gone))
    finally:
        database.close()


class OfferedAssets(NamedTuple):
    """The assets that there are to refresh, and a sentence on each part that cannot be used."""

    symbols: tuple[str, ...]
    left_out: tuple[str, ...]


def offered_assets(
    settings: Settings, source: SourceResource, named: Sequence[str] = ()
) -> OfferedAssets:
    """The assets to refresh: of the source, or of the user's own table of features.

    `named` are those of an exchange that are wanted by name.

    Raises:
        BacktestError: where the source, or the table, cannot be read.
    """
    if settings.external is None:
        return OfferedAssets(*usable_symbols(source.source(named).symbols()))
    with open_workspace(settings) as workspace:
        reader = ExternalReader(workspace)
        return OfferedAssets(reader.symbols(), reader.left_out)


def _store_reporting(progress: Progress) -> WorkspaceResource:
    class ReportingStore(WorkspaceResource):
        def progress(self, stage: str, done: int, total: int) -> None:
            progress(stage, done, total)

    return ReportingStore()


def _execute(
    jobs: Sequence[dg.JobDefinition],
    database: Database,
    instance: dg.DagsterInstance,
    assets: Sequence[str],
    timeframes: Sequence[str],
    stages: Sequence[str],
    full_rebuild: bool,
    progress: Progress,
) -> RefreshResult:
    def execute(
        job: dg.JobDefinition, config: Mapping[str, Any], tags: Mapping[str, str]
    ) -> dg.ExecuteInProcessResult:
        with leased_run(database, "backtest-pipeline refresh") as run_id:
            run = job.execute_in_process(
                config, instance, tags=tags, run_id=run_id, raise_on_error=False
            )
        if was_interrupted(run):
            raise KeyboardInterrupt
        return run

    job, rollup = jobs
    config = {
        "ops": {name: {"config": {"full_rebuild": full_rebuild}} for name in stages},
        "loggers": _QUIET,
    }
    wanted = [Partition(asset, tf) for tf in timeframes for asset in assets]
    over = run_over(instance, wanted)
    runs = [execute(job, {**config, **over.config}, over.tags)]
    refreshed = [run.run_id for run in runs]
    # Also what the run has found unchanged, and not reported again.
    stored = instance.get_materialized_partitions(_BACKTESTS)
    with_backtests = {p.timeframe for p in wanted if str(p) in stored}
    progress("portfolios", 0, len(with_backtests))
    runs += [
        execute(rollup, {"loggers": _QUIET}, tags)
        for tags in timeframe_ranges(instance, with_backtests)
    ]
    progress("portfolios", len(with_backtests), len(with_backtests))
    return RefreshResult(
        tuple(assets),
        tuple(timeframes),
        tuple(run.run_id for run in runs),
        tuple(message for run in runs for message in _failures(run)),
        _without_bars(instance, refreshed, stages[0]),
        tuple(
            str(row[LEFT_OUT]) for row in _rows_reported(instance, refreshed, stages[0], LEFT_OUT)
        ),
    )


def _without_bars(
    instance: dg.DagsterInstance, run_ids: Iterable[str], stage: str
) -> dict[str, str]:
    """Why partitions have no bars, from what the first stage reported to Dagster."""
    rows = _rows_reported(instance, run_ids, stage, "without_result")
    return {str(row["partition"]): str(row["why"]) for row in rows}


def _rows_reported(
    instance: dg.DagsterInstance, run_ids: Iterable[str], stage: str, name: str
) -> Iterator[Mapping[str, Any]]:
    """The rows of a table that a stage reported to Dagster, also where it failed."""
    for run_id in run_ids:
        for metadata in observations(instance, run_id, stage):
            table = metadata.get(name)
            if isinstance(table, dg.TableMetadataValue):
                yield from (record.data for record in table.records)


def was_interrupted(run: dg.ExecuteInProcessResult) -> bool:
    """Whether Ctrl-C ended it: Dagster makes a failed step of that, with an error without words."""
    return any(
        error is not None and error.message.strip().rstrip(":") == _INTERRUPT
        for error in (event.step_failure_data.error for event in run.get_step_failure_events())
    )


def _failures(run: dg.ExecuteInProcessResult) -> list[str]:
    found = []
    for event in run.get_step_failure_events():
        chain = []
        error = event.step_failure_data.error
        while error is not None:
            chain.append(error.message.strip())
            error = error.cause
        ours = [message for message in chain if _CLASS_OF_OURS.match(message)]
        message = next(iter(ours or chain[::-1]), "no reason was recorded")
        found.append(f"{event.step_key}: {_CLASS_OF_OURS.sub('', message)}")
    return found
