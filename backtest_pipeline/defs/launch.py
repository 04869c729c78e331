"""Refreshing from a program: the same jobs and range runs that the Dagster UI launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.defs.partitions import (
    RANGE_END,
    RANGE_START,
    rectangles,
    register_partitions,
    timeframes_partitions,
)
from backtest_pipeline.defs.resources import SourceResource, WorkspaceResource
from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.pipeline.batches import Progress
from backtest_pipeline.sources.base import require_known
from backtest_pipeline.storage.database import open_database
from backtest_pipeline.storage.settings import load_settings

# Everything is in Dagster's event log; the console belongs to the progress bars.
_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
_STAGES = ("bars", "cmc_features", "signals", "backtests")


@dataclass(frozen=True)
class RefreshResult:
    """What a refresh came to.

    Attributes:
        assets, timeframes: what was refreshed.
        run_ids: Dagster's runs.
        failures: messages of the steps that failed; empty where all went well.
    """

    assets: tuple[str, ...]
    timeframes: tuple[str, ...]
    run_ids: tuple[str, ...]
    failures: tuple[str, ...]


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
        bars: file or folder of bars; empty for the configured source.
        assets: symbols; all that the source has where None.
        timeframes: names; all that the project has where None.
        full_rebuild: compute also what has not changed.
        progress: told how far each stage is.

    Raises:
        UnknownName: for an asset or timeframe that there is not.
    """
    settings = load_settings()
    source = SourceResource(path=bars)
    known = source.source().symbols()
    wanted = known if assets is None else tuple(assets)
    require_known(wanted, known)
    names = timeframes_partitions.get_partition_keys()
    chosen = names if timeframes is None else list(timeframes)
    for name in chosen:
        if name not in names:
            raise UnknownName("timeframe of this project (BACKTEST_TIMEFRAMES)", name, names)
    database = open_database(settings)
    try:
        with open_instance(settings, database) as instance:
            register_partitions(instance, known)
            store = WorkspaceResource().listening(progress)
            definitions = build_definitions(store=store, source=source)
            return _execute(definitions, instance, wanted, chosen, full_rebuild)
    finally:
        database.close()


def _execute(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    assets: Sequence[str],
    timeframes: Sequence[str],
    full_rebuild: bool,
) -> RefreshResult:
    job = definitions.resolve_job_def("refresh")
    config = {
        "ops": {name: {"config": {"full_rebuild": full_rebuild}} for name in _STAGES},
        "loggers": _QUIET,
    }
    runs = [
        job.execute_in_process(config, instance=instance, tags=tags, raise_on_error=False)
        for tags in rectangles(instance, assets, timeframes)
    ]
    names = timeframes_partitions.get_partition_keys()
    rollup = definitions.resolve_job_def("rollup")
    if all(run.success for run in runs):
        first, last = min(timeframes, key=names.index), max(timeframes, key=names.index)
        runs.append(
            rollup.execute_in_process(
                {"loggers": _QUIET},
                instance=instance,
                tags={RANGE_START: first, RANGE_END: last},
                raise_on_error=False,
            )
        )
    return RefreshResult(
        tuple(assets),
        tuple(timeframes),
        tuple(run.run_id for run in runs),
        tuple(message for run in runs for message in _failures(run)),
    )


def _failures(run: dg.ExecuteInProcessResult) -> list[str]:
    found = []
    for event in run.get_step_failure_events():
        error = event.step_failure_data.error
        # Under Dagster's wrappers stands our error; what caused that knows less of how to mend it.
        while error is not None and error.cause and (error.cls_name or "").startswith("Dagster"):
            error = error.cause
        message = error.message.strip() if error else "no reason was recorded"
        found.append(f"{event.step_key}: {message}")
    return found
