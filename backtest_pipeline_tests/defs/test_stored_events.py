"""What Dagster shows is what is stored: versions, staleness, failures, and how they are told."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.debug import DebugRunPayload

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.partitions import register_partitions
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline.storage.tables.datasets import read_versions
from backtest_pipeline_tests.cli.files import put
from backtest_pipeline_tests.conftest import database_like
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
from backtest_pipeline_tests.defs.conftest import Stored, copy_of, named
from backtest_pipeline_tests.defs.running import (
    failure_of,
    materialized,
    rectangle,
    require_success,
    run_asset,
    run_job,
    told,
)


@pytest.fixture
def bars(store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of bars of each asset, which the source is."""
    monkeypatch.setenv("BACKTEST_BARS", str(tmp_path / "bars"))
    return folder_of_bars(tmp_path / "bars")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        register_partitions(instance, ASSETS)
        yield instance


@dataclass(frozen=True)
class Refreshed:
    """What a refresh of all assets leaves: a store, and beside it its bars and its events."""

    stored: Stored
    bars: Path
    run: dg.ExecuteInProcessResult
    events: DebugRunPayload


@pytest.fixture(scope="module")
def refreshed_by_dagster(
    template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Refreshed]:
    root = tmp_path_factory.mktemp("refreshed-by-dagster")
    folder = folder_of_bars(root / "bars")
    for database in database_like(template, "backtest"):
        with (
            named(database, root / "artifacts"),
            pytest.MonkeyPatch.context() as environment,
            dg.DagsterInstance.ephemeral() as instance,
        ):
            environment.setenv("BACKTEST_BARS", str(folder))
            register_partitions(instance, ASSETS)
            run = run_job(instance, "refresh", ALL)
            require_success(run)
            (recorded,) = instance.get_runs()
            events = DebugRunPayload.build(instance, recorded)
        database.close()
        stored = (database.where.rpartition("/")[2], root / "artifacts")
        yield Refreshed(stored, folder, run, events)


@pytest.fixture
def refreshed_store(
    template: Database, refreshed_by_dagster: Refreshed, tmp_path: Path
) -> Iterator[Database]:
    """`store` after a refresh of all assets."""
    yield from copy_of(template, refreshed_by_dagster.stored, tmp_path / "artifacts")


@pytest.fixture
def refreshed_bars(
    refreshed_store: Database,
    refreshed_by_dagster: Refreshed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """`bars`, of which all are in `refreshed_store`."""
    monkeypatch.setenv("BACKTEST_BARS", str(tmp_path / "bars"))
    return shutil.copytree(refreshed_by_dagster.bars, tmp_path / "bars")


@pytest.fixture
def refreshed_instance(
    refreshed_bars: Path, refreshed_by_dagster: Refreshed
) -> Iterator[dg.DagsterInstance]:
    """`instance` that has heard of that refresh."""
    with dg.DagsterInstance.ephemeral(preload=[refreshed_by_dagster.events]) as instance:
        register_partitions(instance, ASSETS)
        yield instance


def status_of(
    instance: dg.DagsterInstance, run: dg.ExecuteInProcessResult
) -> dg.DagsterRunStatus | None:
    stored = instance.get_run_by_id(run.run_id)
    return stored.status if stored else None


def versions(store: Database, dataset: str) -> dict[str, str]:
    partitions = [Partition.parse(key) for key in KEYS]
    with store.begin() as connection:
        stored = read_versions(connection, dataset, partitions)
    return {str(partition): version.version for partition, version in stored.items()}


def test_each_partition_has_the_version_and_the_figures_of_its_rows(
    refreshed_by_dagster: Refreshed,
    refreshed_store: Database,
    refreshed_instance: dg.DagsterInstance,
) -> None:
    store, instance, run = refreshed_store, refreshed_instance, refreshed_by_dagster.run
    for asset, dataset in CHAIN.items():
        events = told(instance, run, asset)
        assert {k: (e.tags or {})["dagster/data_version"] for k, e in events.items()} == versions(
            store, dataset
        )
    event = told(instance, run, "backtests")["BBB|1D"]
    assert event.metadata["dagster/row_count"].value == 6
    assert {"trades", "best_sharpe", "best_run", "bars"} <= set(event.metadata)
    assert not {"report", "best_run_id"} & set(event.metadata)  # no service's address is set
    assert told(instance, run, "bars")["AAA|1D"].metadata["dagster/row_count"].value == 90


def test_the_same_data_in_runs_of_other_shapes_stay_fresh(
    refreshed_instance: dg.DagsterInstance,
) -> None:
    instance = refreshed_instance
    assert not stale(instance)
    for tags in (
        ALL,
        rectangle("BBB|1D", "CCC|1D"),
        {"dagster/partition": "AAA|1D"},
    ):
        require_success(run_job(instance, "refresh", tags))
        assert not stale(instance)
    require_success(run_asset(instance, "bars", ALL))
    assert not stale(instance)


def test_dearer_bars_of_one_asset_make_its_own_downstream_stale(
    refreshed_bars: Path, refreshed_instance: dg.DagsterInstance
) -> None:
    bars, instance = refreshed_bars, refreshed_instance
    keep(bars, "BBB", bars_of("BBB", 1.37))
    require_success(run_asset(instance, "bars", ALL))
    for asset, reader in pairwise(CHAIN):
        require_success(run_asset(instance, asset, ALL))
        assert stale(instance) == {f"{reader} BBB|1D"}
    require_success(run_job(instance, "refresh", {"dagster/partition": "BBB|1D"}))
    assert not stale(instance)


def test_other_code_makes_an_asset_stale(refreshed_instance: dg.DagsterInstance) -> None:
    instance = refreshed_instance
    declared = build_definitions()
    newer = declared.map_resolved_asset_specs(
        func=lambda spec: spec.replace_attributes(code_version="newer"), selection="signals"
    )
    assert stale(instance, newer) == {f"signals {key}" for key in KEYS}


def test_an_input_that_dagster_first_hears_of_later_makes_its_readers_stale(
    refreshed_instance: dg.DagsterInstance,
) -> None:
    """Its rows may have been stored by a command before, but nobody told which."""
    instance = refreshed_instance
    instance.wipe_assets([dg.AssetKey("bars"), dg.AssetKey("cmc_features")])
    require_success(run_asset(instance, "cmc_features", ALL))
    assert {f"bars {key}" for key in KEYS} <= stale(instance)
    assert not {f"cmc_features {key}" for key in KEYS} & stale(instance)
    require_success(run_asset(instance, "bars", ALL))
    assert {f"cmc_features {key}" for key in KEYS} <= stale(instance)
    require_success(run_job(instance, "refresh", ALL))
    assert not stale(instance)


def test_what_is_good_is_green_beside_what_is_bad(
    bars: Path, store: Database, instance: dg.DagsterInstance
) -> None:
    keep(bars, "BBB", put(bars_of("BBB"), "low", -1.0, slice(None)))
    run = run_job(instance, "refresh", ALL)
    assert not run.success
    reason = failure_of(run)
    assert "bars: no complete 1D bar" in reason
    assert "BBB|1D" in reason
    assert "AAA|1D" not in reason
    assert [e.step_key for e in run.get_step_failure_events()] == ["backtests"]
    for asset in CHAIN:
        assert materialized(instance, asset) == {"AAA|1D", "CCC|1D"}
    for asset in CHAIN:
        assert states(instance, asset) == {
            "AAA|1D": "MATERIALIZED",
            "BBB|1D": "FAILED",
            "CCC|1D": "MATERIALIZED",
        }
    keep(bars, "BBB", bars_of("BBB"))
    require_success(run_job(instance, "refresh", {"dagster/partition": "BBB|1D"}))
    assert not stale(instance)


def test_a_bad_partition_alone_fails_in_its_own_step(
    bars: Path, store: Database, instance: dg.DagsterInstance
) -> None:
    keep(bars, "BBB", put(bars_of("BBB"), "low", -1.0, slice(None)))
    run = run_job(instance, "refresh", {"dagster/partition": "BBB|1D"})
    assert [e.step_key for e in run.get_step_failure_events()] == ["bars"]
    assert not any(materialized(instance, asset) for asset in CHAIN)


def test_a_timeframe_without_a_complete_bar_is_there_with_no_rows(
    bars: Path, store: Database, instance: dg.DagsterInstance
) -> None:
    run = run_job(instance, "refresh", rectangle("AAA|4H", "BBB|4H"))
    require_success(run)
    for asset in CHAIN:
        event = told(instance, run, asset)["AAA|4H"]
        assert event.metadata["dagster/row_count"].value == 0
    first = told(instance, run, "bars")["AAA|4H"]
    assert first.metadata["status"].value == "empty"
    assert "no complete 4H bar" in str(first.metadata["why"].value)


def test_one_partition_launched_from_a_jobs_page_is_computed(
    bars: Path, store: Database, instance: dg.DagsterInstance
) -> None:
    run = run_job(instance, "refresh", {**rectangle("BBB|1D", "BBB|1D"), **of_a_job_page("BBB")})
    require_success(run)
    assert materialized(instance, "backtests") == {"BBB|1D"}


def test_several_launched_from_a_jobs_page_are_refused_and_stay_as_they_were(
    bars: Path, store: Database, instance: dg.DagsterInstance
) -> None:
    require_success(run_job(instance, "refresh", rectangle("AAA|1D", "BBB|1D")))
    refused = run_job(instance, "refresh", {**ALL, **of_a_job_page("AAA")})
    assert status_of(instance, refused) is dg.DagsterRunStatus.CANCELED
    logged = instance.all_logs(refused.run_id, of_type=dg.DagsterEventType.RUN_CANCELING)
    assert any("dagster#28861" in entry.message for entry in logged)
    assert states(instance, "backtests") == {"AAA|1D": "MATERIALIZED", "BBB|1D": "MATERIALIZED"}
    assert not stale(instance) - {f"{asset} CCC|1D" for asset in CHAIN}


def of_a_job_page(asset: str) -> dict[str, str]:
    """The tags by which such a backfill names its first partition."""
    return {
        "dagster/partition/asset": asset,
        "dagster/partition/timeframe": "1D",
        "dagster/partition_set": "refresh_partition_set",
    }


def test_an_interrupted_run_has_told_of_what_it_stored(
    bars: Path, store: Database, instance: dg.DagsterInstance
) -> None:
    class InterruptedStore(WorkspaceResource):
        def progress(self, stage: str, done: int, total: int) -> None:
            if stage == "features" and done:
                (run,) = instance.get_runs(limit=1)
                instance.report_run_canceling(run)
                raise dg.DagsterExecutionInterruptedError("somebody cancelled the run")

    cancelled = run_job(instance, "refresh", ALL, store=InterruptedStore())
    assert status_of(instance, cancelled) is dg.DagsterRunStatus.CANCELED
    for asset, dataset in CHAIN.items():
        assert materialized(instance, asset) == set(versions(store, dataset))
    assert materialized(instance, "cmc_features") == KEYS
    assert not states(instance, "signals")
    require_success(run_job(instance, "refresh", ALL))
    assert not stale(instance)


def test_weeks_bring_the_days_that_mark_them_up_to_date(
    bars: Path, store: Database, instance: dg.DagsterInstance
) -> None:
    require_success(run_job(instance, "refresh", rectangle("AAA|1D", "AAA|1D")))
    keep(bars, "AAA", bars_of("AAA", 1.37))
    run = run_job(instance, "refresh", {"dagster/partition": "AAA|1W"})
    require_success(run)
    assert set(told(instance, run, "bars")) == {"AAA|1D", "AAA|1W"}
    assert set(told(instance, run, "cmc_features")) == {"AAA|1D", "AAA|1W"}
    assert set(told(instance, run, "backtests")) == {"AAA|1W"}
    missing = {f"{asset} {key}" for asset in CHAIN for key in KEYS - {"AAA|1D"}}
    assert stale(instance) - missing == {"signals AAA|1D"}
    assert not {name for name in stale(instance, tf="1W") if " AAA|" in name}
