"""Asset checks: grain and bounds of what each asset owns."""

import dagster as dg

from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.pipeline.checks import CHECKED, check_dataset


def _check_of(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="grain_and_bounds",
        blocking=True,
        description="No duplicate key, no row without what it refers to, no value out of bounds; "
        "what depends on the asset does not run where one is found.",
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


CHECKS = [_check_of(asset) for asset in CHECKED]
