"""Whether Dagster takes a `dagster.yaml`: what it sets, and the classes that it names.

Dagster loads some of these classes when it is opened and others once they are needed, and where one
is not there its error names no file.

It uses private parts of Dagster, because no public API does this without opening the storages:
`InstanceRef`, `process_config` and the base class of each part. For the reasons, and when this can
be removed, see docs/adr/0001-private-dagster.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import dagster as dg
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher.base import RunLauncher
from dagster._core.run_coordinator.base import RunCoordinator
from dagster._core.scheduler.scheduler import Scheduler
from dagster._core.secrets.loader import SecretsLoader
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._core.storage.defs_state.base import DefsStateStorage
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.runs.base import RunStorage
from dagster._core.storage.schedules.base import ScheduleStorage
from dagster._serdes import ConfigurableClassData
from dagster._serdes.config_class import class_from_code_pointer

_KINDS: Mapping[str, type] = {
    "custom_instance_class_data": dg.DagsterInstance,
    "run_storage_data": RunStorage,
    "event_storage_data": EventLogStorage,
    "schedule_storage_data": ScheduleStorage,
    "storage_data": DagsterStorage,
    "run_launcher_data": RunLauncher,
    "run_coordinator_data": RunCoordinator,
    "scheduler_data": Scheduler,
    "compute_logs_data": ComputeLogManager,
    "local_artifact_storage_data": LocalArtifactStorage,
    "secrets_loader_data": SecretsLoader,
    "defs_state_storage_data": DefsStateStorage,
}


def refusal_of(folder: Path) -> str | None:
    """Why Dagster would refuse the `dagster.yaml` of a folder, in one line; None where it takes it.

    No storage is opened, and no database asked. A folder without the file has Dagster's defaults.
    """
    try:
        ref = InstanceRef.from_dir(str(folder))
        for name, kind in _KINDS.items():
            data = getattr(ref, name)
            if data is not None:
                _require(data, kind)
    # A module that the file names may fail with anything when it is imported.
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _require(data: ConfigurableClassData, kind: type) -> None:
    """Do what Dagster does to load a class that a file names, up to making one of it."""
    named = cast("Any", class_from_code_pointer(data.module_name, data.class_name))
    if not (isinstance(named, type) and issubclass(named, kind)):
        raise TypeError(f"{data.module_name}.{data.class_name} is no {kind.__name__} of Dagster's")
    if kind is dg.DagsterInstance:  # its settings are those of the file
        return
    result = process_config(resolve_to_config_type(named.config_type()), data.config_dict)
    if not result.success:
        raise dg.DagsterInvalidConfigError(
            f"settings of {data.module_name}.{data.class_name}:", result.errors, data.config_dict
        )
