"""Dagster's own storage and settings, kept beside the project's store."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from backtest_pipeline.storage.database import Database
from backtest_pipeline.storage.settings import Settings

URL_VARIABLE = "DAGSTER_PG_URL"

# The URL is named, never written: it would show in the arguments of every Dagster process.
_CONFIG = f"config: {{ postgres_url: {{ env: {URL_VARIABLE} }} }}"
DAGSTER_YAML = f"""\
run_storage:
  module: dagster_postgres.run_storage
  class: PostgresRunStorage
  {_CONFIG}
event_log_storage:
  module: backtest_pipeline.defs.event_log
  class: BatchingEventLogStorage
  {_CONFIG}
schedule_storage:
  module: dagster_postgres.schedule_storage
  class: PostgresScheduleStorage
  {_CONFIG}
run_launcher:
  module: backtest_pipeline.defs.launcher
  class: SupervisedRunLauncher
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 2
run_monitoring:
  enabled: true
  start_timeout_seconds: 180
  cancel_timeout_seconds: 60
  max_runtime_seconds: 14400
  free_slots_after_run_end_seconds: 10
run_retries:
  enabled: true
  max_retries: 0
  retry_on_asset_or_op_failure: false
python_logs:
  managed_python_loggers:
    - backtest_pipeline
"""


def dagster_environment(settings: Settings, database: Database) -> dict[str, str]:
    """Environment for Dagster's processes; writes `dagster.yaml` where it is not there yet.

    A `DAGSTER_HOME` that is set already is left as it is.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        folder = settings.home / "dagster"
        _write_if_other(folder / "dagster.yaml", DAGSTER_YAML)
        home = str(folder)
    return {
        "DAGSTER_HOME": home,
        URL_VARIABLE: os.environ.get(URL_VARIABLE) or database.dagster_url(),
        # One insert for many events: a range run logs one per partition.
        "DAGSTER_EVENT_BATCH_SIZE": os.environ.get("DAGSTER_EVENT_BATCH_SIZE", "500"),
    }


def open_instance(settings: Settings, database: Database) -> dg.DagsterInstance:
    """The Dagster instance of this project, in this process."""
    os.environ.update(dagster_environment(settings, database))
    return dg.DagsterInstance.get()


def _write_if_other(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
