"""On the project's own instance, only what changed is reported, and all looks as if all were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from backtest_pipeline.defs import stored_events
from backtest_pipeline.defs.event_log.partition_log import PartitionLog
from backtest_pipeline.defs.event_log.reported_partitions import ReportedPartitions
from backtest_pipeline.defs.instance import open_instance
from backtest_pipeline.defs.partitions import by_asset_and_timeframe, register_partitions
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.storage.postgres.database import Database, open_database
from backtest_pipeline.storage.settings import load_settings
from backtest_pipeline_tests.cli.files import put
from backtest_pipeline_tests.defs.chain_shown import (
    ALL,
    ASSETS,
    CHAIN,
    KEYS,
    bars_of,
    folder_of_bars,
    keep,
    stale,
    states,
)
from backtest_pipeline_tests.defs.running import rectangle, require_success, run_job, told
from backtest_pipeline_tests.sql import count, execute_sql

FEW_PRESETS = "UPDATE dim_signals SET is_active = FALSE WHERE signal_id > 2"
GREEN = dict.fromkeys(KEYS, "MATERIALIZED")
PLANNED = "dagster.event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED'"


@pytest.fixture
def bars(store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BACKTEST_BARS", str(tmp_path / "bars"))
    execute_sql(store, FEW_PRESETS)
    return folder_of_bars(tmp_path / "bars")


@pytest.fixture
def instance(
    bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The project's own, in Postgres, after a refresh of all."""
    monkeypatch.setenv("BACKTEST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings = load_settings()
    with closing(open_database(settings)) as database, open_instance(settings, database) as opened:
        register_partitions(opened, ASSETS)
        require_success(run_job(opened, "refresh", ALL))
        assert {asset: states(opened, asset) for asset in CHAIN} == dict.fromkeys(CHAIN, GREEN)
        yield opened


def news(instance: dg.DagsterInstance, run: dg.ExecuteInProcessResult) -> dict[str, set[str]]:
    found = {asset: set(told(instance, run, asset)) for asset in CHAIN}
    return {asset: keys for asset, keys in found.items() if keys}


def all_green(instance: dg.DagsterInstance) -> bool:
    return all(states(instance, asset) == GREEN for asset in CHAIN) and not stale(instance)


def test_what_is_the_same_is_not_reported_and_looks_the_same(
    store: Database, bars: Path, instance: dg.DagsterInstance
) -> None:
    planned = count(store, PLANNED)
    again = run_job(instance, "refresh", ALL)
    require_success(again)
    assert not news(instance, again)
    assert count(store, PLANNED) == planned, "what was planned in vain is taken back"
    assert all_green(instance)
    keep(bars, "BBB", bars_of("BBB", 1.37))
    changed = run_job(instance, "refresh", ALL)
    require_success(changed)
    assert news(instance, changed) == {asset: {"BBB|1D"} for asset in CHAIN}
    assert all_green(instance)


def test_what_is_asked_for_one_by_one_or_anew_is_reported_again(
    instance: dg.DagsterInstance,
) -> None:
    """A backfill counts events; one partition has its tables and chart; a rebuild was wanted."""
    backfill = run_job(instance, "refresh", {**ALL, "dagster/backfill": "abc"})
    require_success(backfill)
    assert news(instance, backfill) == dict.fromkeys(CHAIN, KEYS)
    single = run_job(instance, "refresh", rectangle("AAA|1D", "AAA|1D"))
    require_success(single)
    assert news(instance, single) == {asset: {"AAA|1D"} for asset in CHAIN}
    rebuild = {"ops": {asset: {"config": {"full_rebuild": True}} for asset in CHAIN}}
    rebuilt = run_job(instance, "refresh", ALL, rebuild)
    require_success(rebuilt)
    assert news(instance, rebuilt) == dict.fromkeys(CHAIN, KEYS)
    assert all_green(instance)


def test_one_partition_is_reported_though_its_daily_bars_go_with_it(
    instance: dg.DagsterInstance,
) -> None:
    for _ in range(2):
        run = run_job(instance, "refresh", rectangle("AAA|1W", "AAA|1W"))
        require_success(run)
        assert news(instance, run) == {asset: {"AAA|1W"} for asset in CHAIN}
        for asset in CHAIN:
            assert told(instance, run, asset)["AAA|1W"].metadata["partitions"].value in (1, 2)
    assert all_green(instance)


def test_a_run_that_fails_turns_red_what_failed_and_what_is_mended_turns_green(
    bars: Path, instance: dg.DagsterInstance
) -> None:
    good = bars_of("BBB")
    keep(bars, "BBB", put(good, "low", -1.0, slice(None)))
    failed = run_job(instance, "refresh", ALL)
    assert not failed.success
    assert not news(instance, failed)
    for asset in CHAIN:
        assert states(instance, asset) == {**GREEN, "BBB|1D": "FAILED"}
    keep(bars, "BBB", good)  # and its rows are those that are stored, and reported long ago
    mended = run_job(instance, "refresh", ALL)
    require_success(mended)
    assert {"BBB|1D"} <= news(instance, mended)["bars"]
    assert all_green(instance)


def test_a_run_that_dies_leaves_green_what_it_found_the_same(
    bars: Path, instance: dg.DagsterInstance
) -> None:
    keep(bars, "BBB", bars_of("BBB", 1.37))
    seen = []

    class DyingStore(WorkspaceResource):
        def progress(self, stage: str, done: int, total: int) -> None:
            if stage == "features":
                seen.append(Counter(states(instance, "bars").values()))
                seen.append(Counter(states(instance, "signals").values()))
                raise RuntimeError("the process is killed")

    dead = run_job(instance, "refresh", ALL, store=DyingStore())
    assert not dead.success
    assert seen == [{"MATERIALIZED": 3}, {"IN_PROGRESS": 3}]
    assert states(instance, "bars") == GREEN
    assert states(instance, "signals") == dict.fromkeys(KEYS, "FAILED")
    again = run_job(instance, "refresh", ALL)
    require_success(again)
    assert news(instance, again)["signals"] == KEYS
    assert all_green(instance)


def test_other_code_or_news_of_an_input_are_reported(instance: dg.DagsterInstance) -> None:
    asset, inputs = dg.AssetKey("signals"), (dg.AssetKey("cmc_features"),)
    (run,) = instance.get_runs(limit=1)
    log = instance.event_log_storage
    assert isinstance(log, PartitionLog)
    keys = sorted(KEYS)
    known = log.reported(asset, keys)
    versions = {key: row.tags["dagster/data_version"] for key, row in known.items()}
    code = known[keys[0]].tags["dagster/code_version"]

    def same(code_version: str = code) -> list[str]:
        lineage = stored_events.Lineage(code_version, inputs)
        tags = stored_events.provenance(instance, lineage)
        return ReportedPartitions(instance, asset, run, tags, keys).same(versions)

    assert same() == keys
    assert same("newer") == []
    news_of_one = dg.AssetMaterialization(
        inputs[0], partition=keys[1], tags={"dagster/data_version": "other"}
    )
    instance.report_runless_asset_event(news_of_one)
    assert same() == [keys[0], keys[2]]
    # As if another partition had been stored than was reported to Dagster.
    versions[keys[0]] = "another"
    assert same() == [keys[2]]


def test_a_partition_s_page_finds_the_run_that_planned_it_together_with_others(
    instance: dg.DagsterInstance,
) -> None:
    (run,) = instance.get_runs(limit=1)
    asset = dg.AssetKey("signals")
    for key in (None, "BBB|1D"):
        info = instance.event_log_storage.get_latest_planned_materialization_info(asset, key)
        assert info is not None
        assert info.run_id == run.run_id
    assert instance.event_log_storage.get_latest_planned_materialization_info(asset, "B") is None
    keys = by_asset_and_timeframe.get_partition_keys(dynamic_partitions_store=instance)
    assert set(keys) > KEYS


def test_versions_are_found_without_rows_of_tags(
    store: Database, instance: dg.DagsterInstance
) -> None:
    """The queries of Dagster's that read tags of events: updated inputs, and their versions."""
    assert count(store, "dagster.asset_event_tags") == 0
    log, asset = instance.event_log_storage, dg.AssetKey("bars")
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    tags = log.get_latest_tags_by_partition(asset, kind, ["dagster/data_version"])
    assert set(tags) == KEYS
    newest = instance.fetch_materializations(asset, limit=1).records[0].storage_id
    same = tags["AAA|1D"]["dagster/data_version"]
    for key, version in (("AAA|1D", same), ("BBB|1D", "other")):
        event = dg.AssetMaterialization(
            asset, partition=key, tags={"dagster/data_version": version}
        )
        instance.report_runless_asset_event(event)
    assert log.get_updated_data_version_partitions(asset, KEYS, newest) == {"BBB|1D"}
    some = log.get_latest_tags_by_partition(
        asset, kind, ["dagster/data_version"], ["BBB|1D", "CCC|1D"], before_cursor=newest + 1
    )
    assert some == {key: tags[key] for key in ("BBB|1D", "CCC|1D")}
