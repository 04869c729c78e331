"""The code location: everything that Dagster shows and runs, assembled by hand."""

from __future__ import annotations

import warnings
from typing import Any

import dagster as dg

# Backfill policies and multi-partition mappings are used knowingly; the versions are pinned.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

from backtest_pipeline.defs.assets.judgement import leaderboard, negative_controls  # noqa: E402
from backtest_pipeline.defs.assets.rollups import portfolio_rollups  # noqa: E402
from backtest_pipeline.defs.assets.stages import (  # noqa: E402
    backtests,
    bars,
    cmc_features,
    signals,
    walk_forward,
)
from backtest_pipeline.defs.automation import (  # noqa: E402
    leaderboard_job,
    negative_controls_job,
    nightly_leaderboard,
    nightly_refresh,
    nightly_replay,
    refresh_job,
    replay_job,
    rollup_after_backtests,
    rollup_job,
    second_opinion_job,
    source_assets,
    walk_forward_job,
    weekly_negative_controls,
    weekly_second_opinion,
    weekly_walk_forward,
)
from backtest_pipeline.defs.checks import CHECKS  # noqa: E402
from backtest_pipeline.defs.io_managers import StageIOManager  # noqa: E402
from backtest_pipeline.defs.resources import (  # noqa: E402
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
]


def build_definitions(**resource_overrides: Any) -> dg.Definitions:
    """All definitions, with other resources in the place of the default ones where named.

    Args:
        resource_overrides: any of `store`, `source`, `simulation`, `walk`.
    """
    store = resource_overrides.pop("store", None) or WorkspaceResource()
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=CHECKS,
        jobs=[
            refresh_job,
            rollup_job,
            second_opinion_job,
            replay_job,
            walk_forward_job,
            leaderboard_job,
            negative_controls_job,
        ],
        schedules=[
            nightly_refresh,
            nightly_leaderboard,
            nightly_replay,
            weekly_second_opinion,
            weekly_walk_forward,
            weekly_negative_controls,
        ],
        sensors=[source_assets, rollup_after_backtests],
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


defs = build_definitions()
