"""Assets of the user's own read what is stored as frames."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.partitions import by_asset_and_timeframe, timeframes_partitions
from backtest_pipeline.market.errors import UnknownName
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.defs.running import (
    QUIET,
    judged,
    rectangle,
    require_success,
    run_job,
)
from backtest_pipeline_tests.sql import column


def read(instance: dg.DagsterInstance, asset: str, key: str | None = None) -> pd.DataFrame:
    value = build_definitions().load_asset_value(asset, instance=instance, partition_key=key)
    assert isinstance(value, pd.DataFrame)
    return value


def test_each_asset_is_read_as_a_frame(four_store: Database, instance: dg.DagsterInstance) -> None:
    require_success(run_job(instance, "portfolio_rollups_job", rectangle("1D", "1D")))
    require_success(judged(instance, "leaderboard_job", "leaderboard"))
    for asset in ("bars", "cmc_features", "signals", "backtests"):
        one, all_of_it = read(instance, asset, "S-ALPHA|1D"), read(instance, asset)
        assert set(zip(one["asset"], one["tf"], strict=True)) == {("S-ALPHA", "1D")}
        assert {*zip(all_of_it["asset"], all_of_it["tf"], strict=True)} == {
            (name, tf) for name in ("S-ALPHA", "S-BETA") for tf in ("1D", "2D")
        }
        assert read(instance, asset, "S-GAMMA|1D").empty
    ids = column(four_store, "SELECT run_id::text FROM backtest_runs WHERE is_current")
    assert sorted(read(instance, "backtests")["run_id"]) == sorted(ids)
    assert {"sharpe", "total_return", "signal_name"} <= set(read(instance, "backtests"))
    assert len(read(instance, "portfolio_rollups", "1D")) == 7 * 5
    assert len(read(instance, "leaderboard")) == len(ids)
    with pytest.raises(UnknownName, match="retention"):
        read(instance, "retention")


def test_assets_of_the_users_own_take_them_as_arguments(
    four_store: Database, instance: dg.DagsterInstance
) -> None:
    seen: dict[str, Any] = {}

    @dg.asset(partitions_def=by_asset_and_timeframe, backfill_policy=dg.BackfillPolicy.single_run())
    def same_partitions(backtests: pd.DataFrame) -> None:
        seen["same"] = backtests

    @dg.asset(partitions_def=timeframes_partitions)
    def by_timeframe(backtests: pa.Table) -> None:
        seen["timeframe"] = backtests

    @dg.asset
    def of_all(signals, bars) -> None:
        seen["all"] = (signals, bars)

    own = dg.Definitions(assets=[same_partitions, by_timeframe, of_all])
    job = dg.Definitions.merge(build_definitions(), own).resolve_implicit_global_asset_job_def()
    for asset, tags in (
        ("same_partitions", rectangle("S-ALPHA|2D", "S-BETA|2D")),
        ("by_timeframe", {"dagster/partition": "1D"}),
        ("of_all", {}),
    ):
        chosen = job.get_subset(asset_selection={dg.AssetKey(asset)})
        require_success(chosen.execute_in_process(QUIET, instance=instance, tags=tags))
    assert set(seen["same"]["asset"]) == {"S-ALPHA", "S-BETA"}
    assert set(seen["same"]["tf"]) == {"2D"}
    assert isinstance(seen["timeframe"], pa.Table)
    assert set(seen["timeframe"]["tf"].to_pylist()) == {"1D"}
    signals, bars = seen["all"]
    assert set(signals["asset"]) == set(bars["asset"]) == {"S-ALPHA", "S-BETA"}
