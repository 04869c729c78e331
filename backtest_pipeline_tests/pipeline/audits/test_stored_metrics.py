"""Stored metrics are those that the stored trades and equity give, and an edited one is named."""

from __future__ import annotations

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.stored_metrics import check_stored_metrics
from backtest_pipeline.pipeline.stages.portfolios import RollupConfig
from backtest_pipeline.pipeline.stages.rollups import roll_up
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import Direction, SimulationConfig
from backtest_pipeline_tests.pipeline.markets import PARTITIONS, as_new_process, refresh, until
from backtest_pipeline_tests.pipeline.processes import MARKET
from backtest_pipeline_tests.pipeline.walking_process import MARKET as WALKED
from backtest_pipeline_tests.pipeline.walking_process import PARTITIONS as TO_WALK
from backtest_pipeline_tests.pipeline.walking_process import walk
from backtest_pipeline_tests.sql import column, count, execute_sql, scalar

CONFIG = SimulationConfig(direction=Direction.BOTH, risk_free=0.0001)


def test_metrics_are_recomputed_from_what_is_stored_and_edited_rows_named(
    workspace: Workspace,
) -> None:
    refresh(workspace, until("2026-01-01"), PARTITIONS[:8], CONFIG)
    refresh(workspace, WALKED, TO_WALK[:1])
    walk(workspace, TO_WALK[:1])
    sound = check_stored_metrics(workspace)
    assert sound.runs == count(workspace, "backtest_runs") > 50
    assert (sound.older, sound.differing, sound.unreadable) == (0, {}, {})

    edited = {}
    for i, change in enumerate(
        (
            "backtest_metrics SET sharpe = 9.99",
            "backtest_metrics SET sortino = NULL",
            "backtest_runs SET results = jsonb_set(results, '{summary,total_return}', '77')",
            "backtest_runs SET results = jsonb_set(results, '{trades}', '1000')",
            "backtest_trades SET pnl_pct = 0.5",
        )
    ):
        run_id = scalar(
            workspace,
            "SELECT run_id FROM backtest_metrics WHERE sortino IS NOT NULL AND trade_count > 3"
            f" ORDER BY run_id OFFSET {i} LIMIT 1",
        )
        execute_sql(workspace, f"UPDATE {change} WHERE run_id = :id", id=run_id)
        edited[run_id] = change
    older = "UPDATE backtest_metrics SET metrics_version = 1, sharpe = 9.99 WHERE run_id = :id"
    last = scalar(workspace, "SELECT run_id FROM backtest_metrics ORDER BY run_id DESC LIMIT 1")
    execute_sql(workspace, older, id=last)
    found = check_stored_metrics(workspace)
    assert found.older == 1
    assert found.differing.keys() == edited.keys()
    named = [found.differing[run_id].split(", but")[0] for run_id in edited]
    assert named[0] == "backtest_metrics: sharpe is 9.99"
    assert named[1] == "backtest_metrics: sortino is None"
    assert named[2] == "backtest_runs.results: total_return is 77"
    assert named[3] == "backtest_runs.results: trade_count is 1000"
    assert named[4].startswith("backtest_metrics: expectancy is ")


def test_directories_that_cannot_be_read_are_named_and_the_others_checked(
    workspace: Workspace,
) -> None:
    refresh(workspace, WALKED, TO_WALK)
    refresh(workspace, until("2026-01-01"), PARTITIONS[4:5], CONFIG)
    uri = scalar(workspace, "SELECT DISTINCT artifact_uri FROM backtest_runs WHERE tf = '1W'")
    (workspace.artifacts.root / uri / "equity.parquet").write_bytes(b"damaged")
    found = check_stored_metrics(as_new_process(workspace))
    assert found.unreadable.keys() == {uri}
    assert "has changed since it was written" in found.unreadable[uri]
    assert found.differing == {}


def test_metrics_of_portfolios_are_recomputed_and_edited_ones_named(workspace: Workspace) -> None:
    days = [Partition(asset, "1D") for asset in "ABC"]
    refresh(workspace, MARKET, days)
    roll_up(workspace, "1D", RollupConfig())
    sound = check_stored_metrics(workspace)
    assert sound.portfolios == count(workspace, "portfolio_runs") > 5
    assert (sound.older, sound.differing, sound.unreadable) == (0, {}, {})
    ids = column(workspace, "SELECT run_id FROM portfolio_runs ORDER BY run_id LIMIT 3")
    change = "UPDATE portfolio_runs SET {} WHERE run_id = :id"
    for run_id, what in zip(
        ids,
        (
            """metrics = jsonb_set(metrics, '{sharpe}', '9.99')""",
            """metrics = jsonb_set(metrics, '{mean_turnover}', '0')""",
            "code_version = 'older'",
        ),
        strict=True,
    ):
        execute_sql(workspace, change.format(what), id=run_id)
    found = check_stored_metrics(workspace)
    assert (found.portfolios, found.older) == (sound.portfolios - 1, 1)
    assert {i: why.split(", but")[0] for i, why in found.differing.items()} == {
        ids[0]: "portfolio_runs.metrics: sharpe is 9.99",
        ids[1]: "portfolio_runs.metrics: mean_turnover is 0",
    }
