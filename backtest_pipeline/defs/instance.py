"""Settings of the Dagster instance, whose storage is in the project's own database."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from backtest_pipeline.defs.processes.instance_check import refusal_of
from backtest_pipeline.defs.processes.instance_file import (
    MODULE,
    STORAGES,
    InstanceFile,
    broken,
    read_file,
    renew,
)
from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import Settings


def dagster_home(settings: Settings) -> Path:
    """The folder that `DAGSTER_HOME` names, or else the project's own, with its `dagster.yaml`.

    Raises:
        ConfigurationError: as `valid_instance_file`.
    """
    return valid_instance_file(settings).path.parent


def instance_file(settings: Settings) -> InstanceFile:
    """The `dagster.yaml` in use; the project's own is written, or renewed where nobody edited it.

    Raises:
        ConfigurationError: if the project's own cannot be written, or the file is no YAML.
    """
    path = _chosen_home(settings) / "dagster.yaml"
    return renew(path) if _is_own(settings) else read_file(path, is_own=False)


def valid_instance_file(settings: Settings) -> InstanceFile:
    """The `dagster.yaml` in use, which Dagster takes: its settings, and the classes that it names.

    Raises:
        ConfigurationError: as `instance_file`; if Dagster would refuse the file; if `DAGSTER_HOME`
            does not name a folder by its absolute path.
    """
    file = instance_file(settings)
    folder = file.path.parent
    if not file.is_own and not (folder.is_absolute() and folder.is_dir()):
        raise ConfigurationError(
            f"DAGSTER_HOME names {folder}, which is no folder by its absolute path; make it, or "
            "unset the variable to have the instance of the store"
        )
    why = refusal_of(folder)
    if why is not None:
        raise ConfigurationError(broken(file.path, why, is_own=file.is_own))
    return file


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

    If `DAGSTER_HOME` is set to another folder, the instance configured there is opened instead. In
    an edited `dagster.yaml` of the project's own, what it names is opened.

    Raises:
        ConfigurationError: as `valid_instance_file`.
    """
    file = valid_instance_file(settings)
    if not _is_own(settings):
        return dg.DagsterInstance.get()
    config = {"postgres_url": database.dagster_url()}
    reached = {
        name: {"module": MODULE, "class": kind, "config": config}
        for name, kind in STORAGES.items()
        if file.names(name) and "config" not in file.sections[name]
    }
    # Not temporary despite the name: the public way to open one by folder and settings.
    return dg.DagsterInstance.local_temp(str(file.path.parent), overrides=reached)


def output_of_runs(settings: Settings) -> Path:
    """The folder in which each run has one with the output of its processes."""
    return _chosen_home(settings) / "storage"


def _chosen_home(settings: Settings) -> Path:
    named = os.environ.get("DAGSTER_HOME")
    return Path(named).expanduser() if named else _own_home(settings)


def _is_own(settings: Settings) -> bool:
    return _chosen_home(settings) == _own_home(settings)


def _own_home(settings: Settings) -> Path:
    return settings.home / "dagster"
