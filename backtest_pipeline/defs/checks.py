"""Asset checks: grain and bounds of what each asset owns."""

import dagster as dg

from backtest_pipeline.defs.resources import SimulationResource, WorkspaceResource
from backtest_pipeline.pipeline.checks import CHECKED, check_dataset
from backtest_pipeline.pipeline.second_opinion import TOLERANCE
from backtest_pipeline.pipeline.second_opinion import second_opinion as replayed

_GRAIN = (
    "No duplicate key, no row without what it refers to, no value out of bounds; what depends on "
    "the asset does not run where one is found."
)
_ABOUT = {
    "walk_forward": "Every out-of-sample bar is used once, none is left out between two tests, "
    "none was trained on in its fold, and the stitched run consists of just these bars."
}


def _check_of(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="grain_and_bounds",
        blocking=True,
        description=_ABOUT.get(asset, _GRAIN),
    )
    def grain_and_bounds(store: WorkspaceResource) -> dg.AssetCheckResult:
        found = check_dataset(store.workspace, asset)
        broken = sum(found.values())
        return dg.AssetCheckResult(
            passed=broken == 0,
            metadata=dict(found),
            description=f"{broken} rows break a rule" if broken else "all rules hold",
        )

    return grain_and_bounds


@dg.asset_check(
    asset="backtests",
    name="second_opinion",
    description="vectorbt replays the orders of a sample of stored runs and comes to the same "
    f"return within {TOLERANCE:g}.",
)
def second_opinion(store: WorkspaceResource, simulation: SimulationResource) -> dg.AssetCheckResult:
    found = replayed(store.workspace, simulation.config())
    return dg.AssetCheckResult(
        passed=not found.disagreeing and found.worst_size <= TOLERANCE,
        metadata={
            "partitions": found.partitions,
            "runs": found.runs,
            "worst_size": found.worst_size,
            "worst_return": found.worst_return,
            "disagreeing": list(found.disagreeing),
        },
        description=f"{len(found.disagreeing)} of {found.runs} runs disagree",
    )


CHECKS = [*(_check_of(asset) for asset in CHECKED), second_opinion]
