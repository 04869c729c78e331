"""Schedules that compute what is missing, failed or stale, one for each time at which bars close.

A tick asks the store what is due (`due_partitions`), leaves out what a run is computing already,
and requests one run over exactly the rest. Ticks that were missed, came twice or came late ask
for nothing else than the newest one does.
"""

from collections.abc import Mapping, Sequence

import dagster as dg

from backtest_pipeline.defs.automation.declared import as_schedule
from backtest_pipeline.defs.automation.selections import run_over, selected_keys
from backtest_pipeline.defs.jobs import refresh_job
from backtest_pipeline.defs.partitions import (
    RANGE_END,
    RANGE_START,
    follow_timeframes,
    register_partitions,
)
from backtest_pipeline.defs.resources import (
    SimulationResource,
    SourceResource,
    WorkspaceResource,
)
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.market.timeframes import timeframe
from backtest_pipeline.pipeline.use_cases.due_partitions import (
    BarsClose,
    DuePartitions,
    DueReason,
    due_partitions,
    offered_symbols,
)
from backtest_pipeline.pipeline.use_cases.timeframes import project_timeframes
from backtest_pipeline.storage.provenance import combined
from backtest_pipeline.storage.settings import load_settings

DUE_TAG, GROUP_TAG = "backtest/due", "backtest/backfill"
_MOST_TRIES = 3
# A run that was only created is none: where the daemon died before it launched it, the same tick
# again has it launched, and later ones request another.
_NOT_UNDER_WAY = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)
_UNDER_WAY = [status for status in dg.DagsterRunStatus if status not in _NOT_UNDER_WAY]
_CHAIN = {"bars", "cmc_features", "feature_snapshots", "signals", "backtests"}


def _backfill(group: BarsClose) -> dg.ScheduleDefinition:
    @dg.schedule(job=refresh_job, **as_schedule(f"{group.value}_backfill"))
    def backfill(
        context: dg.ScheduleEvaluationContext,
        store: WorkspaceResource,
        source: SourceResource,
        simulation: SimulationResource,
    ) -> dg.RunRequest | dg.SkipReason:
        workspace, instance = store.workspace, context.instance
        names = project_timeframes(workspace.database, load_settings().timeframes)
        follow_timeframes(instance, names)
        own = [name for name in names if BarsClose.of(timeframe(name)) is group]
        if not own:
            return dg.SkipReason(f"no timeframe of BACKTEST_TIMEFRAMES has {group.value} bars")
        bars = source.source() if workspace.external is None else None
        known = _partitions(instance, own)
        if bars is not None:
            offered = offered_symbols(workspace, bars, known)
            register_partitions(instance, offered or (), names)
            known = _partitions(instance, own)
        if not known:
            return dg.SkipReason(
                "no asset is known yet: the source has none, or names them only one by one; "
                "`backtest-pipeline refresh --assets BTCUSDT` adds one"
            )
        at_us = int(context.scheduled_execution_time.timestamp() * 1e6)
        due = due_partitions(workspace, bars, simulation.config(), known, at_us)
        return _request(context, group, due)

    return backfill


def _partitions(instance: dg.DagsterInstance, timeframes: Sequence[str]) -> list[Partition]:
    assets = instance.get_dynamic_partitions("asset")
    return [Partition(asset, tf) for tf in timeframes for asset in assets]


def _request(
    context: dg.ScheduleEvaluationContext, group: BarsClose, due: DuePartitions
) -> dg.RunRequest | dg.SkipReason:
    """A run over what is due and is not under way; skipped where that is nothing."""
    instance, at = context.instance, context.scheduled_execution_time
    if not due.reasons:
        return dg.SkipReason(due.text)
    busy = _under_way(instance)
    wanted = {p: reason for p, reason in due.reasons.items() if str(p) not in busy}
    if not wanted:
        runs = sorted({busy[str(p)] for p in due.reasons})
        return dg.SkipReason(f"{due.text}; under way already, in run {', '.join(runs)}")
    named = _name_of(wanted, due)
    tried = instance.get_runs(dg.RunsFilter(tags={DUE_TAG: named}), limit=_MOST_TRIES)
    if len(tried) == _MOST_TRIES:
        return dg.SkipReason(
            f"{due.text}; {_MOST_TRIES} runs over exactly these have not changed that, the last of "
            f"them is {tried[0].run_id}: correct what it names, or refresh them by hand"
        )
    over = run_over(instance, list(wanted))
    context.log.info(due.text)
    return dg.RunRequest(
        run_key=f"{at.isoformat()}/{group.value}",
        run_config=over.config,
        tags={**over.tags, DUE_TAG: named, GROUP_TAG: group.value},
    )


def _name_of(wanted: Mapping[Partition, DueReason], due: DuePartitions) -> str:
    """The same for the same partitions, due for the same reasons since the same bars closed."""
    return combined(*(f"{p} {reason} {due.closed[p.timeframe]}" for p, reason in wanted.items()))


def _under_way(instance: dg.DagsterInstance) -> dict[str, str]:
    """The partition keys of the chain that a run is to compute that has not ended, with its id."""
    found = {}
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY)):
        if run.asset_selection and not {k.path[-1] for k in run.asset_selection} & _CHAIN:
            continue
        if run.job_name == refresh_job.name or run.asset_selection:
            found.update(dict.fromkeys(_keys_of(instance, run), run.run_id))
    return found


def _keys_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Sequence[str]:
    first, last = run.tags.get(RANGE_START), run.tags.get(RANGE_END)
    if first is None or last is None:
        single = run.tags.get("dagster/partition")
        return [single] if single else []
    known = instance.get_dynamic_partitions("asset"), instance.get_dynamic_partitions("timeframe")
    ends = [key.split("|") for key in (first, last)]
    if any(len(end) != 2 or end[d] not in known[d] for end in ends for d in (0, 1)):
        return []  # of another kind of partitions, or of some that were deleted
    assets, timeframes = (
        keys[keys.index(ends[0][d]) : keys.index(ends[1][d]) + 1] for d, keys in enumerate(known)
    )
    return selected_keys(run, [f"{asset}|{tf}" for asset in assets for tf in timeframes])


hourly_backfill = _backfill(BarsClose.INTRADAY)
daily_backfill = _backfill(BarsClose.DAYS)
weekly_backfill = _backfill(BarsClose.WEEKS)
monthly_backfill = _backfill(BarsClose.MONTHS)
BACKFILLS = (hourly_backfill, daily_backfill, weekly_backfill, monthly_backfill)
