"""Real runs on a real store."""

from __future__ import annotations

import dagster as dg
import pytest
import sqlalchemy as sa

from backtest_pipeline.defs.stored_events import observations
from backtest_pipeline.storage.postgres.database import Database
from backtest_pipeline_tests.defs.running import (
    failure_of,
    materialized,
    rectangle,
    require_success,
    run_asset,
    run_job,
    told,
)
from backtest_pipeline_tests.sql import count, execute_sql, scalar


def test_a_rectangle_is_refreshed_in_one_run(store: Database, instance: dg.DagsterInstance) -> None:
    run = run_job(instance, "refresh", rectangle("S-ALPHA|1D", "S-BETA|2D"))
    require_success(run)
    keys = {f"S-{name}|{tf}" for name in ("ALPHA", "BETA") for tf in ("1D", "2D")}
    for asset in ("bars", "cmc_features", "signals", "backtests"):
        assert materialized(instance, asset) == keys
    assert count(store, "backtest_runs WHERE is_current") == 4 * 6
    (observed,) = observations(instance, run.run_id, "backtests")
    assert observed["runs"].value == 24
    assert str(observed["equity"].value).startswith("![S-")
    assert len(str(observed["equity"].value)) < 1000  # longer text hides behind a link
    best = observed["best_runs"]
    assert isinstance(best, dg.TableMetadataValue)
    assert len(best.records) == 5


def test_the_second_run_has_nothing_to_do(
    four_store: Database, instance: dg.DagsterInstance
) -> None:
    before = count(four_store, "backtest_runs")
    again = run_job(instance, "refresh", rectangle("S-ALPHA|1D", "S-BETA|1D"))
    require_success(again)
    assert count(four_store, "backtest_runs") == before
    events = told(instance, again, "backtests")
    assert set(events) == {"S-ALPHA|1D", "S-BETA|1D"}
    (observed,) = observations(instance, again.run_id, "backtests")
    assert observed["rows_written"].value == 0


def test_a_single_partition_shows_its_report(
    store: Database, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTEST_SERVICE_URL", "https://desk.example.com")
    run = run_job(instance, "refresh", {"dagster/partition": "S-ALPHA|1D"})
    require_success(run)
    (event,) = told(instance, run, "backtests").values()
    shown = {name: value.value for name, value in event.metadata.items()}
    assert list(shown)[:4] == ["report", "equity", "best_sharpe", "best_return"]
    best = scalar(store, "SELECT run_id FROM backtest_metrics ORDER BY sharpe DESC LIMIT 1")
    assert shown["report"] == f"https://desk.example.com/backtests/{best}/report"
    assert len(str(shown["equity"])) < 1000
    table = event.metadata["runs_by_sharpe"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [c.name for c in table.schema.columns] == [
        *("run", "Sharpe", "return", "drawdown", "trades")
    ]
    assert all(isinstance(cell, str) for row in table.records for cell in row.data.values())
    assert {"runs", "trades"} <= set(shown)


def test_good_partitions_are_stored_beside_a_bad_one(
    store: Database, instance: dg.DagsterInstance
) -> None:
    tags = rectangle("S-ALPHA|1D", "S-GAMMA|1D")
    run_job(instance, "refresh", tags)
    with store.begin() as connection:
        # Signals of other code than there is, and backtests that have to be made anew.
        connection.execute(
            sa.text("""
                UPDATE dataset_versions SET code_version = 'another' WHERE dataset = 'signals'
                AND id = (SELECT id FROM dim_assets WHERE symbol = 'S-BETA')
            """)
        )
        connection.execute(sa.text("DELETE FROM dataset_versions WHERE dataset = 'backtests'"))
        connection.execute(sa.text("DELETE FROM backtest_runs"))
    instance.wipe_assets([dg.AssetKey("backtests")])
    run = run_asset(instance, "backtests", tags)
    assert not run.success
    assert "S-BETA|1D" in failure_of(run)
    assert "refresh signals first" in failure_of(run)
    assert materialized(instance, "backtests") == {"S-ALPHA|1D", "S-GAMMA|1D"}
    stored = "SELECT count(DISTINCT symbol) FROM backtest_runs WHERE is_current"
    assert scalar(store, stored) == 2


def test_the_checks_pass_on_sound_tables_and_fail_on_others(
    store: Database, instance: dg.DagsterInstance
) -> None:
    tags = rectangle("S-ALPHA|1D", "S-ALPHA|1D")
    run = run_job(instance, "refresh", tags)
    checks = {c.asset_key.to_user_string(): c.passed for c in run.get_asset_check_evaluations()}
    assert checks == {"bars": True, "cmc_features": True, "signals": True, "backtests": True}
    execute_sql(
        store,
        """
                UPDATE cmc_features SET rsi_14 = 150
                WHERE ts = (SELECT max(ts) FROM cmc_features)
            """,
    )
    again = run_job(instance, "refresh", tags)
    assert not again.success
    failed = [c for c in again.get_asset_check_evaluations() if not c.passed]
    assert failed[0].metadata["rsi_out_of_bounds"].value == 1


def test_portfolios_are_formed_from_the_stored_backtests(
    four_store: Database, instance: dg.DagsterInstance
) -> None:
    run = run_job(instance, "portfolio_rollups_job", rectangle("1D", "1D"))
    require_success(run)
    assert count(four_store, "portfolio_runs WHERE is_current") == 7 * 5
    checks = {c.check_name: c.passed for c in run.get_asset_check_evaluations()}
    assert checks == {"grain_and_bounds": True}
    sums = """
        SELECT count(*) FROM (
            SELECT sum(weight) AS total FROM portfolio_weights GROUP BY run_id, ts
        ) AS sums WHERE abs(total - 1) > 1e-12
    """
    assert scalar(four_store, sums) == 0


def test_costs_come_from_the_simulation_resource(
    one_store: Database, instance: dg.DagsterInstance
) -> None:
    from backtest_pipeline.defs.resources import SimulationResource

    tags = {"dagster/partition": "S-ALPHA|1D"}
    free = SimulationResource(fee_bps=0, slippage_bps=0, direction="long")
    require_success(run_job(instance, "refresh", tags, simulation=free))
    free_runs = """
        SELECT count(*) FROM backtest_runs JOIN backtest_metrics USING (run_id)
        WHERE direction = 'long' AND fees_paid = 0
    """
    assert scalar(one_store, free_runs) == 6
    assert count(one_store, "backtest_runs WHERE direction = 'both'") == 6


@pytest.mark.parametrize("asset", ["cmc_features", "signals", "backtests", "walk_forward"])
def test_an_asset_without_its_input_fails_and_says_so(
    store: Database, instance: dg.DagsterInstance, asset: str
) -> None:
    run = run_asset(instance, asset, {"dagster/partition": "S-ALPHA|1D"})
    assert not run.success
    assert "are stored; refresh" in failure_of(run)
    assert not materialized(instance, asset)
