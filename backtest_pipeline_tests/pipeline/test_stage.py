"""Partitions do not know of each other: neither their company nor their order changes anything."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from backtest_pipeline.market.panel import Panel
from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.pools.staged_batches import run_stage
from backtest_pipeline.pipeline.presets import left_out_presets
from backtest_pipeline.pipeline.runs.summary import backtests_summary
from backtest_pipeline.pipeline.stage import Batches, StageReport, batches_of
from backtest_pipeline.pipeline.stages.backtests import BacktestsStage
from backtest_pipeline.pipeline.stages.bars import BarsStage, bar_batches
from backtest_pipeline.pipeline.stages.source_reader import SourceReader
from backtest_pipeline.pipeline.stages.tradable_signals import stored_signals
from backtest_pipeline.pipeline.use_cases.refresh import refresh_backtests, refresh_signals
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline.simulation.config import SimulationConfig
from backtest_pipeline_tests.pipeline.markets import (
    PARTITIONS,
    Contents,
    StaticSource,
    as_new_process,
    assert_same,
    contents,
    daily_panel,
    outcome,
    refresh,
    whole,
)
from backtest_pipeline_tests.sql import execute_sql, scalar
from backtest_pipeline_tests.storage.places import Folder, flip_a_bit_in
from backtest_pipeline_tests.waiting import until

A, B, C = (Partition(asset, "1D") for asset in "ABC")


def small_market(**lengths: int) -> StaticSource:
    return StaticSource({"1D": daily_panel(lengths or {"A": 120, "B": 120, "C": 120})})


def test_partitions_refreshed_one_by_one_backwards_equal_the_batch(
    workspace: Workspace, undisturbed: Contents
) -> None:
    for partition in reversed(PARTITIONS):
        refresh(workspace, whole(), [partition])
    # Weekly and monthly runs were made before the days that mark them were stored.
    made_again = refresh(workspace, whole(), PARTITIONS)["backtests"].counts
    assert made_again["stored"] == sum(p.timeframe in ("1W", "1M_CAL", "3D") for p in PARTITIONS)
    assert_same(contents(workspace), undisturbed)


def test_batches_of_any_size_give_the_same(workspace: Workspace, undisturbed: Contents) -> None:
    for _ in refresh_signals(workspace, whole(), PARTITIONS):
        pass
    config = SimulationConfig()
    run_stage(
        stored_signals(workspace, PARTITIONS),
        BacktestsStage(workspace, config),
        batch_rows=1,
    )
    assert_same(contents(workspace), undisturbed)


def test_blocks_hold_each_partition_once_and_one_timeframe_each() -> None:
    rows = {p: 100 * len(p.asset) for p in PARTITIONS}
    for size in (1, 700, 1400, 10**9):
        planned = batches_of(PARTITIONS, rows, size)
        assert sorted(p for batch in planned for p in batch) == sorted(PARTITIONS)
        assert all(len({p.timeframe for p in batch}) == 1 for batch in planned)
        assert all(len(b) == 1 or sum(rows[p] for p in b) <= size for b in planned)


def test_a_failing_partition_is_found_among_many_and_the_others_are_stored(
    workspace: Workspace,
) -> None:
    names = [f"X{i}" for i in range(9)]
    partitions = [Partition(name, "1D") for name in names]
    reader = SourceReader(small_market(**dict.fromkeys(names, 30)), names)

    def load(tf: str, assets: Sequence[str]) -> Panel:
        if {"X2", "X7"} & set(assets):
            raise ZeroDivisionError("odd")
        return bar_batches(reader, partitions).load(tf, assets)

    report = run_stage(Batches(tuple(partitions), load), BarsStage(workspace, reader))
    assert [str(o.partition) for o in report.failed] == ["X2|1D", "X7|1D"]
    assert {o.detail for o in report.failed} == {"ZeroDivisionError: odd"}
    assert report.counts == {"stored": 7, "failed": 2}


def test_progress_reaches_the_total(workspace: Workspace) -> None:
    seen: list[tuple[str, int, int]] = []
    watched = Workspace(
        workspace.database, workspace.artifacts, progress=lambda *told: seen.append(told)
    )
    refresh(watched, small_market(), [A, B, C])
    for stage in ("bars", "features", "signals", "backtests"):
        done = [n for name, n, _ in seen if name == stage]
        assert done == sorted(done)
        assert done[-1] == 3


def test_an_interrupt_ends_batches_that_wait_to_write(workspace: Workspace) -> None:
    reader = SourceReader(small_market(), ["A", "B", "C"])
    one = replace(workspace, database=replace(workspace.database, writers=1))
    ask = (
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%/writers%' AND pid <>"
        " pg_backend_pid() AND datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    main = threading.get_ident()

    def interrupt() -> None:
        until(lambda: scalar(workspace.database, ask) == 3)  # ours here, and those of two batches
        signal.pthread_kill(main, signal.SIGINT)

    with ThreadPoolExecutor(1) as pool, one.database.writing():
        interrupted = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_stage(bar_batches(reader, [A, B, C]), BarsStage(one, reader), batch_rows=1)
        interrupted.result()
    assert scalar(workspace.database, "SELECT count(*) FROM dataset_versions") == 0
    one.database.close()


def _backtests(workspace: Workspace, *partitions: Partition) -> StageReport:
    return refresh_backtests(workspace, partitions, SimulationConfig(), rebuild=True)


def test_a_preset_that_was_registered_since_asks_for_its_signals_first(
    workspace: Workspace,
) -> None:
    """The stored files of conditions have no column for it."""
    refresh(workspace, small_market(), [A, B, C])
    execute_sql(
        workspace,
        "INSERT INTO dim_signals (signal_id, name, strategy, params, is_active)"
        " VALUES (77, 'ema_3_8', 'ema_crossover', CAST(:params AS jsonb), TRUE)",
        params='{"fast": 3, "slow": 8}',
    )
    report = _backtests(workspace, A, B, C)
    for partition in (A, B, C):
        status, detail = outcome(report, partition)
        assert (status, "refresh signals first" in detail) == ("failed", True)
    refresh(workspace, small_market(), [A, B, C])
    assert not _backtests(workspace, A, B, C).failed


def test_signals_of_other_code_fail_their_partition_alone(workspace: Workspace) -> None:
    refresh(workspace, small_market(), [A, B, C])
    with workspace.database.begin() as connection:
        moved = connection.execute(
            sa.text("""
                UPDATE dataset_versions v SET code_version = 'another' FROM dim_assets a
                WHERE a.id = v.id AND a.symbol = 'B' AND v.dataset = 'signals'
            """)
        )
    assert moved.rowcount >= 1
    report = _backtests(workspace, A, B, C)
    status, detail = outcome(report, B)
    assert status == "failed"
    assert "B|1D" in detail
    assert "refresh signals first" in detail
    assert outcome(report, A)[0] == outcome(report, C)[0] == "stored"
    refresh(workspace, small_market(), [A, B, C], rebuild=True)
    assert not _backtests(workspace, A, B, C).failed


def test_features_that_vanish_fail_the_signals_of_their_asset_alone(workspace: Workspace) -> None:
    refresh(workspace, small_market(), [A, B, C])
    with workspace.database.begin() as connection:
        connection.execute(
            sa.text(
                "DELETE FROM cmc_features USING dim_assets a WHERE a.id = cmc_features.id"
                " AND a.symbol = 'B'"
            )
        )
        connection.execute(sa.text("DELETE FROM dataset_versions WHERE dataset = 'signals'"))
    signals = refresh(workspace, small_market(), [A, B, C])["signals"]
    status, detail = outcome(signals, B)
    assert status == "failed"
    assert "no feature row" in detail
    assert outcome(signals, A)[0] == outcome(signals, C)[0] == "stored"


def test_a_damaged_snapshot_fails_what_it_holds_and_a_rebuild_mends_it(
    workspace: Workspace, fresh_store: Callable[[], Workspace]
) -> None:
    source = small_market()
    refresh(workspace, source, [B])
    refresh(workspace, source, [A, C])
    uri = scalar(
        workspace,
        "SELECT uris[1] FROM dataset_versions JOIN dim_assets USING (id)"
        " WHERE dataset = 'features' AND symbol = 'B'",
    )
    flip_a_bit_in(Folder(workspace.artifacts.root), str(uri))
    workspace = as_new_process(workspace)
    report = _backtests(workspace, A, B, C)
    assert outcome(report, B)[0] == "failed"
    assert uri in outcome(report, B)[1]
    assert outcome(report, A)[0] == outcome(report, C)[0] == "stored"
    refresh(workspace, source, [A, B, C], rebuild=True)
    straight = fresh_store()
    refresh(straight, source, [A, B, C])
    assert_same(contents(workspace), contents(straight))


@pytest.mark.parametrize("dataset", ["bars", "features", "backtests"])
def test_files_that_are_gone_are_made_again(workspace: Workspace, dataset: str) -> None:
    source = small_market()
    refresh(workspace, source, [A, B])
    before = contents(workspace)
    folder = workspace.artifacts.root / ("runs" if dataset == "backtests" else dataset)
    folder.rename(workspace.artifacts.root / "lost")
    workspace = as_new_process(workspace)
    refresh(workspace, source, [A, B])
    assert_same(contents(workspace), before)


@pytest.mark.parametrize("n", [0, 1])
def test_an_asset_with_too_few_bars_is_empty_with_a_reason(workspace: Workspace, n: int) -> None:
    reports = refresh(workspace, small_market(A=120, B=n), [A, B])
    assert outcome(reports["backtests"], A)[0] == "stored"
    status, detail = outcome(reports["backtests"], B)
    assert (status, detail) == ("empty", "fewer than 2 complete 1D bars")
    with workspace.database.begin() as connection:
        quality = connection.execute(
            sa.text(
                "SELECT symbol, dataset, reason, n_rows FROM data_quality"
                " JOIN dim_assets USING (id) WHERE dataset = 'backtests'"
            )
        ).all()
    assert [tuple(row) for row in quality] == [("B", "backtests", "too_few_bars", 1)]
    assert set(contents(workspace)["backtest_runs"]["symbol"]) == {"A"}


def test_two_bars_give_runs_whose_undefined_metrics_have_reasons(workspace: Workspace) -> None:
    refresh(workspace, small_market(A=2), [A])
    found = contents(workspace)
    assert len(found["backtest_runs"]) == 6
    assert set(found["backtest_metrics"]["sharpe"]) == {None}
    assert found["backtest_metrics"]["why"].str.contains("sharpe").all()
    assert backtests_summary(workspace, [A]).numbers["runs"] == 6


def test_a_timeframe_that_no_bars_fill_is_empty(workspace: Workspace) -> None:
    short = Partition("A", "1M_CAL")
    reports = refresh(workspace, small_market(A=20), [short])
    assert outcome(reports["bars"], short)[0] == "empty"
    assert outcome(reports["bars"], short)[1].startswith("no complete 1M_CAL bar in the 1D bars")
    fine = Partition("A", "4H")
    reports = refresh(workspace, small_market(A=20), [fine])
    assert all(outcome(report, fine)[0] == "empty" for report in reports.values())


def test_without_bars_the_later_stages_say_what_to_refresh(workspace: Workspace) -> None:
    refresh(workspace, small_market(), [B])
    execute_sql(workspace, "INSERT INTO dim_assets (symbol) VALUES ('A')")
    report = refresh_backtests(workspace, [A, B], SimulationConfig(), rebuild=True)
    assert outcome(report, A) == ("no_input", "no signals are stored; refresh signals first")
    assert outcome(report, B)[0] == "stored"


def test_without_an_active_signal_nothing_is_traded(workspace: Workspace) -> None:
    _set_signals(workspace, "is_active = FALSE")
    reports = refresh(workspace, small_market(), [A, B])
    assert not reports["signals"].failed
    status, detail = outcome(reports["backtests"], A)
    assert status == "empty"
    assert "dim_signals.is_active" in detail
    assert contents(workspace)["data_quality"].query("dataset == 'backtests'").empty


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("""params = '{"fast": 9, "slow": 21, "fats": 3}'""", "unknown parameter 'fats'.*fast"),
        ("""params = '{"fast": 9, "slow": "often"}'""", "slow: must be a whole number"),
        ("""params = '{"fast": 30, "slow": 21}'""", r"fast \(30\) must be below slow"),
        ("strategy = 'ema_crosover'", "unknown strategy 'ema_crosover'; .*ema_crossover"),
    ],
)
def test_a_preset_with_wrong_parameters_is_left_out_with_the_reason(
    workspace: Workspace, change: str, complaint: str
) -> None:
    _set_signals(workspace, change, "name = 'ema_9_21'")
    refresh(workspace, small_market(), [A, B])
    left_out = left_out_presets(workspace)
    assert left_out.keys() == {"ema_9_21"}
    assert re.search(f"{complaint}.*presets remove ema_9_21", left_out["ema_9_21"])
    traded = set(contents(workspace)["backtest_runs"]["signal_name"])
    assert "ema_9_21" not in traded
    assert "ema_21_50" in traded


def test_backtests_refuse_signals_of_other_parameters(workspace: Workspace) -> None:
    refresh(workspace, small_market(), [A])
    _set_signals(workspace, """params = '{"fast": 5, "slow": 21}'""", "name = 'ema_9_21'")
    report = _backtests(workspace, A)
    assert outcome(report, A)[0] == "failed"
    assert "refresh signals first" in outcome(report, A)[1]


def test_backtests_refuse_signals_of_other_features(workspace: Workspace) -> None:
    panel = small_market().panels["1D"]
    refresh(workspace, StaticSource({"1D": panel.take(np.arange(len(panel)) % 120 < 110)}), [A])
    bars_and_features = refresh_signals(workspace, small_market(), [A])
    assert [next(bars_and_features).stage for _ in range(2)] == ["bars", "features"]
    report = _backtests(workspace, A)
    assert outcome(report, A)[0] == "failed"
    assert "refresh signals first" in outcome(report, A)[1]


def _set_signals(workspace: Workspace, change: str, where: str = "TRUE") -> None:
    with workspace.database.begin() as connection:
        connection.exec_driver_sql(f"UPDATE dim_signals SET {change} WHERE {where}")
