"""The graph on the user's own table, and the sensor that watches it."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.external import watermark_sensor
from backtest_pipeline.defs.resources import WorkspaceResource
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.defs.running import run_job, selected
from backtest_pipeline_tests.sql import count
from backtest_pipeline_tests.theirs import FILTERS, Theirs

TABLE = dg.AssetKey("cmc_features")
KEYS = {f"ID-{i}|{tf}" for i in (1, 2, 3) for tf in ("1D", "1W")}


@pytest.fixture
def external(store: Database, theirs: Theirs, monkeypatch: pytest.MonkeyPatch) -> Theirs:
    """A store whose features are in another database."""
    monkeypatch.setenv("BACKTEST_FEATURES_TABLE", "theirs.features")
    monkeypatch.setenv("BACKTEST_FEATURES_DSN", theirs.reader)
    monkeypatch.setenv("BACKTEST_FEATURES_FILTERS", FILTERS)
    return theirs


@pytest.fixture
def empty_instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    """One look of the sensor, its events stored as the daemon stores them."""
    with dg.build_sensor_context(
        instance, cursor, resources={"store": WorkspaceResource()}
    ) as context:
        result = watermark_sensor(context)
    assert isinstance(result, dg.SensorResult)
    for event in result.asset_events:
        assert isinstance(event, dg.AssetMaterialization)
        instance.report_runless_asset_event(event)
    return result


def refresh(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    return run_job(instance, "refresh", dict(request.tags), request.run_config)


def parents_of(definitions: dg.Definitions) -> dict[str, set[str]]:
    graph = definitions.resolve_asset_graph()
    return {
        key.to_user_string(): {p.to_user_string() for p in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }


@pytest.mark.usefixtures("external")
def test_the_lineage_begins_with_the_users_table(monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = build_definitions()
    dg.Definitions.validate_loadable(definitions)
    parents = parents_of(definitions)
    assert parents["cmc_features"] == set()
    assert parents["feature_snapshots"] == {"cmc_features"}
    assert parents["signals"] == {"cmc_features", "feature_snapshots"}
    assert parents["walk_forward"] == parents["negative_controls"] == {"feature_snapshots"}
    for name in ("TABLE", "DSN", "FILTERS"):
        monkeypatch.delenv(f"BACKTEST_FEATURES_{name}")
    built = parents_of(build_definitions())
    assert parents.keys() - {"feature_snapshots"} == built.keys() - {"bars"}
    for name, before in built.items():
        if not before & {"bars", "cmc_features"} and name != "bars":
            assert parents[name] == before
    graph = definitions.resolve_asset_graph()
    table = graph.get(TABLE)
    assert table.is_external
    assert table.metadata["dagster/table_name"] == "theirs.features"
    assert table.metadata["filters"] == {"alignment_source": "multi_tf", "venue_id": "1"}
    assert {s.name for s in definitions.sensors or []} == {
        "external_features",
        "conditions",
        "portfolio_rollups_after_backtests",
        "run_failures",
        "replans",
        "requested_jobs",
        "store_timeframes",
        "dead_runs",
    }


def test_a_look_leads_to_backtests_and_the_next_one_to_nothing(
    external: Theirs, store: Database, empty_instance: dg.DagsterInstance
) -> None:
    instance, before = empty_instance, external.content()
    first = tick(instance)
    assert set(instance.get_dynamic_partitions("asset")) == {"ID-1", "ID-2", "ID-3"}
    assert set(instance.get_materialized_partitions(TABLE)) == KEYS
    requests = first.run_requests or []
    assert [selected(instance, r) for r in requests] == [KEYS]

    for request in requests:
        run = refresh(instance, request)
        assert run.success
        checks = {c.asset_key.to_user_string(): c.passed for c in run.get_asset_check_evaluations()}
        assert checks == {"feature_snapshots": True, "signals": True, "backtests": True}
    assert set(instance.get_materialized_partitions(dg.AssetKey("backtests"))) >= KEYS
    assert count(store, "backtest_runs WHERE is_current") == 6 * 6
    assert count(store, "cmc_features") == 0

    second = tick(instance, first.cursor)
    assert not second.asset_events
    assert not second.run_requests
    lost = tick(instance, None)  # the cursor is gone, but not what was told
    assert not lost.asset_events
    assert not lost.run_requests
    assert external.content() == before


def test_what_changes_is_told_with_its_version_and_refreshed_alone(
    external: Theirs, store: Database, empty_instance: dg.DagsterInstance
) -> None:
    instance = empty_instance
    first = tick(instance)
    for request in first.run_requests or []:
        assert refresh(instance, request).success
    external.run(
        "UPDATE theirs.features SET close = high, updated_at = now()"
        " WHERE id = 2 AND tf = '1D' AND ts < '2016-03-01';"
        "CREATE TEMP TABLE new AS SELECT * FROM theirs.features WHERE id = 1 AND tf = '1D';"
        "UPDATE new SET id = 9;"
        "INSERT INTO theirs.features SELECT * FROM new"
    )
    second = tick(instance, first.cursor)
    assert {event.partition for event in second.asset_events} == {"ID-2|1D", "ID-9|1D"}
    versions = [
        (event.tags or {})["dagster/data_version"]
        for event in second.asset_events
        if isinstance(event, dg.AssetMaterialization)
    ]
    assert len(set(versions)) == 2
    requests = second.run_requests or []
    assert [selected(instance, request) for request in requests] == [{"ID-2|1D", "ID-9|1D"}]
    again = tick(instance, second.cursor)
    assert not again.asset_events
    assert not again.run_requests  # the same rows: a minute later
    for request in requests:
        assert refresh(instance, request).success
    assert not tick(instance, second.cursor).run_requests
    assert count(store, "backtest_runs WHERE NOT is_current") == 6


def test_nothing_is_asked_for_while_a_refresh_is_under_way(
    external: Theirs, empty_instance: dg.DagsterInstance
) -> None:
    empty_instance.add_run(dg.DagsterRun(job_name="refresh", status=dg.DagsterRunStatus.STARTED))
    result = tick(empty_instance)
    assert len(result.asset_events) == 6
    assert not result.run_requests


def test_a_bad_partition_fails_the_run_and_its_neighbours_are_stored(
    external: Theirs, store: Database, empty_instance: dg.DagsterInstance
) -> None:
    external.run(
        "ALTER TABLE theirs.features DROP CONSTRAINT features_pkey;"
        "INSERT INTO theirs.features SELECT * FROM theirs.features"
        " WHERE id = 2 AND tf = '1D' ORDER BY ts LIMIT 1"
    )
    first = tick(empty_instance)
    (request,) = first.run_requests or []
    assert not refresh(empty_instance, request).success
    kept = set(empty_instance.get_materialized_partitions(dg.AssetKey("feature_snapshots")))
    assert kept == KEYS - {"ID-2|1D"}
    (after,) = tick(empty_instance, first.cursor).run_requests or []
    assert selected(empty_instance, after) == {"ID-2|1D"}
