"""Runs on columns of the user's own: exported, explained, and replayed when the file is gone."""

from __future__ import annotations

import io
from pathlib import Path
from uuid import UUID

import pandas as pd
import pyarrow.parquet as pq

from backtest_pipeline.market.partitions import Partition
from backtest_pipeline.pipeline.replay import bundle_verifier
from backtest_pipeline.pipeline.replay.explain import explain_runs
from backtest_pipeline.pipeline.replay.export import bundle_files
from backtest_pipeline.pipeline.replay.replay import ReplayVerdict, replay_runs
from backtest_pipeline.pipeline.workspace import Workspace
from backtest_pipeline_tests.own_columns import scores, with_columns
from backtest_pipeline_tests.pipeline.markets import StaticSource, daily_panel, refresh
from backtest_pipeline_tests.sql import column

MARKET = StaticSource({"1D": daily_panel({"A": 380})})
OWN = "SELECT run_id FROM backtest_runs WHERE strategy = 'scored' ORDER BY completed_at"


def test_a_changed_score_is_in_the_bundle_and_explains_the_difference(
    workspace: Workspace, tmp_path: Path
) -> None:
    frame = scores("A")
    day = frame["ts"].dt.floor("D") == pd.Timestamp("2025-06-10", tz="UTC")
    with with_columns(workspace, tmp_path, {"model.csv": frame}) as (store, put):
        refresh(store, MARKET, [Partition("A", "1D")])
        put("model.csv", frame.assign(score=1 - frame["score"], calm=frame["calm"] | day))
        refresh(store, MARKET, [Partition("A", "1D")])
        (tmp_path / "columns" / "model.csv").unlink()
        before, after = (UUID(str(run)) for run in column(store, OWN))
        files = bundle_files(store, after)
        assert bundle_verifier.problems_of(files) == []
        rows = pq.read_table(io.BytesIO(files["inputs/A-1D-columns-model.parquet"]))
        assert rows.column_names == ["ts", "calm", "other", "score"]
        assert rows.num_rows == 380
        replays = replay_runs(store, [str(before), str(after)])
        assert [one.verdict for one in replays] == [ReplayVerdict.SAME] * 2
        found = explain_runs(store, before, after)
        assert found.movers == ("data",)
        (data,) = (factor for factor in found.factors if factor.name == "data")
        (line,) = data.differences
        assert line.startswith("A|1D|columns:model: 380 bars with other values, from 2024-12-17")
        assert found.remainder == ()
