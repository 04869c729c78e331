"""Automation conditions: why Dagster would compute a partition, and the sensor that does so.

The schedules of backfills do not need them. They are there to be looked at: an asset's page says of
each partition which of its inputs has changed.
"""

import dagster as dg

from backtest_pipeline.defs.automation.declared import as_sensor

# Not `eager()` as it is, which requests a partition whose input was stored again unchanged.
INPUT_CHANGED = (
    dg.AutomationCondition.eager()
    .replace("newly_updated", dg.AutomationCondition.data_version_changed())
    .with_label("an input has another data version")
)

conditions = dg.AutomationConditionSensorDefinition(
    target=dg.AssetSelection.all(), **as_sensor("conditions")
)
