"""The instance that the values for Dagster's chart make is like that of `up`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from backtest_pipeline.defs.processes.instance_file import DAGSTER_YAML
from backtest_pipeline.storage.postgres.database import Database
from deploy.images import read_values

VALUES = read_values("values-dagster.yaml")
ADDED = VALUES["additionalInstanceConfig"]
OURS: dict[str, Any] = yaml.safe_load(DAGSTER_YAML)
# What the chart writes before what the values add, with a database that there is not.
_PLAIN = """\
{name}:
  module: dagster_postgres.{name}
  class: {kind}
  config:
    postgres_db: {{username: unused, password: {{env: DAGSTER_PG_PASSWORD}}, hostname: unused,
      db_name: unused, port: 5432, params: {{}}}}
"""
_BEFORE = "".join(
    _PLAIN.format(name=name, kind=kind)
    for name, kind in {
        "schedule_storage": "PostgresScheduleStorage",
        "run_storage": "PostgresRunStorage",
        "event_log_storage": "PostgresEventLogStorage",
    }.items()
).replace("dagster_postgres.event_log_storage", "dagster_postgres.event_log")
_QUEUE = """\
run_coordinator:
  module: dagster._core.run_coordinator
  class: QueuedRunCoordinator
  config: {max_concurrent_runs: -1, dequeue_use_threads: true, dequeue_num_workers: 4}
"""


def test_the_later_entries_count(
    dagster_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the chart writes them: Dagster's own first, then ours."""
    (tmp_path / "dagster.yaml").write_text(_BEFORE + _QUEUE + yaml.safe_dump(ADDED))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "unused")
    monkeypatch.setenv("BACKTEST_RUN_STORE_MODE", "postgres")
    monkeypatch.setenv("BACKTEST_POSTGRES_DSN", dagster_database.conninfo)
    with dg.DagsterInstance.get() as instance:
        parts = (instance, instance.run_storage, instance.event_log_storage)
        names = [type(part).__name__ for part in (*parts, instance.schedule_storage)]
        assert names == [
            OURS[part]["class"]
            for part in ("instance_class", "run_storage", "event_log_storage", "schedule_storage")
        ]
        assert instance.get_run_records(limit=1) == []  # asked of the store
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == -1
        assert queue.tag_concurrency_limits == [{"key": "dagster/code_location", "limit": 4}]
        assert queue.max_user_code_failure_retries == 30
        assert not instance.nux_enabled


def test_all_else_is_as_in_the_instance_of_up() -> None:
    for part in ("run_storage", "event_log_storage", "schedule_storage", "instance_class", "nux"):
        assert ADDED[part] == OURS[part]
    retried = {name: ADDED["run_coordinator"]["config"][name] for name in OURS["run_queue"]}
    assert retried == OURS["run_queue"]
    assert VALUES["telemetry"] == OURS["telemetry"]
    loggers = OURS["python_logs"]["managed_python_loggers"]
    assert VALUES["pythonLogs"]["managedPythonLoggers"] == loggers
    for ours, theirs in (("schedule", "schedule"), ("sensor", "sensor")):
        kept = VALUES["retention"][theirs]["purgeAfterDays"]
        assert kept == {**OURS["retention"][ours]["purge_after_days"], "started": -1}
    kept = VALUES["retention"]["autoMaterialize"]["purgeAfterDays"]
    assert kept == {**OURS["retention"]["auto_materialize"]["purge_after_days"], "started": -1}
    monitoring = VALUES["dagsterDaemon"]["runMonitoring"]
    assert monitoring["maxRuntimeSeconds"] == OURS["run_monitoring"]["max_runtime_seconds"]
    assert monitoring["cancelTimeoutSeconds"] == OURS["run_monitoring"]["cancel_timeout_seconds"]
    retries = VALUES["dagsterDaemon"]["runRetries"]
    assert retries["maxRetries"] == OURS["run_retries"]["max_retries"]
    again = OURS["run_retries"]["retry_on_asset_or_op_failure"]
    assert retries["retryOnAssetOrOpFailure"] is again
