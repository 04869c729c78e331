"""Schedules and sensors with the name, time and description that their row of the table has."""

from __future__ import annotations

from typing import Any

import dagster as dg

from backtest_pipeline.defs.automation.table import automation


def as_schedule(name: str) -> dict[str, Any]:
    """The arguments of `dagster.schedule` that the row of this name declares."""
    row = automation(name)
    return {
        "name": name,
        "cron_schedule": row.cron,
        "execution_timezone": "UTC",
        "description": row.description,
        "default_status": dg.DefaultScheduleStatus.RUNNING
        if row.on
        else dg.DefaultScheduleStatus.STOPPED,
    }


def as_sensor(name: str) -> dict[str, Any]:
    """The arguments of `dagster.sensor` that the row of this name declares."""
    row = automation(name)
    return {
        "name": name,
        "minimum_interval_seconds": row.every_s,
        "description": row.description,
        "default_status": dg.DefaultSensorStatus.RUNNING
        if row.on
        else dg.DefaultSensorStatus.STOPPED,
    }
