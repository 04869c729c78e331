"""What the code location declares; `docs/reference/dagster.md` is the snapshot of it."""

from __future__ import annotations

import dagster as dg
import pytest

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.partitions import by_asset_and_timeframe, timeframes_partitions
from backtest_pipeline.market.features import FEATURE_COLUMNS

ASSETS = [a for a in build_definitions().assets or () if isinstance(a, dg.AssetsDefinition)]
SPECS = {spec.key.to_user_string(): spec for asset in ASSETS for spec in asset.specs}


@pytest.mark.parametrize("name", SPECS)
def test_each_asset_says_what_it_is(name: str) -> None:
    spec = SPECS[name]
    assert spec.description
    assert spec.group_name in ("market", "research", "strategist")
    assert spec.owners == ["team:quant-research"]
    assert spec.kinds
    assert spec.code_version
    assert spec.metadata["dagster/column_schema"].columns


def test_the_features_asset_lists_all_columns_of_its_table() -> None:
    schema = SPECS["cmc_features"].metadata["dagster/column_schema"]
    assert [(c.name, c.type) for c in schema.columns] == list(FEATURE_COLUMNS)


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.key.to_user_string())
def test_partitions_are_assets_and_timeframes_and_nothing_is_pickled(
    asset: dg.AssetsDefinition,
) -> None:
    assert asset.partitions_def in (None, timeframes_partitions, by_asset_and_timeframe)
    if asset.partitions_def is by_asset_and_timeframe:
        assert asset.get_io_manager_key_for_asset_key(asset.key) == "stages"
        assert asset.backfill_policy == dg.BackfillPolicy.single_run()


def test_the_code_location_loads_and_each_schedule_has_its_job() -> None:
    definitions = build_definitions()
    dg.Definitions.validate_loadable(definitions)
    jobs = {job.name for job in definitions.jobs or ()}
    schedules = definitions.schedules or ()
    assert schedules
    for schedule in schedules:
        assert isinstance(schedule, dg.ScheduleDefinition)
        assert schedule.job_name in jobs
        assert schedule.description
