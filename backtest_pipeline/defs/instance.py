"""Settings of the Dagster instance, whose storage is in the project's own database."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from backtest_pipeline.defs.processes.instance_file import (
    MODULE,
    STORAGES,
    InstanceFile,
    read_file,
    renew,
)
from backtest_pipeline.market.errors import ConfigurationError
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.settings import Settings


def dagster_home(settings: Settings) -> Path:
    """The folder that `DAGSTER_HOME` names, or else the project's own, with its `dagster.yaml`.

    Raises:
        ConfigurationError: if the project's own file cannot be written, or is not valid.
    """
    return instance_file(settings).path.parent


def instance_file(settings: Settings) -> InstanceFile:
    """The `dagster.yaml` in use; the project's own is written, or renewed where nobody edited it.

    Raises:
        ConfigurationError: as `dagster_home`.
    """
    path = _chosen_home(settings) / "dagster.yaml"
    return renew(path) if _is_own(settings) else read_file(path, is_own=False)


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
        ConfigurationError: if `dagster.yaml` is not valid.
    """
    file = instance_file(settings)
    if not _is_own(settings):
        return dg.DagsterInstance.get()
    config = {"postgres_url": database.dagster_url()}
    reached = {
        name: {"module": MODULE, "class": kind, "config": config}
        for name, kind in STORAGES.items()
        if file.names(name) and "config" not in file.sections[name]
    }
    try:
        # Not temporary despite the name: the public way to open one by folder and settings.
        return dg.DagsterInstance.local_temp(str(file.path.parent), overrides=reached)
    except dg.DagsterInvalidConfigError as error:
        raise ConfigurationError(f"{file.path} is not valid: {error}") from error


def output_of_runs(settings: Settings) -> Path:
    """The folder in which each run has one with the output of its processes."""
    return _chosen_home(settings) / "storage"


def _chosen_home(settings: Settings) -> Path:
    return Path(os.environ.get("DAGSTER_HOME") or _own_home(settings))


def _is_own(settings: Settings) -> bool:
    return _chosen_home(settings) == _own_home(settings)


def _own_home(settings: Settings) -> Path:
    return settings.home / "dagster"
