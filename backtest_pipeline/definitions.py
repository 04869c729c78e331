"""The code location: what the modules of `defs` declare, with its resources.

Every asset, check, job, schedule and sensor in those modules is loaded; none is registered by hand.
"""

from __future__ import annotations

import os
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import dagster as dg

from backtest_pipeline.defs.beta import beta_used_knowingly, ignore_beta_warnings
from backtest_pipeline.pipeline.workspace import use_strategies
from backtest_pipeline.storage import PRIVATE
from backtest_pipeline.storage.logs import hide_secrets
from backtest_pipeline.storage.settings import load_settings

with beta_used_knowingly():
    from backtest_pipeline.defs import asset_checks, assets, external, jobs, schedules, sensors
    from backtest_pipeline.defs.automation import (
        automation_conditions,
        backfills,
        partition_freshness,
        run_failures,
    )
    from backtest_pipeline.defs.automation.selections import STAGES
    from backtest_pipeline.defs.code_versions import with_code_of_strategies
    from backtest_pipeline.defs.io_managers import StageIOManager
    from backtest_pipeline.defs.resources import (
        SimulationResource,
        SourceResource,
        WalkForwardResource,
        WorkspaceResource,
    )
    from backtest_pipeline.defs.stored_events import lineages_of

    _AUTOMATION = [automation_conditions, backfills, partition_freshness, run_failures]
    _OF_ASSETS = [
        import_module(f"{assets.__name__}.{found.name}") for found in iter_modules(assets.__path__)
    ]


def build_definitions(**resource_overrides: Any) -> dg.Definitions:
    """All definitions, with the given resources instead of the default ones.

    If the settings name an external feature table, it replaces bars and the features built from
    them. Code versions are of the user's own strategies as they are now.

    Args:
        resource_overrides: any of `store`, `source`, `simulation`, `walk`.
    """
    settings = load_settings()
    use_strategies(settings)
    names = settings.external
    modules = [*_OF_ASSETS, asset_checks, jobs, schedules, sensors, *_AUTOMATION]
    with beta_used_knowingly():
        if names is None:
            declared = dg.load_definitions_from_modules(modules)
        else:
            declared = dg.load_definitions_from_modules([*modules, external])
            declared = external.on_external_features(declared, names)
        declared = with_code_of_strategies(declared)
    store = resource_overrides.pop("store", None) or WorkspaceResource()
    resources = {
        "store": store,
        "source": SourceResource(),
        "simulation": SimulationResource(),
        "walk": WalkForwardResource(),
        STAGES: StageIOManager.configure_at_launch(store=store),
        "lineages": lineages_of(declared),
        **resource_overrides,
    }
    shared = dg.Definitions(executor=dg.in_process_executor, resources=resources)
    return dg.Definitions.merge(declared, shared)


@dg.definitions
def defs() -> dg.Definitions:
    """The code location, for the processes that Dagster starts; it begins them.

    Secrets are hidden from here on, whatever handlers Dagster and libraries have. A program of
    your own calls `build_definitions()`, which changes nothing in its process.
    """
    os.umask(PRIVATE)
    hide_secrets()
    ignore_beta_warnings()
    return build_definitions()
