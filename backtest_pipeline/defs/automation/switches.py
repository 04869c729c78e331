"""Turns schedules and sensors on and off in a store, and says when they ticked and will tick.

The only module that uses these private parts of Dagster, because by its public API a state is
only changed through a running webserver:

- `InstigatorState`, its data and its status, which the daemon reads before each tick;
- the origins by which it knows a schedule or sensor again;
- `schedule_execution_time_iterator`, which reads cron expressions as the daemon does.

For the reasons, and when this can be removed, see docs/adr/0001-private-dagster.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.definitions.sensor_definition import SensorType
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.schedules import schedule_execution_time_iterator

from backtest_pipeline.defs.automation.table import AUTOMATIONS, Automation
from backtest_pipeline.market.errors import UnknownName

_LOCATION = InProcessCodeLocationOrigin(
    LoadableTargetOrigin(module_name="backtest_pipeline.definitions"),
    location_name="backtest_pipeline",  # as in workspace.yaml
)
_REPOSITORY = RemoteRepositoryOrigin(_LOCATION, "__repository__")


_STOPPED = "backtest_pipeline/automation/stopped"
"""Key of the names that `switch_all_off` stopped, in Dagster's own storage of cursors."""


@dataclass(frozen=True)
class AutomationStatus:
    """How a schedule or sensor of a store stands.

    Attributes:
        row: what it is.
        is_on: whether the daemon ticks it.
        next_tick: when it ticks next; None while it is off, and for a sensor that never ticked.
        last_tick: when it ticked last; None if never, or so long ago that it was purged.
        last_result: what came of that tick: requested, skipped, failed or under way.
        last_reason: why it was skipped or failed, or the runs that it requested.
        last_seconds: how long it took; None while it is under way.
    """

    row: Automation
    is_on: bool
    next_tick: datetime | None
    last_tick: datetime | None
    last_result: str
    last_reason: str
    last_seconds: float | None


def of_this_store(*, is_external: bool) -> tuple[Automation, ...]:
    """The rows that a store has, with an external feature table or without."""
    absent = "source_assets" if is_external else "external_features"
    return tuple(row for row in AUTOMATIONS if row.name != absent)


def chosen(rows: Sequence[Automation], names: Sequence[str]) -> tuple[Automation, ...]:
    """The rows of these names; raises UnknownName for one that there is not."""
    by_name = {row.name: row for row in rows}
    for name in names:
        if name not in by_name:
            raise UnknownName("schedule or sensor", name, list(by_name))
    return tuple(by_name[name] for name in names)


def switch_some(
    instance: dg.DagsterInstance, rows: Sequence[Automation], *, on: bool
) -> list[Automation]:
    """Turn some schedules and sensors on or off; returns those that were the other way before.

    One that is turned off by name stays off when what was stopped is turned on again.
    """
    changed = [row for row in rows if switch(instance, row, on=on)]
    if not on:
        _note_stopped(instance, _stopped(instance) - {row.name for row in rows})
    return changed


def switch_all_off(instance: dg.DagsterInstance, rows: Sequence[Automation]) -> list[Automation]:
    """Turn off all of them, and note which were on; returns these."""
    changed = [row for row in rows if switch(instance, row, on=False)]
    _note_stopped(instance, _stopped(instance) | {row.name for row in changed})
    return changed


def switch_on_again(instance: dg.DagsterInstance, rows: Sequence[Automation]) -> list[Automation]:
    """Turn on what `switch_all_off` stopped, or else what a new store has on.

    Returns those that were off before.
    """
    stopped = _stopped(instance)
    wanted = [row for row in rows if (row.name in stopped if stopped else row.on)]
    changed = [row for row in wanted if switch(instance, row, on=True)]
    _note_stopped(instance, set())
    return changed


def _stopped(instance: dg.DagsterInstance) -> set[str]:
    stored = instance.daemon_cursor_storage.get_cursor_values({_STOPPED})
    return set(json.loads(stored.get(_STOPPED, "[]")))


def _note_stopped(instance: dg.DagsterInstance, names: set[str]) -> None:
    instance.daemon_cursor_storage.set_cursor_values({_STOPPED: json.dumps(sorted(names))})


def switch(instance: dg.DagsterInstance, row: Automation, *, on: bool) -> bool:
    """Turn a schedule or sensor on or off; returns whether it was the other way before.

    A schedule that is turned on does not make up for ticks of the time when it was off.
    """
    stored = _stored(instance, row)
    if _is_on(row, stored) is on:
        return False
    status = InstigatorStatus.RUNNING if on else InstigatorStatus.STOPPED
    if stored is not None:
        state = stored.with_status(status)
        if row.is_schedule and on:
            state = state.with_data(ScheduleInstigatorData(row.cron, time.time()))
        instance.update_instigator_state(state)
        return True
    data = (
        ScheduleInstigatorData(row.cron, time.time() if on else None)
        if row.is_schedule
        else SensorInstigatorData(min_interval=row.every_s, sensor_type=_sensor_type(row))
    )
    kind = InstigatorType.SCHEDULE if row.is_schedule else InstigatorType.SENSOR
    instance.add_instigator_state(InstigatorState(_origin(row), kind, status, data))
    return True


def status_of(instance: dg.DagsterInstance, row: Automation, now: datetime) -> AutomationStatus:
    """How a schedule or sensor stands at a time."""
    stored = _stored(instance, row)
    is_on = _is_on(row, stored)
    ticks = instance.get_ticks(_origin(row).get_id(), _selector_id(row), limit=1)
    if not ticks:
        return AutomationStatus(row, is_on, _next(row, is_on, None, now), None, "", "", None)
    (tick,) = ticks
    at = datetime.fromtimestamp(tick.timestamp, UTC)
    results = {"STARTED": "under way", "SUCCESS": "requested", "FAILURE": "failed"}
    reason = tick.skip_reason or ""
    if tick.error is not None:
        error = tick.error
        while error.cause is not None:
            error = error.cause
        reason = error.message.strip()
    if tick.run_ids:
        reason = f"run {', '.join(tick.run_ids)}"
    return AutomationStatus(
        row,
        is_on,
        _next(row, is_on, at, now),
        at,
        results.get(tick.status.value, tick.status.value.lower()),
        reason,
        tick.end_timestamp - tick.timestamp if tick.end_timestamp else None,
    )


def _next(row: Automation, is_on: bool, last: datetime | None, now: datetime) -> datetime | None:
    if not is_on:
        return None
    if row.is_schedule:
        return next(schedule_execution_time_iterator(now.timestamp(), row.cron, "UTC"))
    if last is None:
        return None
    return max(now, datetime.fromtimestamp(last.timestamp() + row.every_s, UTC))


def _stored(instance: dg.DagsterInstance, row: Automation) -> InstigatorState | None:
    return instance.get_instigator_state(_origin(row).get_id(), _selector_id(row))


def _is_on(row: Automation, stored: InstigatorState | None) -> bool:
    if stored is None or stored.status is InstigatorStatus.DECLARED_IN_CODE:
        return row.on
    return stored.status is InstigatorStatus.RUNNING


def _origin(row: Automation) -> RemoteInstigatorOrigin:
    return RemoteInstigatorOrigin(_REPOSITORY, row.name)


def _selector_id(row: Automation) -> str:
    return _origin(row).get_selector().get_id()


def _sensor_type(row: Automation) -> SensorType:
    return SensorType.AUTOMATION if row.name == "conditions" else SensorType.STANDARD
