"""Settings of the Dagster instance, whose storage is in the project's own database."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import Settings

_MODULE = "backtest_pipeline.defs.dagster_storage"
_STORAGES = {
    "run_storage": "KeptRunStorage",
    "event_log_storage": "BatchingEventLogStorage",
    "schedule_storage": "KeptScheduleStorage",
}
# Without a URL: each process takes that of the store from its settings, so that no file and no list
# of processes has the password.
_NAMED = "\n".join(
    f"{name}: {{ module: {_MODULE}, class: {kind} }}" for name, kind in _STORAGES.items()
)
DAGSTER_YAML = f"""\
{_NAMED}
instance_class:
  module: {_MODULE}
  class: BatchingInstance
run_launcher:
  module: backtest_pipeline.defs.launcher
  class: SupervisedRunLauncher
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    # Launched runs carry this tag; those that a command executes in its own process do not, and
    # wait in no queue.
    max_concurrent_runs: -1
    tag_concurrency_limits:
      - key: dagster/code_location
        limit: 2
run_queue:
  # A run whose code server is being started again goes back to the queue, for some minutes.
  max_user_code_failure_retries: 30
  user_code_failure_retry_delay: 6
run_monitoring:
  enabled: true
  start_timeout_seconds: 180
  cancel_timeout_seconds: 60
  max_runtime_seconds: 14400
  poll_interval_seconds: 10
  free_slots_after_run_end_seconds: 10
run_retries:
  enabled: true
  max_retries: 0
  retry_on_asset_or_op_failure: false
retention:
  schedule:
    purge_after_days: {{ skipped: 1, success: 7, failure: 30 }}
  sensor:
    purge_after_days: {{ skipped: 1, success: 7, failure: 30 }}
  auto_materialize:
    purge_after_days: {{ skipped: 1, success: 7, failure: 30 }}
python_logs:
  managed_python_loggers:
    - backtest_pipeline
"""


def dagster_home(settings: Settings) -> Path:
    """The folder that `DAGSTER_HOME` names, or else the project's own, with its `dagster.yaml`."""
    home = _chosen_home(settings)
    if home == _own_home(settings):
        _write_if_other(home / "dagster.yaml", DAGSTER_YAML)
    return home


def workspace_file() -> Path:
    """The file that names the code location: in the installed package, or beside it in a checkout.

    Every process that loads the code location does so by this file, so that the location has one
    name, by which Dagster knows runs, schedules and sensors again.
    """
    package = Path(__file__).parents[1]
    for folder in (package, package.parent):
        if (folder / "workspace.yaml").is_file():
            return folder / "workspace.yaml"
    raise ConfigurationError(f"no workspace.yaml in {package} or beside it; reinstall the package")


def open_instance(settings: Settings, database: Database) -> dg.DagsterInstance:
    """Open this project's Dagster instance in this process, without touching its environment.

    If `DAGSTER_HOME` is set to another folder, the instance configured there is opened instead.
    """
    home = dagster_home(settings)
    if home != _own_home(settings):
        return dg.DagsterInstance.get()
    config = {"postgres_url": database.dagster_url()}
    reached = {
        name: {"module": _MODULE, "class": kind, "config": config}
        for name, kind in _STORAGES.items()
    }
    # Not temporary despite the name: the public way to open an instance by folder and settings.
    return dg.DagsterInstance.local_temp(str(home), overrides=reached)


def output_of_runs(settings: Settings) -> Path:
    """The folder in which each run has one with the output of its processes."""
    return _chosen_home(settings) / "storage"


def _chosen_home(settings: Settings) -> Path:
    return Path(os.environ.get("DAGSTER_HOME") or _own_home(settings))


def _own_home(settings: Settings) -> Path:
    return settings.home / "dagster"


def _write_if_other(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
