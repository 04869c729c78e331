"""The code location: everything that Dagster shows and runs, assembled by hand."""

from __future__ import annotations

from typing import Any

import dagster as dg

from backtest_pipeline.defs.beta import beta_used_knowingly, ignore_beta_warnings
from backtest_pipeline.storage.external.names import ExternalNames
from backtest_pipeline.storage.logs import hide_secrets
from backtest_pipeline.storage.settings import load_settings

with beta_used_knowingly():
    from backtest_pipeline.defs.assets.judgement import leaderboard, negative_controls
    from backtest_pipeline.defs.assets.restatements import restatements
    from backtest_pipeline.defs.assets.retention import retention
    from backtest_pipeline.defs.assets.rollups import portfolio_rollups
    from backtest_pipeline.defs.assets.stages import (
        backtests,
        bars,
        cmc_features,
        signals,
        walk_forward,
    )
    from backtest_pipeline.defs.automation import (
        leaderboard_job,
        look_ahead_job,
        negative_controls_job,
        nightly_leaderboard,
        nightly_refresh,
        nightly_replay,
        nightly_restatements,
        nightly_retention,
        refresh_job,
        replay_job,
        restatements_job,
        retention_job,
        rollup_after_backtests,
        rollup_job,
        second_opinion_job,
        source_assets,
        walk_forward_job,
        weekly_look_ahead,
        weekly_negative_controls,
        weekly_second_opinion,
        weekly_walk_forward,
    )
    from backtest_pipeline.defs.checks import CHECKS, SNAPSHOTS_CHECK
    from backtest_pipeline.defs.external import external_chain, watermark_sensor
    from backtest_pipeline.defs.io_managers import StageIOManager
    from backtest_pipeline.defs.jobs import execute_job, requested_job, requested_jobs
    from backtest_pipeline.defs.resources import (
        SimulationResource,
        SourceResource,
        WalkForwardResource,
        WorkspaceResource,
    )

ASSETS: list[dg.AssetsDefinition] = [
    bars,
    cmc_features,
    signals,
    backtests,
    walk_forward,
    portfolio_rollups,
    leaderboard,
    negative_controls,
    restatements,
    retention,
]


def _chain(external: ExternalNames | None) -> dict[str, Any]:
    """Assets, checks and sensors, whether features are built here or are the user's own."""
    if external is None:
        return {
            "assets": [*ASSETS],
            "asset_checks": [*CHECKS],
            "sensors": [source_assets, rollup_after_backtests, requested_jobs],
        }
    replaced = external_chain(external)
    keys = {asset.key for asset in replaced} | {bars.key}
    return {
        "assets": [*replaced, *(asset for asset in ASSETS if asset.key not in keys)],
        "asset_checks": [
            SNAPSHOTS_CHECK,
            *(check for check in CHECKS if cmc_features.key not in _checked_by(check)),
        ],
        "sensors": [watermark_sensor, rollup_after_backtests, requested_jobs],
    }


def _checked_by(check: dg.AssetChecksDefinition) -> set[dg.AssetKey]:
    return {key.asset_key for key in check.check_keys}


def build_definitions(**resource_overrides: Any) -> dg.Definitions:
    """All definitions, with other resources in the place of the default ones where named.

    Where the settings name a table of features of the user's own, that takes the place of bars
    and of the features that are built of them.

    Args:
        resource_overrides: any of `store`, `source`, `simulation`, `walk`.
    """
    store = resource_overrides.pop("store", None) or WorkspaceResource()
    return dg.Definitions(
        **_chain(load_settings().external),
        jobs=[
            refresh_job,
            rollup_job,
            second_opinion_job,
            replay_job,
            look_ahead_job,
            walk_forward_job,
            leaderboard_job,
            negative_controls_job,
            restatements_job,
            retention_job,
            requested_job,
            execute_job,
        ],
        schedules=[
            nightly_refresh,
            nightly_leaderboard,
            nightly_restatements,
            nightly_retention,
            nightly_replay,
            weekly_second_opinion,
            weekly_look_ahead,
            weekly_walk_forward,
            weekly_negative_controls,
        ],
        executor=dg.in_process_executor,
        resources={
            "store": store,
            "source": SourceResource(),
            "simulation": SimulationResource(),
            "walk": WalkForwardResource(),
            "stages": StageIOManager(store=store),
            **resource_overrides,
        },
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The code location, for the processes that Dagster starts; it begins them.

    Secrets are hidden from here on, whatever handlers Dagster and libraries have. A program of
    your own calls `build_definitions()`, which changes nothing in its process.
    """
    hide_secrets()
    ignore_beta_warnings()
    return build_definitions()
