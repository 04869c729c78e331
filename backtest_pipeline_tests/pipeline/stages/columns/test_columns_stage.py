"""Columns of files reach the runs of those presets that read them, and of no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.audits.incremental import recomputed_signals
from backtest_pipeline.pipeline.audits.look_ahead import probe_look_ahead
from backtest_pipeline.pipeline.presets import left_out_presets
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.use_cases.refresh import refresh_features
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.own_columns import scores, with_columns
from backtest_pipeline_tests.pipeline.markets import (
    StaticSource,
    assert_same,
    contents,
    daily_panel,
    refresh,
)
from backtest_pipeline_tests.sql import column

PARTITIONS = [Partition(asset, tf) for asset in "ABC" for tf in ("1D", "1W")]
BARS = daily_panel({"A": 380, "B": 380, "C": 120})
MARKET = StaticSource({"1D": BARS})
DAYS_LESS = 20


def _runs(workspace: Workspace, condition: str = "TRUE") -> dict[str, str]:
    query = (
        "SELECT signal_name || ' ' || symbol || ' ' || tf || ' ' || run_id FROM backtest_runs"
        f" WHERE is_current AND {condition}"
    )
    return dict(line.rsplit(" ", 1) for line in column(workspace, query))


def _until(days_less: int) -> StaticSource:
    last = int(BARS.ts.max()) - days_less * 86_400_000_000
    return StaticSource({"1D": BARS.take(last >= BARS.ts)})


def test_runs_of_a_file_are_stored_replayed_and_stay_when_nothing_changes(
    workspace: Workspace, tmp_path: Path
) -> None:
    with with_columns(workspace, tmp_path, {"model.parquet": scores()}) as (store, put):
        reports = refresh(store, MARKET, PARTITIONS)
        assert not any(report.failed for report in reports.values())
        assert left_out_presets(store) == {}
        own = _runs(store, "signal_name = 'scored_60'")
        assert len(own) == len(PARTITIONS)
        trades = column(
            store,
            "SELECT sum((results->>'trades')::int) FROM backtest_runs WHERE strategy='scored'",
        )
        assert trades[0] > 20
        again = refresh(store, MARKET, PARTITIONS)
        assert {report.counts.get("unchanged") for report in again.values()} == {len(PARTITIONS)}
        found = recomputed_signals(store)
        assert (len(found.partitions), found.differing) == (len(PARTITIONS), ())
        put("model.parquet", scores(seed=9))  # what was read stays readable
        (tmp_path / "columns" / "model.parquet").unlink()
        replays = list(replay_runs(store, list(own.values())))
        assert {one.verdict for one in replays} == {ReplayVerdict.SAME}


def test_an_edited_file_makes_only_its_own_runs_stale(workspace: Workspace, tmp_path: Path) -> None:
    frame = scores()
    with with_columns(workspace, tmp_path, {"model.parquet": frame}) as (store, put):
        refresh(store, MARKET, PARTITIONS)
        own = _runs(store, "strategy = 'scored'")
        others = _runs(store, "strategy <> 'scored'")
        events = column(store, "SELECT created_at FROM signals WHERE signal_id <= 6 ORDER BY 1")
        put("model.parquet", frame.assign(other=1.5))  # a column that no preset reads
        refresh(store, MARKET, PARTITIONS)
        assert _runs(store, "strategy = 'scored'") == own
        edited = frame["symbol"].eq("B") & frame["ts"].dt.date.eq(pd.Timestamp("2025-06-10").date())
        put("model.parquet", frame.assign(score=frame["score"].mask(edited, 0.99)))
        refresh(store, MARKET, PARTITIONS)
        now = _runs(store, "strategy = 'scored'")
        assert {name for name, run in now.items() if own[name] != run} == {"scored_60 B 1D"}
        assert _runs(store, "strategy <> 'scored'") == others
        assert column(store, "SELECT created_at FROM signals WHERE signal_id <= 6 ORDER BY 1") == (
            events
        )


@pytest.mark.parametrize("appended", ["bars", "rows", "both"])
def test_grown_files_and_bars_give_what_all_at_once_gives(
    workspace: Workspace,
    fresh_store: Callable[[], Workspace],
    tmp_path: Path,
    appended: str,
) -> None:
    frame = scores()
    early: Any = frame[frame["ts"] <= frame["ts"].max() - pd.Timedelta(days=DAYS_LESS)]
    first = frame if appended == "bars" else early
    with with_columns(workspace, tmp_path, {"model.parquet": first}) as (store, put):
        refresh(store, MARKET if appended == "rows" else _until(DAYS_LESS), PARTITIONS)
        put("model.parquet", frame)
        refresh(store, MARKET, PARTITIONS)
        assert recomputed_signals(store).differing == ()
        (tmp_path / "other").mkdir()
    with with_columns(fresh_store(), tmp_path / "other", {"model.parquet": frame}) as (whole, _):
        refresh(whole, MARKET, PARTITIONS)
    grown, at_once = contents(store), contents(whole)
    for found in (grown, at_once):
        del found["benchmark.parquet"]  # one in each directory, and other runs stay in theirs
    assert_same(grown, at_once)


def test_a_batch_gives_what_each_asset_alone_gives(
    workspace: Workspace, fresh_store: Callable[[], Workspace], tmp_path: Path
) -> None:
    with with_columns(workspace, tmp_path, {"model.parquet": scores()}) as (store, _):
        refresh(store, MARKET, PARTITIONS)
        (tmp_path / "alone").mkdir()
    with with_columns(fresh_store(), tmp_path / "alone", {"model.parquet": scores()}) as (alone, _):
        for partition in PARTITIONS:
            refresh(alone, MARKET, [partition])
    own = [_runs(one, "tf = '1D'") for one in (store, alone)]
    assert own[0] == own[1]


def test_a_preset_without_its_column_is_left_out_and_the_others_go_on(
    workspace: Workspace, tmp_path: Path
) -> None:
    with with_columns(workspace, tmp_path, {}) as (store, put):
        assert not any(report.failed for report in refresh(store, MARKET, PARTITIONS).values())
        assert "unknown column 'calm'" in left_out_presets(store)["scored_60"]
        put("model.parquet", scores().rename(columns={"score": "scores"}))
        assert "unknown column 'score'; did you mean scores" in left_out_presets(store)["scored_60"]
        put("model.parquet", scores().assign(calm="yes"))
        assert "column calm holds" in left_out_presets(store)["scored_60"]
        put("model.parquet", scores())
        assert left_out_presets(store) == {}
        assert len(_runs(store)) == 6 * len(PARTITIONS)


def test_a_row_that_arrives_after_the_close_is_read_a_day_later(
    workspace: Workspace, tmp_path: Path
) -> None:
    frame = scores()
    late = frame.assign(available_at=frame["ts"] + pd.Timedelta(hours=1))
    with with_columns(workspace, tmp_path, {"model.csv": late}) as (store, _):
        refresh(store, MARKET, PARTITIONS)
        uris = column(
            store,
            "SELECT unnest(uris) FROM dataset_versions JOIN dim_assets a USING (id)"
            " WHERE dataset = 'columns:model' AND a.symbol = 'A' AND tf = '1D'",
        )
    stored = store.artifacts.read_snapshot(uris[0], ["ts", "score"], ["A"]).to_pandas()
    of_a: Any = frame[frame["symbol"] == "A"]
    own = pd.Series(of_a["score"].to_numpy(), of_a["ts"].dt.floor("D"))
    expected = own.reindex(stored["ts"].dt.floor("D") - pd.Timedelta(days=1)).to_numpy()
    assert np.array_equal(stored["score"].to_numpy(), expected, equal_nan=True)


def test_the_look_ahead_probe_leaves_out_partitions_whose_columns_wait_for_a_refresh(
    workspace: Workspace, tmp_path: Path
) -> None:
    daily = [Partition(asset, "1D") for asset in "AB"]
    with with_columns(workspace, tmp_path, {"model.parquet": scores()}) as (store, _):
        refresh(store, _until(DAYS_LESS), daily)
        of_all = probe_look_ahead(store, None)
        assert not any(report.failed for report in refresh_features(store, MARKET, daily[:1]))
        assert 0 < probe_look_ahead(store, None).signals < of_all.signals
