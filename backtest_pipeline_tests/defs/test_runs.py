"""Real runs on a real store."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from backtest_pipeline.definitions import build_definitions
from backtest_pipeline.defs.partitions import RANGE_END, RANGE_START
from backtest_pipeline.storage.postgres.database import Database

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def execute(
    instance: dg.DagsterInstance, job: str, tags: dict[str, str], **resources: Any
) -> dg.ExecuteInProcessResult:
    definition = build_definitions(**resources).resolve_job_def(job)
    return definition.execute_in_process(QUIET, instance=instance, tags=tags, raise_on_error=False)


def execute_alone(
    instance: dg.DagsterInstance, asset: str, tags: dict[str, str]
) -> dg.ExecuteInProcessResult:
    job = build_definitions().resolve_implicit_global_asset_job_def()
    chosen = job.get_subset(asset_selection={dg.AssetKey(asset)})
    return chosen.execute_in_process(QUIET, instance=instance, tags=tags, raise_on_error=False)


def rectangle(first: str, last: str) -> dict[str, str]:
    return {RANGE_START: first, RANGE_END: last}


def count(database: Database, query: str) -> int:
    with database.begin() as connection:
        return int(connection.scalar(sa.text(query)) or 0)


def materialized(instance: dg.DagsterInstance, asset: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def failure_of(run: dg.ExecuteInProcessResult) -> str:
    data = [event.event_specific_data for event in run.all_events if event.is_failure]
    return "\n".join(map(str, data))


def require_success(run: dg.ExecuteInProcessResult) -> None:
    assert run.success, failure_of(run)


def test_a_rectangle_is_refreshed_in_one_run(store: Database, instance: dg.DagsterInstance) -> None:
    run = execute(instance, "refresh", rectangle("S-ALPHA|1D", "S-BETA|2D"))
    require_success(run)
    keys = {f"S-{name}|{tf}" for name in ("ALPHA", "BETA") for tf in ("1D", "2D")}
    for asset in ("bars", "cmc_features", "signals", "backtests"):
        assert materialized(instance, asset) == keys
    assert count(store, "SELECT count(*) FROM backtest_runs WHERE is_current") == 4 * 6
    (observed,) = [
        event.asset_observation_data.asset_observation.metadata
        for event in run.get_asset_observation_events()
        if event.asset_key == dg.AssetKey("backtests")
    ]
    assert observed["runs"].value == 24
    assert str(observed["equity"].value).startswith("![S-")
    assert len(str(observed["equity"].value)) < 1000  # longer text hides behind a link
    best = observed["best_runs"]
    assert isinstance(best, dg.TableMetadataValue)
    assert len(best.records) == 5


def test_the_second_run_has_nothing_to_do(store: Database, instance: dg.DagsterInstance) -> None:
    tags = rectangle("S-ALPHA|1D", "S-BETA|1D")
    execute(instance, "refresh", tags)
    before = count(store, "SELECT count(*) FROM backtest_runs")
    again = execute(instance, "refresh", tags)
    require_success(again)
    assert count(store, "SELECT count(*) FROM backtest_runs") == before
    written = [
        event.step_materialization_data.materialization.metadata["rows_written"].value
        for event in again.get_asset_materialization_events()
    ]
    assert set(written) == {0}


def test_a_single_partition_shows_its_report(store: Database, instance: dg.DagsterInstance) -> None:
    run = execute(instance, "refresh", {"dagster/partition": "S-ALPHA|1D"})
    require_success(run)
    (metadata,) = [
        event.step_materialization_data.materialization.metadata
        for event in run.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("backtests")
    ]
    assert {"runs", "trades", "equity", "runs_by_sharpe"} <= set(metadata)


def test_good_partitions_are_stored_beside_a_bad_one(
    store: Database, instance: dg.DagsterInstance
) -> None:
    tags = rectangle("S-ALPHA|1D", "S-GAMMA|1D")
    execute(instance, "refresh", tags)
    with store.begin() as connection:
        # A signal where there is no bar, and backtests that have to be made anew.
        connection.execute(
            sa.text("""
                UPDATE signals SET ts = ts + interval '1 hour'
                WHERE id = (SELECT id FROM dim_assets WHERE symbol = 'S-BETA') AND signal_id = 1
            """)
        )
        connection.execute(sa.text("DELETE FROM dataset_versions WHERE dataset = 'backtests'"))
        connection.execute(sa.text("DELETE FROM backtest_runs"))
    instance.wipe_assets([dg.AssetKey("backtests")])
    run = execute_alone(instance, "backtests", tags)
    assert not run.success
    assert "S-BETA|1D" in failure_of(run)
    assert "lie on no bar" in failure_of(run)
    assert materialized(instance, "backtests") == {"S-ALPHA|1D", "S-GAMMA|1D"}
    stored = "SELECT count(DISTINCT symbol) FROM backtest_runs WHERE is_current"
    assert count(store, stored) == 2


def test_a_run_that_names_a_range_and_a_key_is_refused(
    store: Database, instance: dg.DagsterInstance
) -> None:
    tags = {**rectangle("S-ALPHA|1D", "S-BETA|1D"), "dagster/partition/asset": "S-ALPHA"}
    run = execute(instance, "refresh", tags)
    assert not run.success
    assert "dagster#28861" in failure_of(run)


def test_the_checks_pass_on_sound_tables_and_fail_on_others(
    store: Database, instance: dg.DagsterInstance
) -> None:
    tags = rectangle("S-ALPHA|1D", "S-ALPHA|1D")
    run = execute(instance, "refresh", tags)
    checks = {c.asset_key.to_user_string(): c.passed for c in run.get_asset_check_evaluations()}
    assert checks == {"cmc_features": True, "signals": True, "backtests": True}
    with store.begin() as connection:
        connection.execute(
            sa.text("""
                UPDATE cmc_features SET rsi_14 = 150
                WHERE ts = (SELECT max(ts) FROM cmc_features)
            """)
        )
    again = execute(instance, "refresh", tags)
    assert not again.success
    failed = [c for c in again.get_asset_check_evaluations() if not c.passed]
    assert failed[0].metadata["rsi_out_of_bounds"].value == 1


def test_portfolios_are_formed_from_the_stored_backtests(
    store: Database, instance: dg.DagsterInstance
) -> None:
    execute(instance, "refresh", rectangle("S-ALPHA|1D", "S-GAMMA|1D"))
    run = execute(instance, "rollup", rectangle("1D", "1D"))
    require_success(run)
    assert count(store, "SELECT count(*) FROM portfolio_runs WHERE is_current") == 7 * 5
    checks = {c.check_name: c.passed for c in run.get_asset_check_evaluations()}
    assert checks == {"grain_and_bounds": True}
    sums = """
        SELECT count(*) FROM (
            SELECT sum(weight) AS total FROM portfolio_weights GROUP BY run_id, ts
        ) AS sums WHERE abs(total - 1) > 1e-12
    """
    assert count(store, sums) == 0


def test_costs_come_from_the_simulation_resource(
    store: Database, instance: dg.DagsterInstance
) -> None:
    from backtest_pipeline.defs.resources import SimulationResource

    tags = {"dagster/partition": "S-ALPHA|1D"}
    execute(instance, "refresh", tags)
    free = SimulationResource(fee_bps=0, slippage_bps=0, direction="long")
    assert execute(instance, "refresh", tags, simulation=free).success
    free_runs = """
        SELECT count(*) FROM backtest_runs JOIN backtest_metrics USING (run_id)
        WHERE direction = 'long' AND fees_paid = 0
    """
    assert count(store, free_runs) == 6
    assert count(store, "SELECT count(*) FROM backtest_runs WHERE direction = 'both'") == 6


@pytest.mark.parametrize("asset", ["cmc_features", "signals", "backtests"])
def test_an_asset_without_its_input_says_so(
    store: Database, instance: dg.DagsterInstance, asset: str
) -> None:
    run = execute_alone(instance, asset, {"dagster/partition": "S-ALPHA|1D"})
    require_success(run)
    (event,) = run.get_asset_materialization_events()
    remark = event.step_materialization_data.materialization.metadata["without_result"]
    assert "are stored; refresh" in str(remark.value)
