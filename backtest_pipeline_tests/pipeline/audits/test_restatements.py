"""History that was changed after it had been used is found, and what it did to results."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.restatements import watch_history
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.tables.restatements import stored_restatements
from backtest_pipeline_tests.pipeline.markets import changed, refresh, until, whole
from backtest_pipeline_tests.sql import execute_sql, scalar


def _crash(panel: Panel) -> Panel:
    """One day of S-ALPHA closed a fifth lower than was known."""
    row = panel.rows_of("S-ALPHA").start + 60
    columns = {name: values.copy() for name, values in panel.columns.items()}
    columns["close"][row] *= 0.8
    columns["low"][row] = min(columns["low"][row], columns["close"][row])
    return panel.with_columns(columns)


def test_bars_that_are_only_appended_are_no_restatement(workspace: Workspace) -> None:
    refresh(workspace, until("2025-05-12"))
    refresh(workspace, whole())
    found = watch_history(workspace)
    assert (found.restated, found.effects) == (0, 0)


def test_a_restated_bar_is_found_once_with_what_it_moved(refreshed: Workspace) -> None:
    refresh(refreshed, changed(_crash))
    found = watch_history(refreshed)
    assert found.restated >= 1
    assert found.effects >= 6  # each signal, at least on the daily bars
    assert found.most_moved > 0
    with refreshed.database.begin() as connection:
        (daily,) = stored_restatements(connection, symbols=["S-ALPHA"], timeframes=["1D"])
        others = stored_restatements(connection, symbols=["S-MU"])
        moved = connection.execute(
            sa.text("""
                SELECT e.equity_before, e.equity_after, m.total_return AS before,
                       n.total_return AS after
                FROM restatement_effects e JOIN restatements r USING (restatement_id)
                JOIN backtest_metrics m ON m.run_id = e.run_before
                JOIN backtest_metrics n ON n.run_id = e.run_after WHERE r.tf = '1D'
            """)
        ).all()
    assert daily["runs"] == 6
    assert daily["bars_added"] == daily["bars_removed"] == 0
    assert daily["columns"]["close"] == pytest.approx(0.2)
    assert not daily["code_changed"]
    assert others == []
    assert len(moved) == 6
    for row in moved:  # both histories end at the same bar, so the equities are the final ones
        assert row.equity_before == pytest.approx(10_000 * (1 + row.before), rel=1e-12)
        assert row.equity_after == pytest.approx(10_000 * (1 + row.after), rel=1e-12)
    again = watch_history(refreshed)
    assert (again.rewrites, again.effects) == (0, 0)


def test_a_run_is_compared_at_the_last_bar_that_it_knew(workspace: Workspace) -> None:
    refresh(workspace, until("2025-05-12"))
    refresh(workspace, changed(_crash))  # restated, and half a year longer
    watch_history(workspace)
    with workspace.database.begin() as connection:
        days = connection.execute(
            sa.text(
                "SELECT DISTINCT until_ts::date FROM restatement_effects"
                " JOIN restatements USING (restatement_id) WHERE tf = '1D'"
            )
        ).scalars()
        assert [str(day) for day in days] == ["2025-05-11"]


def test_a_rebuild_of_the_same_rows_is_no_restatement(workspace: Workspace) -> None:
    refresh(workspace, until("2025-05-12"))
    refresh(workspace, whole(), rebuild=True)
    assert watch_history(workspace).restated == 0
    assert watch_history(workspace).rewrites == 0


def test_a_look_that_was_killed_between_its_steps_is_made_up_for(refreshed: Workspace) -> None:
    refresh(refreshed, changed(_crash))
    found = watch_history(refreshed)
    execute_sql(refreshed, "DELETE FROM restatement_effects")
    again = watch_history(refreshed)
    assert (again.rewrites, again.effects) == (0, found.effects)
    assert again.most_moved == found.most_moved


def test_features_that_were_changed_behind_its_back_are_taken_anew(refreshed: Workspace) -> None:
    assert watch_history(refreshed).silent == ()
    execute_sql(
        refreshed,
        """
                UPDATE cmc_features SET rsi_14 = rsi_14 + 1 WHERE (id, tf, ts) IN (
                    SELECT id, tf, max(ts) FROM signals JOIN dim_assets a USING (id)
                    WHERE a.symbol = 'S-MU' AND tf = '1D' GROUP BY id, tf)
            """,
    )
    assert watch_history(refreshed).silent == (Partition("S-MU", "1D"),)
    assert watch_history(refreshed).silent == ()  # it waits for the refresh
    assert refresh(refreshed, whole())["features"].counts["stored"] == 1
    assert watch_history(refreshed).silent == ()
    differing = scalar(
        refreshed,
        "SELECT count(*) FROM signals s JOIN cmc_features f USING (id, ts, tf)"
        " WHERE (s.feature_snapshot ->> 'rsi_14')::float8 IS DISTINCT FROM f.rsi_14",
    )
    assert differing == 0


def test_a_feature_row_that_has_gone_is_found(refreshed: Workspace) -> None:
    execute_sql(
        refreshed,
        "DELETE FROM cmc_features WHERE (id, tf, ts) IN"
        " (SELECT id, tf, ts FROM signals WHERE tf = '1W' LIMIT 1)",
    )
    (partition,) = watch_history(refreshed).silent
    assert partition.timeframe == "1W"
