"""Whatever way a store came to its state, it holds what one full refresh would have given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sqlalchemy as sa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.stage import Status
from backtest_pipeline.pipeline.stages.bars import BAR_COLUMNS
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.storage.artifacts.panel_files import read_panel
from backtest_pipeline.storage.provenance import content_versions
from backtest_pipeline.storage.tables.datasets import read_versions
from backtest_pipeline_tests.pipeline.markets import (
    PARTITIONS,
    Contents,
    StaticSource,
    assert_same,
    changed,
    contents,
    daily_panel,
    outcome,
    refresh,
    sample_panels,
    until,
    us,
    whole,
)
from backtest_pipeline_tests.sql import column, execute_sql, scalar


@pytest.mark.parametrize(
    "days",
    [
        ("2025-12-31",),
        ("2024-09-10",),
        ("2024-06-02", "2025-05-12", "2025-11-02", "2025-12-24"),
    ],
    ids=["one day more", "before the hourly bars", "four times"],
)
def test_growing_history_ends_as_a_full_refresh(
    workspace: Workspace, undisturbed: Contents, days: tuple[str, ...]
) -> None:
    for day in days:
        known = until(day)
        refresh(workspace, known)
    refresh(workspace, whole())
    assert_same(contents(workspace), undisturbed)


def _raised(panel: Panel) -> Panel:
    """One bar of the past a little higher."""
    row = panel.rows_of("S-ALPHA").start + 60
    columns = {name: values.copy() for name, values in panel.columns.items()}
    for name in ("open", "high", "low", "close"):
        columns[name][row] *= 1.03
    return panel.with_columns(columns)


def _holed(panel: Panel) -> Panel:
    """A bar of the past removed."""
    return panel.take(np.arange(len(panel)) != panel.rows_of("S-ALPHA").start + 60)


def _shortened(panel: Panel) -> Panel:
    """The last days removed."""
    return panel.take(panel.ts < us("2025-12-20"))


def _begun_later(panel: Panel) -> Panel:
    return panel.take(panel.ts >= us("2025-11-08") if panel.timeframe.is_intraday else panel.ts > 0)


@pytest.mark.parametrize("restate", [_raised, _holed, _shortened, _begun_later])
def test_restated_history_ends_as_a_full_refresh(
    workspace: Workspace, undisturbed: Contents, restate: Callable[[Panel], Panel]
) -> None:
    refresh(workspace, changed(restate))
    refresh(workspace, whole())
    assert_same(contents(workspace), undisturbed)


def test_bars_that_were_appended_and_then_withdrawn_leave_nothing_behind(
    workspace: Workspace,
) -> None:
    before = changed(_shortened)
    refresh(workspace, before)
    straight = contents(workspace)
    refresh(workspace, whole())
    refresh(workspace, before)
    assert_same(contents(workspace), straight)


TWO = [Partition("A", "1D"), Partition("B", "1D")]


def _two_assets(*, last_of_a: int) -> StaticSource:
    """Two assets of 300 days, of the first only the last ones."""
    panel = daily_panel({"A": 300, "B": 300})
    keep = (panel.segment_of_row == 1) | (panel.ts > panel.ts[299 - last_of_a])
    return StaticSource({"1D": panel.take(keep)})


def test_an_asset_that_shrinks_to_one_bar_loses_its_signals_and_runs(
    workspace: Workspace, fresh_store: Callable[[], Workspace]
) -> None:
    refresh(workspace, _two_assets(last_of_a=299), TWO)
    reports = refresh(workspace, _two_assets(last_of_a=1), TWO)
    assert not any(report.failed for report in reports.values())
    straight = fresh_store()
    refresh(straight, _two_assets(last_of_a=1), TWO)
    assert_same(contents(workspace), contents(straight))


def test_an_asset_that_loses_all_its_bars_keeps_what_is_stored(workspace: Workspace) -> None:
    refresh(workspace, _two_assets(last_of_a=299), TWO)
    before = contents(workspace)
    reports = refresh(workspace, _two_assets(last_of_a=0), TWO)
    assert outcome(reports["bars"], TWO[0])[0] == "no_input"
    assert_same(contents(workspace), before)


def test_an_unchanged_source_writes_nothing(refreshed: Workspace) -> None:
    before = _traces(refreshed)
    reports = refresh(refreshed, whole())
    for report in reports.values():
        statuses = {outcome.status for outcome in report.outcomes}
        assert statuses <= {Status.UNCHANGED, Status.EMPTY}, report.stage
        assert report.rows == 0
    assert _traces(refreshed) == before


def test_a_full_rebuild_ends_in_the_same(workspace: Workspace, undisturbed: Contents) -> None:
    refresh(workspace, until("2025-11-20"))
    reports = refresh(workspace, whole(), rebuild=True)
    assert {outcome.status for outcome in reports["backtests"].outcomes} == {Status.STORED}
    assert_same(contents(workspace), undisturbed)


def test_a_full_rebuild_mends_tables_that_were_tampered_with(
    refreshed: Workspace, undisturbed: Contents
) -> None:
    for table in ("cmc_features", "cmc_ema_multi_tf_u", "signals"):
        execute_sql(refreshed, f"DELETE FROM {table} WHERE tf = '1D'")
    refresh(refreshed, whole(), rebuild=True)
    assert_same(contents(refreshed), undisturbed)


_DAYS = "SELECT sum(close) FROM cmc_features WHERE tf = '1D'"


def test_other_bars_of_other_timeframes_are_left_alone(refreshed: Workspace) -> None:
    weekly = [p for p in PARTITIONS if p.timeframe == "1W"]
    # Not the days of these assets, which mark their weekly runs and are refreshed with them.
    others = [p for p in PARTITIONS if p.timeframe not in ("1W", "1D")]
    before = contents(refreshed, others)
    days = scalar(refreshed, _DAYS)
    refresh(refreshed, changed(_raised), weekly)
    assert_same(contents(refreshed, others), before)
    assert scalar(refreshed, _DAYS) != days


def test_a_version_that_was_replaced_stays_readable(refreshed: Workspace) -> None:
    partition = Partition("S-ALPHA", "1D")
    with refreshed.database.begin() as connection:
        old = read_versions(connection, "bars", [partition])[partition]
    refresh(refreshed, changed(_raised))
    with refreshed.database.begin() as connection:
        row = connection.execute(
            sa.text(
                "SELECT n_rows, uris FROM dataset_snapshots"
                " WHERE dataset = 'bars' AND tf = '1D' AND version = :version"
            ),
            {"version": old.version},
        ).one()
    assert tuple(row.uris) == old.uris
    found = read_panel(refreshed.artifacts, "1D", {"S-ALPHA": old.uris}, BAR_COLUMNS)
    assert content_versions(found, BAR_COLUMNS).whole["S-ALPHA"] == old.version
    assert len(found) == row.n_rows


def _traces(workspace: Workspace) -> dict[str, object]:
    """When each row was written last, by table, and the files."""
    tables = ("cmc_features", "signals", "signal_state", "dataset_versions", "data_quality")
    tables += ("cmc_ema_multi_tf_u", "backtest_runs", "backtest_trades", "backtest_metrics")
    written = {
        table: sorted(column(workspace, f"SELECT xmin::text FROM {table}")) for table in tables
    }
    root = workspace.artifacts.root
    # Snapshots that are equal are found by writing them, so only the names count.
    return {**written, "files": sorted(str(path) for path in root.rglob("*"))}


def test_the_sample_is_worth_refreshing(undisturbed: Contents) -> None:
    assert len(sample_panels()["1D"].assets) == 3
    assert set(undisturbed["signals"]["tf"]) >= {"4H", "1D"}
    assert set(undisturbed["backtest_trades"]["direction"]) == {"long", "short"}
    runs = undisturbed["backtest_runs"]
    assert len(runs) == 6 * len(runs[["symbol", "tf"]].drop_duplicates())
