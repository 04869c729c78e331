"""Stored runs in a notebook: figures, pandas objects, and what a cell shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from plotly.graph_objects import Figure

from backtest_pipeline.pipeline.runs.reports.loaded_runs import LoadedRun, LoadedWalkForward
from backtest_pipeline_tests.report.reported import HOSTILE, reported

FOLDS = [
    {
        "fold": number,
        "train_start": datetime(2018, 1, 1, tzinfo=UTC),
        "test_start": datetime(2018 + number, 1, 1, tzinfo=UTC),
        "test_end": datetime(2019 + number, 1, 1, tzinfo=UTC),
        "params": {"fast": 5 + number, "slow": 30} if number != 2 else None,
    }
    for number in (1, 2, 3)
]


def _drawn(figure: Figure) -> dict[str, Any]:
    """The values of each trace, by its name."""
    traces: Any = figure.data
    return {trace.name: trace.y for trace in traces}


def test_curves_and_trades_are_pandas() -> None:
    run = LoadedRun(reported())
    assert run.reported.series is not None
    assert list(run.curves) == ["equity", "drawdown", "exposure", "benchmark"]
    np.testing.assert_array_equal(run.curves["equity"], run.reported.series.equity)
    assert isinstance(run.curves.index, pd.DatetimeIndex)
    assert str(run.curves.index.tz) == "UTC"
    assert len(run.trades) == 39
    assert isinstance(run.trades["entry_ts"].dtype, pd.DatetimeTZDtype)
    assert LoadedRun(reported(series=None, trades=[], closes=None)).curves.empty


def test_the_figure_keeps_the_extremes_of_a_long_run() -> None:
    run = LoadedRun(reported(50_000, 3, step_us=3_600_000_000))
    assert run.reported.series is not None
    traces = {name: np.array(values, float) for name, values in _drawn(run.plot()).items()}
    assert len(traces["run"]) <= 5000
    assert traces["run"].max() == run.reported.series.equity.max()
    assert traces["drawdown"].min() == run.reported.series.drawdown.min()
    assert "5 to 95 %" in traces


def test_a_run_without_its_files_has_an_empty_figure() -> None:
    assert not _drawn(LoadedRun(reported(series=None, closes=None)).plot())


def test_a_walk_forward_shows_what_was_chosen_over_time() -> None:
    figure = LoadedWalkForward(reported(), FOLDS).plot()
    chosen = {name: list(values) for name, values in _drawn(figure).items()}
    assert chosen["fast"] == [6, None, 8, 8]
    assert chosen["slow"] == [30, None, 30, 30]
    assert len(figure.layout.shapes) >= len(FOLDS)


def test_a_cell_shows_tiles_and_a_small_chart() -> None:
    shown = LoadedRun(reported(name=HOSTILE))._repr_html_()
    assert "<script" not in shown
    assert "<svg" in shown
    assert shown.count("<th>") == 6
    assert 'data-metric="sharpe"' in shown
