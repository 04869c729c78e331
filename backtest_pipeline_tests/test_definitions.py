"""Nobody changes the graph by accident."""

from __future__ import annotations

import dagster as dg
import pytest

from backtest_pipeline.definitions import ASSETS, build_definitions
from backtest_pipeline.market.features import FEATURE_COLUMNS

GRAPH = {
    "bars": (set(), "market"),
    "cmc_features": ({"bars"}, "market"),
    "signals": ({"cmc_features"}, "research"),
    "backtests": ({"signals"}, "research"),
    "walk_forward": ({"cmc_features"}, "research"),
    "portfolio_rollups": ({"backtests"}, "research"),
    "leaderboard": ({"backtests"}, "research"),
    "negative_controls": ({"bars"}, "research"),
    "restatements": ({"backtests"}, "research"),
    "retention": ({"backtests"}, "research"),
}
UNPARTITIONED = {"leaderboard", "negative_controls", "restatements", "retention"}
STAGES = {"bars", "cmc_features", "signals", "backtests", "walk_forward"}


def _specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for asset in ASSETS for spec in asset.specs}


def test_the_assets_and_what_they_depend_on() -> None:
    found = {
        name: ({dep.asset_key.to_user_string() for dep in spec.deps}, spec.group_name)
        for name, spec in _specs().items()
    }
    assert found == GRAPH


@pytest.mark.parametrize("name", GRAPH)
def test_each_asset_says_what_it_is(name: str) -> None:
    spec = _specs()[name]
    assert spec.description
    assert spec.owners == ["team:quant-research"]
    assert spec.kinds
    assert spec.code_version
    assert spec.metadata["dagster/column_schema"].columns


def test_the_features_asset_lists_all_columns_of_its_table() -> None:
    schema = _specs()["cmc_features"].metadata["dagster/column_schema"]
    assert [(c.name, c.type) for c in schema.columns] == list(FEATURE_COLUMNS)


def test_assets_are_partitioned_by_asset_and_timeframe() -> None:
    for asset in ASSETS:
        partitions = asset.partitions_def
        if asset.key.to_user_string() in STAGES:
            assert isinstance(partitions, dg.MultiPartitionsDefinition)
            assert [d.name for d in partitions.partitions_defs] == ["asset", "timeframe"]
        elif asset.key.to_user_string() in UNPARTITIONED:
            assert partitions is None
        else:
            assert isinstance(partitions, dg.StaticPartitionsDefinition)


def test_nothing_is_pickled() -> None:
    stages = [asset for asset in ASSETS if asset.key.to_user_string() in STAGES]
    managers = {asset.get_io_manager_key_for_asset_key(asset.key) for asset in stages}
    assert len(stages) == len(STAGES)
    assert managers == {"stages"}


def test_the_code_location_loads_with_its_jobs() -> None:
    defs = build_definitions()
    dg.Definitions.validate_loadable(defs)
    assert {job.name for job in defs.jobs or []} == {
        "refresh",
        "rollup",
        "second_opinion",
        "replay_runs",
        "probe_look_ahead",
        "rank_runs",
        "watch_history",
        "remove_old_results",
        "requested",
        "execute",
        "search_no_edge",
        "walk_forwards",
    }
