"""A partition is requested where an input has another data version, not where it has the same."""

import dagster as dg
import pytest

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.partitions import register_partitions

CHAIN = ("bars", "cmc_features", "signals", "backtests")


def stored(instance: dg.DagsterInstance, asset: str, version: str) -> None:
    event = dg.AssetMaterialization(
        asset, partition="BTC|1D", tags={"dagster/data_version": version}
    )
    instance.report_runless_asset_event(event)


@pytest.mark.usefixtures("store")
def test_a_changed_input_is_requested_and_the_same_again_is_not() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        register_partitions(instance, ["BTC"], ["1D"])
        declared = build_definitions()
        for asset in CHAIN:
            stored(instance, asset, "1")
        seen = dg.evaluate_automation_conditions(declared, instance)
        assert seen.total_requested == 0
        stored(instance, "bars", "1")
        seen = dg.evaluate_automation_conditions(declared, instance, cursor=seen.cursor)
        assert seen.total_requested == 0
        stored(instance, "bars", "2")
        seen = dg.evaluate_automation_conditions(declared, instance, cursor=seen.cursor)
        for asset in CHAIN[1:]:
            assert seen.get_requested_partitions(dg.AssetKey(asset)) == {"BTC|1D"}
        (sensor,) = [s for s in declared.sensors or () if s.name == "conditions"]
        assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
